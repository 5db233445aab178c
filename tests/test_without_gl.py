"""Where nothing can be drawn: states are simulated all the same, a picture is refused in words, and a whole run does without."""

import json
import os
import subprocess
import sys

import pytest
from story import TINY_STORY

STATES_ONLY = """
import sys
import numpy as np
from robopref.arrays import InputError
from robopref.envs.metaworld import MetaWorld
env = MetaWorld("drawer-open")
observation, _ = env.reset(seed=0)
for _ in range(5):
    observation = env.step(env.expert(observation))[0]
env.set_state(env.get_state())
assert env._pictures is None
loaded = [m for m in sys.modules if m.split(".")[0] == "OpenGL" or m in ("mujoco.egl", "mujoco.osmesa", "mujoco.glfw")]
print("loaded", loaded)
try:
    env.render()
except InputError as error:
    print("refused", str(error).count(chr(10)) < 5, error)
"""


def states_only(backend, before=""):
    environment = {**os.environ, "MUJOCO_GL": backend}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", before + STATES_ONLY], env=environment, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_states_run_without_gl_and_a_picture_is_refused_in_words():
    said = states_only("disable")
    assert "loaded []" in said
    assert "refused True" in said and "MUJOCO_GL" in said


NO_LIBRARY = """
import ctypes
def load(self, name=None, *rest, load=ctypes.CDLL.__init__, **more):
    if any(part in str(name) for part in ("EGL", "OSMesa", "libGL")):
        raise OSError(f"{name}: cannot open shared object file")
    load(self, name, *rest, **more)
ctypes.CDLL.__init__ = load
"""
"""A machine without any GL library, as whoever loads one finds it."""


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_states_run_where_the_named_gl_library_is_missing(backend):
    said = states_only(backend, NO_LIBRARY)
    assert f"refused True MetaWorld.render: got no GL context from {backend}" in said and "libegl1" in said


@pytest.mark.slow
def test_the_whole_story_is_told_without_pictures(tmp_path):
    command = [sys.executable, "-m", "robopref.cli", "run", *TINY_STORY, "out=story"]
    environment = os.environ | {"MUJOCO_GL": "disable"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    story = tmp_path / "story"
    for part, count in (("strips", "strips"), ("videos", "films")):
        found = json.loads((story / part / "done.json").read_text())
        assert found[count] == 0 and "MUJOCO_GL" in found["why"]
        assert [path.name for path in (story / part).iterdir()] == ["done.json"]
    page = (story / "report.html").read_text()
    assert "aligned" in page and "<video" not in page and "data:image/png" not in page
    assert len(json.loads((story / "metrics.json").read_text())["policies"]) == 6
