"""Meta-World's traps, each as a test over its 50 tasks: seeds, goals, save and restore, equality with Meta-World's own step."""

import numpy as np
import pytest
from metaworld.utils import reward_utils
from robopref.benchmarks.stepping import plain
from robopref.envs import metaworld
from robopref.envs import metaworld_rewards as rewards
from robopref.envs.metaworld import MetaWorld
from robopref.envs.metaworld_starts import Starts
from robopref.envs.metaworld_tasks import TASKS, canonical
from scipy.spatial.transform import Rotation

from robopref.arrays import InputError

QUICK = {"drawer-open-v3", "button-press-topdown-v3", "door-open-v3", "sweep-into-v3", "bin-picking-v3", "push-v3"} | {
    "hammer-v3",  # two objects
    "basketball-v3",  # its target aliases simulator memory
}
SEED = 3


class Worlds:
    """A used and a fresh environment of ours and Meta-World's own, all of one task."""

    def __init__(self, task):
        self.used, self.fresh, self.peer = MetaWorld(task), MetaWorld(task), plain(task, SEED)
        self.used.reset(seed=SEED + 1)
        self.actions = np.random.default_rng(0).uniform(-1, 1, (200, 4)).astype(np.float32)
        for action in self.actions[:20]:
            self.used.step(action)


@pytest.fixture(scope="module", params=[pytest.param(t, marks=() if t in QUICK else pytest.mark.slow) for t in TASKS])
def worlds(request):
    return Worlds(request.param)


@pytest.fixture(autouse=True)
def starts(monkeypatch):
    """Room for no start state, so that resets are compared with resets."""
    monkeypatch.setattr(metaworld, "_STARTS", Starts(room=0))


