"""The point mass: its expert goes around the hazard, the straight way through it, and states restore exactly."""

import numpy as np
import pytest
from robopref.envs.point_mass import GOAL_RADIUS, PointMass

from robopref.arrays import InputError


def straight(observation):
    way = observation[4:6] - observation[:2]
    return way / np.abs(way).max()


def episode(seed, act):
    env = PointMass()
    observation, _ = env.reset(seed=seed)
    infos, total, truncated = [], 0.0, False
    while not truncated:
        observation, reward, _, truncated, info = env.step(act(env, observation))
        infos.append(info)
        total += reward
    return infos, total


@pytest.mark.parametrize("seed", range(20))
def test_expert_reaches_the_goal_past_the_hazard_and_the_straight_way_leads_through_it(seed):
    good, good_return = episode(seed, lambda env, observation: env.expert(observation))
    short, short_return = episode(seed, lambda env, observation: straight(observation))
    assert len(good) == 40
    assert any(info["success"] for info in good) and not any(info["hazard"] for info in good)
    assert any(info["hazard"] for info in short)
    assert good_return > short_return


def test_a_shifted_goal_leads_the_expert_elsewhere():
    def wrong(env, observation):
        return env.expert(env.goal_shift(observation, np.array([-0.4, 0.4, 0.0])))

    assert not any(info["success"] for info in episode(0, wrong)[0])


def test_success_is_the_goal_radius_and_can_end_the_episode():
    env = PointMass(terminate_on_success=True)
    observation, _ = env.reset(seed=0)
    over = False
    while not over:
        observation, _, over, _, info = env.step(env.expert(observation))
    assert info["success"] and np.hypot(*(observation[4:6] - observation[:2])) <= GOAL_RADIUS
    with pytest.raises(InputError, match="reset"):
        env.step(np.zeros(2))


def test_picture_has_goal_above_start_when_the_goal_lies_higher():
    env = PointMass(image_size=64)
    for seed in range(10):
        observation, _ = env.reset(seed=seed)
        picture = env.render()
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
        green = np.argwhere((picture == (70, 160, 90)).all(axis=2)).mean(axis=0)
        blue = np.argwhere((picture == (45, 85, 170)).all(axis=2)).mean(axis=0)
        assert green[1] > blue[1]
        if observation[5] > observation[1] + 0.05:
            assert green[0] < blue[0]


@pytest.mark.parametrize("wrong", [np.zeros(3), np.array([0, np.inf])])
def test_wrong_actions_are_refused(wrong):
    env = PointMass()
    env.reset(seed=0)
    with pytest.raises(InputError, match="action"):
        env.step(wrong)


def test_another_task_and_a_wrong_state_are_refused():
    with pytest.raises(InputError, match="task=point-mass"):
        PointMass("drawer-open")
    with pytest.raises(InputError, match="set_state"):
        PointMass().set_state(np.zeros(3))
