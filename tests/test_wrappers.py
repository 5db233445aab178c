"""Best of N and conditioning: identities, one row does not see another, every head, refused input."""

import numpy as np
import pytest
import torch
from torch import nn

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.windows import chunk_table
from robopref.learners.align import PairTable
from robopref.learners.clone import fit_normalizer
from robopref.learners.conditioned import condition, indicators_from_advantage, indicators_from_pairs
from robopref.policies.best_of import BestOf, ImplicitReward, RewardJudge, Weighed
from robopref.policies.conditioned import Conditioned, Guided
from robopref.policies.diffusion import Diffusion
from robopref.policies.flow import Flow
from robopref.policies.gaussian import Gaussian
from robopref.policies.tokens import Tokens
from robopref.rewards.partial_return import PartialReturn
from robopref.types import Chunks, Dims, Observation

DIMS = Dims(observation=3, action=2)
SMALL = {"horizon": 4, "execute": 4, "width": 32, "depth": 1}
HEADS = {
    "flow": lambda: Flow(DIMS, **SMALL),
    "diffusion": lambda: Diffusion(DIMS, **SMALL, diffusion_steps=10, sample_steps=3),
    "gaussian": lambda: Gaussian(DIMS, **SMALL),
    "tokens": lambda: Tokens(DIMS, **SMALL, bins=16),
}


