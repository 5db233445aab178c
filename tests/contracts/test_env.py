"""What every environment preset in conf/env/ keeps: gymnasium's rules, an obeyed seed, exact save and restore."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env
from hydra.utils import instantiate

PRESETS = sorted((Path(__file__).parents[2] / "conf" / "env").glob("*.yaml"))
assert PRESETS, "conf/env is empty"


@pytest.fixture(scope="module", params=PRESETS, ids=lambda path: path.stem)
def make(request):
    preset = yaml.safe_load(request.param.read_text())
    return lambda: instantiate(preset)


def played(env, seed, steps=25):
    """Observations, rewards and successes of a noisy expert's episode."""
    observation, _ = env.reset(seed=seed)
    draw, rows = np.random.default_rng(seed), [observation]
    for _ in range(steps):
        action = np.clip(env.expert(observation) + draw.normal(0, 0.3, env.action_space.shape), -1, 1)
        observation, reward, _, _, info = env.step(action.astype(np.float32))
        rows.append(np.append(observation, [reward, info["success"]]))
    return rows


def test_gymnasium_has_nothing_to_complain_about(make):
    env = make()
    check_env(env, skip_render_check=True)
    assert env.task and env.horizon > 0
    assert np.isfinite(env.observation_space.low).all() and np.isfinite(env.observation_space.high).all()
    np.testing.assert_array_equal(env.action_space.high, 1)
    np.testing.assert_array_equal(env.action_space.low, -1)


def test_same_seed_same_episode(make):
    first, second = make(), make()
    once = played(first, 5)
    played(first, 6)
    for again in (played(first, 5), played(second, 5)):
        for one, other in zip(once, again, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(once[0], second.reset(seed=6)[0])


def test_a_saved_state_continues_exactly_in_another_instance(make):
    first, second = make(), make()
    played(first, 5, steps=10)
    saved = first.get_state()
    assert saved.dtype == np.float64 and saved.ndim == 1
    observation = second.set_state(saved)
    for _ in range(20):
        action = first.expert(observation)
        one, other = first.step(action), second.step(action)
        observation = one[0]
        np.testing.assert_array_equal(one[0], other[0])
        assert one[1:] == other[1:]
    np.testing.assert_array_equal(first.get_state(), second.get_state())
    assert first.set_state(saved).dtype == np.float32
    np.testing.assert_array_equal(first.get_state(), saved)


def test_expert_succeeds_within_the_horizon_and_ends_there(make):
    env = make()
    observation, _ = env.reset(seed=0)
    successes, truncated = [], False
    while not truncated:
        action = env.expert(observation)
        assert env.action_space.contains(action)
        observation, reward, terminated, truncated, info = env.step(action)
        assert type(reward) is float and type(info["success"]) is bool and not terminated
        successes.append(info["success"])
    assert len(successes) == env.horizon and any(successes)


def test_a_shifted_goal_changes_what_is_seen_but_not_where_the_robot_is(make):
    env = make()
    observation, _ = env.reset(seed=0)
    shifted = env.goal_shift(observation, np.array([0.1, 0.1, 0.0]))
    assert shifted.shape == observation.shape and shifted.dtype == observation.dtype
    assert not np.array_equal(shifted, observation)
    np.testing.assert_array_equal(shifted[:2], observation[:2])
