"""Pictures stand upright: the rule that turns them, compared with every camera of all 50 tasks, without drawing any."""

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld
from robopref.envs.metaworld_tasks import TASKS
from robopref.envs.rendering import upright

from robopref.arrays import InputError

SIZE = 101
FROM_ABOVE = 0.05
"""A camera whose own up direction is nearly level looks straight down: nothing is up in its picture."""


def seen_at(point, position, rotation):
    """(row, column) at which a camera with a right angle of view sees a point, after the picture was turned."""
    right, up, back = rotation.reshape(3, 3).T @ (point - position)
    assert back < 0, "before the camera"
    half = SIZE // 2
    pixels = np.zeros((SIZE, SIZE))
    pixels[half + round(half * up / -back), half + round(half * right / -back)] = 1  # as OpenGL does: rows from below
    return np.argwhere(upright(pixels, rotation))[0]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_is_higher_in_the_world_is_higher_in_the_picture(task):
    env = MetaWorld(task)
    env.reset(seed=0)
    model, data = env._sim.model, env._sim.data
    level = 0
    for index in range(model.ncam):
        position, rotation = data.cam_xpos[index], data.cam_xmat[index]
        back, up = rotation.reshape(3, 3)[:, 2], rotation.reshape(3, 3)[:, 1]
        centre, lift = position - back, np.array([0, 0, 0.2])
        right = np.cross(-back, np.sign(up[2]) * up) * 0.2
        if abs(up[2]) < FROM_ABOVE:
            level += 1
            assert abs(back[2]) > 0.99, "straight down"
            assert rotation[7] >= 0, "the same way round in every task"
            continue
        higher, lower = (seen_at(centre + step, position, rotation)[0] for step in (lift, -lift))
        assert higher < lower, model.camera(index).name
        to_the_right, to_the_left = (seen_at(centre + step, position, rotation)[1] for step in (right, -right))
        assert to_the_right > to_the_left, "turned, not mirrored"
    assert model.ncam - level >= 5


def test_a_camera_that_no_task_has_is_refused():
    with pytest.raises(InputError, match=r"wanted one of .*corner2"):
        MetaWorld("reach", cameras=("korner",))
