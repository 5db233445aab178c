"""Meta-World's pictures: upright, repeatable, without shadows. Goldens are 32 x 32 means; drivers differ a little."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from robopref.envs.metaworld import MetaWorld

pytestmark = pytest.mark.gl
GOLDEN = Path(__file__).parent / "golden" / "metaworld.npz"
CAMERAS = ("topview", "corner", "corner2", "corner3", "corner4", "behindGripper", "gripperPOV")
TASKS = ("button-press-topdown", "door-open", "sweep-into", "plate-slide", "bin-picking", "hammer")
PICTURES = [("drawer-open", camera) for camera in CAMERAS] + [(task, "corner2") for task in TASKS]
TOLERANCE = 4.0
"""Mean difference of 8-bit colours; a turned or mirrored picture differs by more than twice that."""


def small(picture):
    return picture.reshape(32, 7, 32, 7, 3).mean(axis=(1, 3))


def started(task):
    env = MetaWorld(task, image_size=224)
    env.reset(seed=0)
    return env


def write_goldens():
    """Look at the pictures before committing what this writes."""
    found = {}
    for task, camera in PICTURES:
        env = started(task)
        found[f"{task}:{camera}"] = np.round(small(env.render(camera))).astype(np.uint8)
        env.close()
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **found)


@pytest.mark.parametrize(("task", "camera"), PICTURES)
def test_pictures_look_like_their_goldens_and_stand_upright(task, camera):
    env = started(task)
    picture = env.render(camera)
    env.close()
    assert picture.shape == (224, 224, 3) and picture.dtype == np.uint8 and picture.flags.c_contiguous
    with np.load(GOLDEN) as goldens:
        golden = goldens[f"{task}:{camera}"].astype(np.float64)
    assert np.abs(small(picture) - golden).mean() < TOLERANCE
    for turned in (picture[::-1], picture[:, ::-1], picture[::-1, ::-1]):
        if camera != "gripperPOV":  # the gripper's own view is nearly symmetric
            assert np.abs(small(turned) - golden).mean() > 2 * TOLERANCE


def test_a_picture_repeats_and_survives_other_models_in_the_process():
    env = started("drawer-open")
    first = env.render("corner2")
    np.testing.assert_array_equal(env.render("corner2"), first)
    others = [started(task) for task in TASKS[:3]]
    for other in others:
        other.render("corner2")
    np.testing.assert_array_equal(env.render("corner2"), first)
    again = started("drawer-open")
    np.testing.assert_array_equal(again.render("corner2"), first)
    for other in (*others, again, env):
        other.close()


def test_a_picture_does_not_disturb_the_episode():
    seen, unseen = MetaWorld("door-open", cameras=("corner2", "topview"), image_size=84), MetaWorld("door-open")
    _, info = seen.reset(seed=0)
    unseen.reset(seed=0)
    assert {name: image.shape for name, image in info["images"].items()} == {
        "corner2": (84, 84, 3),
        "topview": (84, 84, 3),
    }
    for _ in range(10):
        action = seen.action_space.sample()
        one, other = seen.step(action), unseen.step(action)
        np.testing.assert_array_equal(one[0], other[0])
        assert "images" in one[4] and "images" not in other[4]
    np.testing.assert_array_equal(seen.get_state(), unseen.get_state())
    assert seen.render().shape == (84, 84, 3)
    seen.close()


def test_a_restored_state_gives_the_same_picture():
    first, second = started("sweep-into"), started("sweep-into")
    second.reset(seed=9)
    for _ in range(10):
        first.step(np.array([0.5, 1.0, -1.0, 0.0]))
    second.set_state(first.get_state())
    np.testing.assert_array_equal(first.render("corner"), second.render("corner"))
    first.close(), second.close()


def test_render_settings_name_what_decides_the_pixels_and_close_can_be_repeated():
    env = started("reach")
    assert {"height", "width", "shadows", "reflections", "multisampling", "mujoco"} <= env.render_settings.keys()
    env.render()
    env.close()
    env.close()
    assert env.render().any()
    env.close()


@pytest.mark.slow
def test_what_is_imported_after_a_picture_does_not_end_the_process():
    """Mesa's LLVM before triton's was a segmentation fault: a report filmed in a process that had drawn strips died."""
    program = (
        "from robopref.envs.metaworld import MetaWorld\n"
        "env = MetaWorld('drawer-open'); env.reset(seed=0); env.render(); env.close()\n"
        "from robopref.policies.diffusion import Diffusion; from robopref.types import Dims\n"
        "Diffusion(Dims(39, 4)); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.strip() == "alive", done.stderr[-800:]


@pytest.mark.gl
def test_a_process_that_ends_with_open_pictures_says_nothing():
    """A finalizer made before the GL library is loaded would run all finalizers after it is gone."""
    program = """
import weakref
kept = type("Kept", (), {})()
weakref.finalize(kept, int)
from robopref.envs.metaworld import MetaWorld
environments = [MetaWorld(task, image_size=16) for task in ("reach", "drawer-open")]
for one in environments:
    one.reset(seed=1)
    one.render()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


if __name__ == "__main__":
    write_goldens()
