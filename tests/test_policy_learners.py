"""IQL and contrastive preference learning: identities of their losses, and that they learn what they are told on a task of one second."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.learners.clone import clone, fit_normalizer
from robopref.learners.contrast import VARIANTS, ContrastSettings, contrast
from robopref.learners.iql import IQLSettings, Values, follow, iql, transitions, weights
from robopref.losses.contrastive import contrastive
from robopref.losses.pairwise import sigmoid
from robopref.policies.diffusion import Diffusion
from robopref.policies.gaussian import Gaussian
from robopref.types import Dims, Observation

DIMS = Dims(observation=3, action=2)


def episode(seed=0, steps=20, action=None):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    act = draw(steps, 2) if action is None else np.full((steps, 2), action, np.float32) + 0.05 * draw(steps, 2)
    return Trajectory(draw(steps, 3), act, np.zeros(steps, np.float32), np.zeros(steps, bool), "made-up", seed)


def mixed(count=20):
    """Half of the episodes act at +0.5, half at -0.5."""
    return [episode(i, action=0.5 if i % 2 == 0 else -0.5) for i in range(count)]


def policy(cls=Gaussian, trajectories=None, **more):
    torch.manual_seed(0)
    made = cls(DIMS, **({"horizon": 1, "execute": 1} if cls is Gaussian else {}) | more)
    table = chunk_table(trajectories or mixed(), made.spec)
    fit_normalizer(made, table)
    return made, table


def mean_action(made):
    torch.manual_seed(1)
    state = torch.rand(200, 1, 3) * 2 - 1
    return float(made.act(Observation(state), torch.Generator().manual_seed(0)).mean())


def test_with_bias_one_contrast_is_bradley_terry_and_its_pull_is_stronger_upwards_below():
    first, second, prob = torch.randn(3, 50).unbind()
    prob = prob.sigmoid()
    assert_close(contrastive(first, second, prob, bias=1.0), sigmoid(first, second, prob))
    a, b = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    contrastive(a, b, torch.ones(1), bias=0.5).backward()
    assert a.grad.item() == pytest.approx(-0.5) and b.grad.item() == pytest.approx(0.25)
    swapped = contrastive(second, first, 1 - prob)
    assert_close(contrastive(first, second, prob), swapped)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "head",
    [
        {},
        {"learn_spread": False, "spread": 0.5**0.5},
        {"cls": Diffusion, "horizon": 4, "execute": 4, "width": 32, "depth": 1},
    ],
)
def test_every_variant_and_head_moves_towards_what_is_preferred(variant, head):
    trajectories = mixed()
    made, table = policy(trajectories=trajectories, **head)
    good, bad = torch.arange(0, 20, 2), torch.arange(1, 20, 2)
    settings = ContrastSettings(variant=variant, clone_steps=60, steps=300, lr=2e-3, pairs=8, chunks=4)
    logs = list(contrast(made, table, good, bad, torch.ones(10), settings, torch.Generator().manual_seed(0)))
    assert [row for row in logs if "contrast/loss" in row][-1]["contrast/accuracy"] > 0.9
    assert mean_action(made) > 0.1


def test_an_unknown_variant_or_no_pair_is_refused():
    with pytest.raises(InputError, match="cpl_bc"):
        ContrastSettings(variant="cpl_b")
    with pytest.raises(InputError, match="bias"):
        ContrastSettings(bias=0.0)
    made, table = policy()
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError, match="no pair"):
        next(contrast(made, table, none, none, torch.zeros(0), ContrastSettings(), torch.Generator()))


FAST = {"steps": 250, "lr": 2e-3, "batch": 64, "width": 32}


def learned(rewards, cls=Gaussian, **knobs):
    trajectories = mixed()
    more = {"horizon": 4, "execute": 4, "width": 32, "depth": 1} if cls is Diffusion else {}
    made, _ = policy(cls, trajectories, **more)
    settings = IQLSettings(**{**FAST, **knobs})
    for _ in iql(made, trajectories, rewards(trajectories), settings, torch.Generator().manual_seed(0)):
        pass
    return mean_action(made)


@pytest.mark.parametrize("cls", [Gaussian, Diffusion])
def test_iql_prefers_the_actions_that_are_rewarded(cls):
    reward = lambda ts: [(t.action.mean(1) > 0).astype(np.float32) for t in ts]  # noqa: E731
    assert learned(reward, cls, gamma=0.0, inv_temperature=10.0) > 0.3


def test_a_larger_inverse_temperature_is_greedier_and_zero_is_cloning():
    reward = lambda ts: [(t.action.mean(1) > 0).astype(np.float32) for t in ts]  # noqa: E731
    cloned, mild, greedy = (learned(reward, gamma=0.0, inv_temperature=k) for k in (0.0, 1.0, 10.0))
    assert abs(cloned) < 0.15 and cloned < mild < greedy


def test_weights_do_not_depend_on_the_scale_of_the_rewards_and_errors_stay_small():
    advantage = torch.randn(64, generator=torch.Generator().manual_seed(0))
    assert_close(weights(advantage, 1.0, 2.0), weights(7.0 * advantage, 7.0, 2.0))
    assert_close(weights(advantage, 1.0, 2.0), torch.exp(2.0 * advantage / advantage.std()).clamp(max=100.0))
    assert_close(weights(advantage, 0.0, 2.0), torch.ones(64))
    assert (weights(1e-4 * advantage, 1.0, 2.0) - 1.0).abs().max() < 0.02


def test_no_reward_teaches_nothing():
    assert abs(learned(lambda ts: [np.zeros(len(t), np.float32) for t in ts], inv_temperature=10.0)) < 0.15


def test_the_last_step_of_an_episode_has_no_successor():
    made, _ = policy()
    data = transitions(made, [episode(0, 5), episode(1, 3)], [np.zeros(5), np.zeros(3)])
    assert data.usable.tolist() == [0, 1, 2, 3, 5, 6] and data.left.tolist() == [5, 4, 3, 2, 1, 3, 2, 1]


def test_the_target_follows_by_a_share():
    one, two = Values(3, 2, 8, 1), Values(3, 2, 8, 1)
    before = next(one.critics.parameters()).clone()
    follow(one.critics.requires_grad_(False), two.critics, 0.25)
    assert_close(next(one.critics.parameters()), 0.75 * before + 0.25 * next(two.critics.parameters()))


def test_bad_rewards_and_settings_are_refused():
    made, _ = policy()
    with pytest.raises(InputError, match="NaN"):
        transitions(made, [episode(0, 5)], [np.full(5, np.nan)])
    with pytest.raises(InputError, match="one reward per step"):
        transitions(made, [episode(0, 5)], [np.zeros(4)])
    with pytest.raises(InputError, match="at least two"):
        transitions(made, [episode(0, 1)], [np.zeros(1)])
    for wrong in ({"expectile": 1.0}, {"inv_temperature": -1.0}, {"gamma": 1.0}):
        with pytest.raises(InputError, match="iql"):
            IQLSettings(**wrong)


def test_cloning_ends_with_the_average_of_its_weights_where_one_is_asked_for():
    """The average by hand, with a decay that warms up: 1 - t^(-3/4) after step t, at most `ema`."""
    trail, ended = [], {}
    for ema in (0.0, 0.6):
        made, table = policy(Diffusion, horizon=4, execute=4, width=16, depth=1, diffusion_steps=5, sample_steps=2)
        start = {name: value.clone() for name, value in made.named_parameters()}
        for _ in clone(made, table, steps=8, lr=1e-2, batch=16, generator=torch.Generator().manual_seed(0), ema=ema):
            if not ema:
                trail.append({name: value.detach().clone() for name, value in made.named_parameters()})
        ended[ema] = {name: value.detach() for name, value in made.named_parameters()}
    average = start
    for t, weights_then in enumerate(trail, 1):
        decay = min(0.6, 1 - t**-0.75)
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights_then.items()}
    moved = 0.0
    for name, value in ended[0.6].items():
        assert_close(value, average[name])
        assert_close(ended[0.0][name], trail[-1][name], rtol=0, atol=0)
        moved = max(moved, float((value - ended[0.0][name]).abs().max()))
    assert moved > 1e-3, "and that is not what it ends with otherwise"
