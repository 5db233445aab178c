"""Reaching with robosuite's arms: an obeyed seed, exact save and restore, a visible zone. Skipped where robosuite is not installed."""

import importlib.util

import numpy as np
import pytest
from robopref.envs.robosuite import _GOALS, ROBOTS, robosuite_preferred

from robopref.arrays import InputError

installed = pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


STRAIGHT = next(s for s in range(1000) if abs(np.random.default_rng([s, 59]).uniform(*_GOALS)[1]) < 0.01)
"""A reset whose goal lies behind the zone."""


def played(env, care, seed, steps=32):
    """Observations, return, success and last observation of the expert's episode."""
    seen, _ = env.reset(seed=seed, options={"care": care})
    rows, total, succeeded = [seen], 0.0, False
    for _ in range(steps):
        seen, reward, _, _, info = env.step(env.expert(seen))
        rows.append(seen)
        total, succeeded = total + reward, succeeded or info["success"]
    return np.stack(rows), total, succeeded


def test_another_task_or_arm_is_refused():
    with pytest.raises(InputError, match="got 'lift', wanted reach"):
        robosuite_preferred("lift")
    with pytest.raises(InputError, match="got 'Baxter', wanted one of Panda, Sawyer, IIWA, UR5e"):
        robosuite_preferred(arm="Baxter")


@installed
@pytest.mark.slow
@pytest.mark.gl
@pytest.mark.parametrize("robot", ROBOTS)
def test_an_arm_minds_the_zone_when_told_and_shows_it(robot):
    env = robosuite_preferred(arm=robot)
    careful, careless = played(env, 1.0, STRAIGHT), played(env, 0.0, STRAIGHT)
    assert careful[2] and careless[2] and careful[1] > careless[1] + 1
    assert careful[0][-1][-1] < 0.2 and careless[0][-1][-1] > 0.7  # a heavy arm swings a little into the zone
    again = played(env, 0.0, STRAIGHT)
    np.testing.assert_array_equal(again[0], careless[0])
    picture = env.render("frontview")
    assert picture.shape == (84, 84, 3) and picture.std() > 10 and env.render_settings["robot"] == robot

    seen, _ = env.reset(seed=4)
    for _ in range(5):
        seen, *_ = env.step(env.expert(seen))
    saved = env.get_state()
    went = [env.step(np.array([0.5, 0.2, 0, 0], np.float32))[0] for _ in range(4)]
    env.reset(seed=5)
    env.set_state(saved)
    back = [env.step(np.array([0.5, 0.2, 0, 0], np.float32))[0] for _ in range(4)]
    np.testing.assert_allclose(back, went, atol=1e-6)
    env.close()