def acting(env, observation, number, draw):
    """Expert in the even, noise in the odd spans of 25 steps: near the objects and far from habit."""
    return np.clip(env.expert(observation) + draw.normal(0, 0.8 if number // 25 % 2 else 0.1, 4), -1, 1).astype("f4")


def test_start_and_steps_are_meta_worlds_own_whatever_came_before(worlds):
    observation, _ = worlds.used.reset(seed=SEED)
    peer = plain(worlds.used.task, SEED) if worlds.peer.curr_path_length else worlds.peer
    np.testing.assert_array_equal(observation, peer._get_obs()[[*range(18), *range(18), 36, 37, 38]].astype("f4"))
    draw = np.random.default_rng(1)
    for number in range(100):
        action = acting(worlds.used, observation, number, draw)
        observation, reward, _, _, info = worlds.used.step(action)
        wanted, wanted_reward, _, _, wanted_info = peer.step(action)
        np.testing.assert_allclose(worlds.used._frame, wanted, rtol=0, atol=1e-12)
        assert abs(reward - wanted_reward) <= 1e-12
        assert info["success"] is bool(wanted_info["success"])
        for name, value in wanted_info.items():
            assert abs(float(info[name]) - float(value)) <= 1e-12, name


def test_same_seed_same_episode_and_another_seed_another(worlds):
    first, _ = worlds.used.reset(seed=SEED)
    again, _ = worlds.fresh.reset(seed=SEED)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(worlds.used.get_state(), worlds.fresh.get_state())
    other, _ = worlds.used.reset(seed=SEED + 1)
    assert not np.array_equal(first, other)


def test_a_kept_start_goes_on_bit_for_bit_like_a_made_one(worlds, monkeypatch):
    made, _ = worlds.fresh.reset(seed=SEED)
    wanted = [worlds.fresh.step(action) for action in worlds.actions[:40]]
    monkeypatch.setattr(metaworld, "_STARTS", kept := Starts(room=1))
    MetaWorld(worlds.used.task).reset(seed=SEED)
    monkeypatch.setattr(worlds.used, "_start", None)  # it must not be asked
    observation, info = worlds.used.reset(seed=SEED)
    np.testing.assert_array_equal(observation, made)
    assert len(kept) == 1 and info == {"success": False, "seed": SEED}
    for action, (frame, reward, *_, told) in zip(worlds.actions[:40], wanted, strict=True):
        observation, got, *_, info = worlds.used.step(action)
        np.testing.assert_array_equal(observation, frame)
        assert got == reward and info == told


def test_kept_starts_make_room_for_the_latest():
    kept, state = Starts(room=2), np.zeros(1)
    for seed in (1, 2):
        kept.put("reach-v3", seed, state)
    assert kept.get("reach-v3", 1) is state and kept.get("door-open-v3", 1) is None
    kept.put("reach-v3", 3, state)
    assert [kept.get("reach-v3", seed) is state for seed in (1, 2, 3)] == [True, False, True]


def test_a_state_restored_in_another_instance_replays_200_steps(worlds):
    env, other = worlds.used, worlds.fresh
    observation, _ = env.reset(seed=SEED)
    draw = np.random.default_rng(2)
    for number in range(30):
        observation = env.step(acting(env, observation, number, draw))[0]
    env.horizon = other.horizon = 230
    other.reset(seed=SEED + 2)
    saved = env.get_state()
    assert np.isfinite(saved).all()
    np.testing.assert_array_equal(other.set_state(saved), observation)
    np.testing.assert_array_equal(other.get_state(), saved)
    for number in range(200):
        action = acting(env, observation, number, draw)
        observation, reward, _, truncated, info = env.step(action)
        _, other_reward, _, _, other_info = other.step(action)
        np.testing.assert_allclose(other._frame, env._frame, rtol=0, atol=1e-12)
        assert abs(reward - other_reward) <= 1e-12
        assert info == other_info
    assert truncated
    np.testing.assert_allclose(other.get_state(), env.get_state(), rtol=0, atol=1e-12)
    env.horizon = other.horizon = 200


def test_goal_is_shown_alike_at_reset_and_after_a_step_and_lies_in_finite_bounds(worlds):
    env = worlds.used
    start, _ = env.reset(seed=SEED)
    after = env.step(np.zeros(4))[0]
    np.testing.assert_array_equal(start[36:], after[36:])
    assert np.any(start[36:])
    space = env.observation_space
    assert np.isfinite(space.low).all() and np.isfinite(space.high).all()
    assert space.contains(start) and space.contains(after)
    np.testing.assert_array_equal(after[18:36], start[:18])


def test_expert_remembers_nothing_and_stays_in_bounds(worlds):
    env = worlds.used
    observation, _ = env.reset(seed=SEED)
    action = env.expert(observation)
    for number in range(10):
        later = env.step(env.expert(observation) if number else action)[0]
        env.expert(later)
    np.testing.assert_array_equal(env.expert(observation), action)
    np.testing.assert_array_equal(worlds.fresh.expert(observation), action)
    assert action.dtype == np.float32 and env.action_space.contains(action)


@pytest.mark.parametrize("task", ["drawer-open", "button-press-topdown", "door-open", "sweep-into", "plate-slide"])
def test_expert_succeeds(task):
    env = MetaWorld(task, terminate_on_success=True)
    observation, _ = env.reset(seed=0)
    over = False
    while not over:
        observation, _, terminated, truncated, info = env.step(env.expert(observation))
        over = terminated or truncated
    assert terminated and info["success"] is True


def test_all_50_names_work_with_and_without_version():
    assert len(TASKS) == 50
    assert all(canonical(name) == canonical(name.removesuffix("-v3")) == name for name in TASKS)
    assert canonical("Drawer_Open") == "drawer-open-v3"
    assert MetaWorld("drawer-open").task == "drawer-open-v3"


def test_an_unknown_task_is_refused_with_near_names():
    with pytest.raises(InputError, match=r"drawr-open[\s\S]*Did you mean drawer-open"):
        MetaWorld("drawr-open")
    with pytest.raises(InputError, match="For example"):
        MetaWorld("zzzz")


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"horizon": 501}, {"cameras": ("nowhere",)}, {"image_size": 0}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(InputError, match=f"MetaWorld.{next(iter(wrong))}"):
        MetaWorld("reach", **wrong)


def test_wrong_actions_states_and_late_steps_are_refused():
    env = MetaWorld("reach", horizon=2)
    with pytest.raises(InputError, match="reset"):
        env.step(np.zeros(4))
    env.reset(seed=0)
    with pytest.raises(InputError, match="shape"):
        env.step(np.zeros(3))
    with pytest.raises(InputError, match="NaN"):
        env.step(np.array([0, np.nan, 0, 0]))
    with pytest.raises(InputError, match="set_state"):
        env.set_state(np.zeros(7))
    assert [env.step(np.zeros(4))[3] for _ in range(2)] == [False, True]
    with pytest.raises(InputError, match="reset"):
        env.step(np.zeros(4))


def test_actions_outside_the_box_are_clipped():
    first, second = MetaWorld("reach"), MetaWorld("reach")
    first.reset(seed=0), second.reset(seed=0)
    far, near = np.array([3.0, -2.0, 0.5, 9.0]), np.array([1.0, -1.0, 0.5, 1.0])
    np.testing.assert_array_equal(first.step(far)[0], second.step(near)[0])


def test_reset_without_a_seed_continues_a_seeded_sequence():
    env = MetaWorld("reach")
    env.reset(seed=7)
    first = [env.reset()[1]["seed"] for _ in range(3)]
    env.reset(seed=7)
    assert [env.reset()[1]["seed"] for _ in range(3)] == first
    assert len(set(first)) == 3


def test_goal_shift_moves_objects_and_goal_in_both_frames_and_nothing_else():
    for task, moved in (("hammer", [4, 5, 6, 11, 12, 13]), ("reach", [4, 5, 6])):
        env = MetaWorld(task)
        observation, _ = env.reset(seed=0)
        offset = np.array([0.1, -0.2, 0.05])
        change = env.goal_shift(observation, offset) - observation
        wanted = np.zeros(39)
        wanted[moved + [18 + i for i in moved] + [36, 37, 38]] = np.tile(offset, 2 * len(moved) // 3 + 1)
        np.testing.assert_allclose(change, wanted, atol=1e-6)


def test_meta_world_itself_is_left_as_it_was():
    MetaWorld("drawer-open")
    assert reward_utils.tolerance is not rewards.tolerance
    assert reward_utils.tolerance.__module__ == "metaworld.utils.reward_utils"
    task = type(plain("drawer-open", 0))
    assert task.compute_reward.__globals__["np"] is np


def test_reward_helpers_equal_meta_worlds():
    draw = np.random.default_rng(0)
    for x, low, width, margin in draw.uniform(-0.2, 1, (300, 4)):
        for shape in ("long_tail", "gaussian"):
            case = {"bounds": (low, low + abs(width)), "margin": abs(margin) * (x > 0), "sigmoid": shape}
            assert abs(rewards.tolerance(x, **case) - reward_utils.tolerance(x, **case)) <= 1e-15
    for a, b in [*draw.uniform(0, 1, (100, 2)), (0.0, 0.0), (1.0, 0.0)]:
        assert rewards.hamacher_product(a, b) == reward_utils.hamacher_product(a, b)
    with pytest.raises(ValueError, match="range"):
        rewards.hamacher_product(2.0, 0.5)
    for rotation in Rotation.random(200, rng=0):
        matrix = rotation.as_matrix()
        ours, theirs = rewards.quaternion_from_matrix(matrix), Rotation.from_matrix(matrix).as_quat()
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


def test_a_held_action_is_as_many_steps_whose_rewards_add_up():
    plain, held = MetaWorld("drawer-open", horizon=40), MetaWorld("drawer-open", horizon=10, repeat=4)
    for env in (plain, held):
        env.reset(seed=SEED)
    for _ in range(10):
        action = held.expert(held._frame)
        steps = [plain.step(action) for _ in range(4)]
        seen, reward, _, truncated, info = held.step(action)
        np.testing.assert_array_equal(seen, steps[-1][0])
        assert reward == pytest.approx(sum(one[1] for one in steps))
        assert info["success"] == any(one[4]["success"] for one in steps) and truncated == steps[-1][3]
    assert truncated
    with pytest.raises(InputError, match="got 200, with repeat=4, wanted both >= 1 and at most 500"):
        MetaWorld("drawer-open", horizon=200, repeat=4)
