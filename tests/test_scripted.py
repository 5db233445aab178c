"""Named imperfections: each does what it says and nothing else, and without any the script is the expert."""

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld
from robopref.envs.point_mass import INERTIA, STEP, PointMass

from robopref.arrays import InputError
from robopref.policies.scripted import Imperfection, Scripted

ACTS = 400


@pytest.fixture
def env():
    return PointMass(horizon=ACTS)


@pytest.fixture
def resting(env):
    """An observation at the goal without velocity, where the expert does nothing: an action is the fault alone."""
    env.reset(seed=0)
    state = env.get_state()
    state[:4] = [*state[4:6], 0, 0]
    state[6:8] = -state[4:6]  # the hazard far away
    seen = env.set_state(state)
    np.testing.assert_array_equal(env.expert(seen), 0)
    return seen


@pytest.fixture
def under_way(env):
    """An observation at the start, where the expert goes at full speed."""
    seen = env.reset(seed=0)[0]
    assert np.abs(env.expert(seen)).max() == 1
    return seen


def actions(env, seen, seed=0, count=ACTS, **how):
    """What an episode's script does (count, A) while it sees the same."""
    script = Scripted(env, Imperfection(**how), np.random.default_rng(seed))
    return np.stack([script.act(seen) for _ in range(count)])


def test_without_a_fault_the_script_is_the_expert():
    for env in (PointMass(), MetaWorld("drawer-open", horizon=60)):
        seen, _ = env.reset(seed=3)
        script, over = Scripted(env, Imperfection(), np.random.default_rng(0)), False
        while not over:
            action = script.act(seen)
            np.testing.assert_array_equal(action, env.expert(seen))
            seen, _, _, over, _ = env.step(action)


def test_action_noise_is_gaussian_of_that_deviation(env, resting):
    noise = actions(env, resting, action_noise=0.2)
    assert noise.std() == pytest.approx(0.2, rel=0.1) and abs(noise.mean()) < 0.03
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.15, "fresh at every step"
    assert np.abs(actions(env, resting, action_noise=5.0)).max() == 1, "actions stay in their box"


def test_bias_is_one_offset_of_that_length_drawn_once_an_episode(env, resting):
    directions = []
    for seed in range(20):
        offset = actions(env, resting, seed, bias=0.5)
        assert (offset == offset[0]).all()
        assert np.linalg.norm(offset[0]) == pytest.approx(0.5, rel=1e-6)
        directions.append(np.sign(offset[0]))
    assert len({tuple(one) for one in directions}) == 4, "every direction"


def test_a_stop_comes_in_the_first_half_and_is_for_good(env, under_way):
    times = []
    for seed in range(20):
        still = (actions(env, under_way, seed, stop=1.0, action_noise=0.1) == 0).all(axis=1)
        times.append(int(still.argmax()))
        assert still[times[-1] :].all() and not still[: times[-1]].any()
    assert max(times) < ACTS // 2 and len(set(times)) > 10
    stopped = [(actions(env, under_way, seed, stop=0.3)[-1] == 0).all() for seed in range(200)]
    assert 0.2 < np.mean(stopped) < 0.4


def test_a_wrong_goal_is_the_expert_for_a_goal_that_lies_elsewhere_by_that_distance(env, resting):
    angles = []
    for seed in range(20):
        wish = actions(env, resting, seed, wrong_goal=0.02)
        assert (wish == wish[0]).all(), "misjudged alike all the time"
        offset = wish[0] * (1 - INERTIA) * STEP  # the expert wishes to be there after this step
        assert np.linalg.norm(offset) == pytest.approx(0.02, rel=1e-3)
        shifted = env.goal_shift(resting, np.array([*offset, 0.0]))
        np.testing.assert_allclose(wish[0], env.expert(shifted), atol=1e-4)
        angles.append(np.arctan2(*offset))
    assert np.ptp(angles) > np.pi, "in any direction"


def test_bursts_are_ten_random_actions_that_begin_as_often_as_said(env, resting):
    begun, lengths, shaken = 0, [], []
    for seed in range(20):
        made = actions(env, resting, seed, burst=0.02)
        edges = np.diff([0, *(made != 0).any(axis=1).astype(int), 0])
        runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        lengths += [int(one) for one in runs[:-1]]  # the last one may be cut by the end
        begun += int(np.ceil(runs / 10).sum())
        shaken.append(made[(made != 0).any(axis=1)])
    assert lengths and all(one % 10 == 0 for one in lengths)
    quiet = 20 * ACTS - len(np.concatenate(shaken))
    assert begun / (quiet + begun) == pytest.approx(0.02, rel=0.3)
    assert np.concatenate(shaken).std() == pytest.approx(1 / np.sqrt(3), rel=0.05), "uniform in [-1, 1]"


def test_a_random_episode_is_random_from_end_to_end_and_comes_as_often_as_said(env, resting):
    made = actions(env, resting, random=1.0)
    assert made.std() == pytest.approx(1 / np.sqrt(3), rel=0.1) and np.abs(made).max() <= 1
    kinds = [(actions(env, resting, seed, 20, random=0.3) != 0).any(axis=1) for seed in range(200)]
    assert all(one.all() or not one.any() for one in kinds)
    assert 0.2 < np.mean([one.all() for one in kinds]) < 0.4


@pytest.mark.parametrize(("fault", "latest"), [("late", 3 * ACTS // 4), ("quit", ACTS // 2)])
def test_late_and_quit_only_tremble_before_and_after(env, under_way, fault, latest):
    expert, times = env.expert(under_way), []
    for seed in range(20):
        purpose = (actions(env, under_way, seed, **{fault: 1.0}) == expert).all(axis=1)
        edge = int((purpose if fault == "late" else ~purpose).argmax())
        assert purpose[edge:].all() == (fault == "late") and len(set(purpose[edge:].tolist())) == 1
        assert len(set(purpose[:edge].tolist())) <= 1
        times.append(edge)
    assert max(times) < latest and len(set(times)) > 10


def test_noise_spread_is_drawn_once_an_episode_between_its_bounds(env, resting):
    sizes = [actions(env, resting, seed, action_noise=0.1, noise_spread=3.0).std() for seed in range(30)]
    assert 0.1 / 3 * 0.85 < min(sizes) < 0.06 and 0.17 < max(sizes) < 0.3 * 1.15


@pytest.mark.parametrize(
    ("name", "value"),
    [("stop", 1.1), ("burst", -0.1), ("random", 2), ("late", -1), ("quit", 3), ("action_noise", -0.1), ("bias", -1),
     ("wrong_goal", -0.2), ("noise_spread", 0.5), ("pace", 0), ("pace", 1.5)],
)  # fmt: skip
def test_an_impossible_fault_is_refused(name, value):
    with pytest.raises(InputError, match=rf"Imperfection.{name}: got {value}, wanted"):
        Imperfection(**{name: value})
