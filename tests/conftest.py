"""Every test computes on one thread: results repeat, and tests that run side by side do not fight for cores.

Tests that draw say so when they cannot: skipped with the reason, or failed where ROBOPREF_REQUIRE_GL promises a backend.
"""

import os
import subprocess
import sys
from functools import cache

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)

DRAW = "import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); context.free()"


@cache
def drawing_fails():
    """Why no OpenGL context can be made, or an empty string; asked in a child process, since a driver may crash."""
    why = ""
    for backend in (os.environ.get("MUJOCO_GL", "egl"), "osmesa"):
        environment = os.environ | {"MUJOCO_GL": backend}
        asked = [sys.executable, "-c", DRAW]
        child = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False)
        if child.returncode == 0:
            return ""
        why = why or (child.stderr.strip().splitlines() or [f"{backend} ended with {child.returncode}"])[-1]
    return why


def pytest_runtest_setup(item):
    if item.get_closest_marker("gl") and (why := drawing_fails()):
        say = pytest.fail if os.environ.get("ROBOPREF_REQUIRE_GL") else pytest.skip
        say(f"needs OpenGL (Debian: libegl1 libgl1-mesa-dri): {why}")