class Highest(nn.Module):
    """A judge that likes large first actions."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign, self.config = sign, {"sign": sign}

    def forward(self, chunks):
        return self.sign * chunks.action[:, 0, 0]


def pair_of(head):
    torch.manual_seed(0)
    policy = HEADS[head]()
    tuned = policy.reference()
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy.eval(), tuned


def generators(count):
    return [torch.Generator().manual_seed(i) for i in range(count)]


SEEN = Observation(torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("head", HEADS)
def test_best_of_one_is_the_policy(head):
    policy, tuned = pair_of(head)
    one = BestOf(policy, ImplicitReward(tuned, policy), candidates=1)
    assert torch.equal(one.act(SEEN, generators(5)), policy.act(SEEN, generators(5)))
    assert one.spec == policy.spec


def test_it_runs_the_candidate_that_the_judge_likes_best():
    policy, _ = pair_of("gaussian")
    most, least = (BestOf(policy, Highest(sign), 16).act(SEEN, generators(5)) for sign in (1.0, -1.0))
    for row in range(5):  # the winner is one of the row's own candidates, the one with the largest first action
        one = torch.Generator().manual_seed(row)
        candidates = policy.act(SEEN[torch.full((16,), row)], [one] * 16)
        assert most[row, 0, 0] == candidates[:, 0, 0].max() and least[row, 0, 0] == candidates[:, 0, 0].min()


@pytest.mark.parametrize("head", HEADS)
def test_a_row_s_choice_does_not_depend_on_its_neighbours(head):
    policy, tuned = pair_of(head)
    best = BestOf(policy, ImplicitReward(tuned, policy, probes=3), candidates=4)
    rows = torch.tensor([3, 1])
    together, apart = best.act(SEEN, generators(5)), best.act(SEEN[rows], [generators(5)[3], generators(5)[1]])
    torch.testing.assert_close(together[rows], apart, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("head", HEADS)
def test_the_implicit_reward_of_a_copy_is_zero_everywhere(head):
    policy, _ = pair_of(head)
    chunks = Chunks(SEEN, torch.rand(5, 4, 2) - 0.5, torch.ones(5, 4, 2))
    assert (ImplicitReward(policy.reference(), policy)(chunks) == 0).all()


def test_the_lowest_times_can_be_asked_for():
    policy, tuned = pair_of("flow")
    chunk = Chunks(SEEN[:1], torch.zeros(1, 4, 2), torch.ones(1, 4, 2))
    every, lowest = (ImplicitReward(tuned, policy, 10, share)._draws(chunk).time for share in (1.0, 0.1))
    assert every.shape == lowest.shape == (1, 10)
    assert lowest.max() < 0.35 and every.max() > 0.9 and every.min() < 0.4


def test_a_reward_that_looks_at_actions_can_judge_and_one_that_does_not_is_refused():
    torch.manual_seed(0)
    policy, reward = HEADS["gaussian"](), PartialReturn(DIMS, use_action=True)
    best = BestOf(policy, RewardJudge(reward, execute=4), candidates=12)
    judged = best.judge(Chunks(SEEN, best.act(SEEN, generators(5)), torch.ones(5, 4, 2)))
    plain = best.judge(Chunks(SEEN, policy.act(SEEN, generators(5)), torch.ones(5, 4, 2)))
    assert (judged >= plain - 1e-6).all() and (judged > plain + 1e-6).any()
    with pytest.raises(InputError, match="use_action"):
        RewardJudge(PartialReturn(DIMS), execute=4)


def test_weights_turn_the_choice_while_it_runs():
    policy, _ = pair_of("gaussian")
    dial = Weighed([Highest(1.0), Highest(-1.0)], [1.0, 0.0], candidates=8)
    best = BestOf(policy, dial, candidates=8)
    high = best.act(SEEN, generators(5))
    dial.set_weights([0.0, 1.0])
    assert (best.act(SEEN, generators(5))[:, 0, 0] < high[:, 0, 0]).all()
    with pytest.raises(InputError, match="sum to one"):
        dial.set_weights([0.5, 0.6])
    with pytest.raises(InputError, match="2 objectives"):
        dial.set_weights([1.0])


def test_latency_is_reported():
    policy, tuned = pair_of("flow")
    best = BestOf(policy, ImplicitReward(tuned, policy), candidates=4)
    assert best.latency_ms == 0
    best.act(SEEN, generators(5))
    assert best.latency_ms > 0 and best.calls == 1


@pytest.mark.parametrize("head", ["flow", "tokens"])
def test_a_saved_wrapper_acts_the_same_even_when_it_holds_one_policy_twice(head, tmp_path):
    policy, tuned = pair_of(head)
    best = BestOf(policy, ImplicitReward(tuned, policy, probes=3), candidates=4)
    again = load(save(best, tmp_path / "best"))
    assert torch.equal(again.act(SEEN, generators(5)), best.act(SEEN, generators(5)))


def test_a_reference_with_another_normaliser_is_refused():
    policy, tuned = pair_of("flow")
    tuned.normalizer.fit(torch.randn(9, 3), torch.rand(9, 2))
    with pytest.raises(InputError, match="another normaliser"):
        ImplicitReward(tuned, policy)
    with pytest.raises(InputError, match="candidates"):
        BestOf(policy, Highest(), candidates=0)


def conditioned(head, guidance=1.0):
    torch.manual_seed(0)
    plain = HEADS[head]()
    arguments = {k: v for k, v in plain.config.items() if k != "dims"}
    return Conditioned(DIMS, f"{type(plain).__module__}.{type(plain).__qualname__}", arguments, guidance=guidance)


def episodes(count=20, steps=16):
    """Half act near 0.5, half near -0.5, at observations that do not tell which."""

    def one(number):
        rng, level = np.random.default_rng(number), 0.5 if number % 2 else -0.5
        action = np.clip(level + 0.1 * rng.normal(size=(steps, 2)), -1, 1).astype(np.float32)
        zeros = np.zeros(steps, np.float32)
        return Trajectory(rng.normal(size=(steps, 3)).astype(np.float32), action, zeros, zeros > 0)

    return [one(i) for i in range(count)]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_does_what_is_preferred_when_told_so_and_more_of_it_with_guidance(head):
    policy = conditioned(head)
    table = chunk_table(episodes(), policy.spec)
    fit_normalizer(policy, table)
    first, second = torch.arange(1, 20, 2), torch.arange(0, 20, 2)
    pairs = PairTable(first, second, torch.ones(10), torch.ones(10))
    indicator = indicators_from_pairs(pairs, len(table))
    steps = 400 if head == "tokens" else 250
    gen = torch.Generator().manual_seed(0)
    logs = list(condition(policy, table, indicator, steps=steps, lr=3e-3, batch=48, generator=gen, drop=0.2))
    assert {"condition/loss", "condition/preferred", "condition/rejected", "condition/unsaid"} >= logs[-1].keys()
    seen, means = Observation(torch.randn(300, 1, 3)), {}
    for guidance in (0.0, 1.0, 1.5):
        policy.guidance = guidance
        means[guidance] = policy.act(seen, torch.Generator().manual_seed(3)).mean().item()
    assert abs(means[0.0]) < 0.2 and means[1.0] > 0.3, means
    assert means[1.5] > means[1.0] - 0.02, means


def test_guidance_extrapolates_from_the_unsaid_to_the_said():
    network = nn.Linear(4, 2)
    guided = Guided(network, torch.tensor([False, False, False, True]))
    told = torch.randn(6, 4)
    bare = torch.cat([told[:, :3], torch.zeros(6, 1)], dim=1)
    for strength in (0.0, 1.0, 2.5):
        guided.strength = strength
        wanted = network(bare) + strength * (network(told) - network(bare))
        torch.testing.assert_close(guided(told), wanted)
    guided.strength = None
    assert torch.equal(guided(told), network(told))


def test_token_guidance_with_a_cache_equals_guidance_of_the_whole_sequence():
    policy = conditioned("tokens")
    guided = policy.head.network
    guided.strength = 2.0
    before, told = torch.randint(0, 16, (3, 8)), torch.randn(3, 4)
    whole, _ = guided(before, None, told)
    cache, parts = None, []
    for place in range(8):
        logits, cache = guided(before[:, place : place + 1], cache, told)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_indicators_follow_wins_and_advantages():
    pairs = PairTable(torch.tensor([0, 2, 0]), torch.tensor([1, 1, 3]), torch.tensor([1.0, 0.5, 0.0]), torch.ones(3))
    assert indicators_from_pairs(pairs, 5).tolist() == [0, -1, 0, 1, 0]
    assert indicators_from_advantage(torch.arange(10.0), 0.3).tolist() == [-1] * 7 + [1] * 3
    with pytest.raises(InputError, match="top"):
        indicators_from_advantage(torch.arange(3.0), 1.0)


def test_impossible_conditioning_is_refused():
    policy = conditioned("flow")
    table = chunk_table(episodes(4), policy.spec)
    options = {"steps": 1, "lr": 1e-3, "batch": 4, "generator": torch.Generator()}
    for indicator, message in (
        (torch.ones(3), "indicator"),
        (-torch.ones(4), "no preferred"),
        (2 * torch.ones(4), r"outside"),
    ):
        with pytest.raises(InputError, match=message):
            next(condition(policy, table, indicator, **options))
    with pytest.raises(InputError, match="drop"):
        next(condition(policy, table, torch.ones(4), **options, drop=0.0))
    with pytest.raises(InputError, match="guidance"):
        conditioned("flow", guidance=-0.5)
    with pytest.raises(InputError, match=r"robopref\.policies"):
        Conditioned(DIMS, "os.path.join")
    with pytest.raises(InputError, match="does not exist"):
        Conditioned(DIMS, "robopref.policies.flow.Flaw")
