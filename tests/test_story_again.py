"""The story in Meta-World told twice is the same, and told on after `kill -9` it ends the same."""

import os
import signal
import subprocess
import sys
import time

import pytest
from story import TINY_STORY, timeless

pytestmark = pytest.mark.slow


def command(out):
    return [sys.executable, "-m", "robopref.cli", "run", *TINY_STORY, f"out={out}"]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A run of the story that nothing interrupted."""
    run = tmp_path_factory.mktemp("story") / "run"
    subprocess.run(command(run), check=True, stdout=subprocess.DEVNULL)
    return run


def test_the_same_command_gives_the_same_metrics(told, tmp_path):
    subprocess.run(command(tmp_path / "again"), check=True, stdout=subprocess.DEVNULL)
    assert timeless(tmp_path / "again") == timeless(told)


@pytest.mark.parametrize(
    "piece",
    ["demonstrations", pytest.param("strips", marks=pytest.mark.gl), pytest.param("videos", marks=pytest.mark.gl)],
)
def test_killed_within_a_piece_it_goes_on_to_the_same_result(told, tmp_path, piece):
    run = tmp_path / "killed"
    process = subprocess.Popen(command(run), stdout=subprocess.DEVNULL, start_new_session=True)

    def begun():
        """The hidden folder that becomes the piece when it is complete."""
        return [path for path in run.glob(f".*{piece}*") if path.is_dir()]

    deadline = time.monotonic() + 900
    while not begun() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert begun() and not (run / piece).exists(), "it must die within that piece"
    subprocess.run(command(run), check=True, stdout=subprocess.DEVNULL)
    assert timeless(run) == timeless(told)
    assert not begun(), "what the killed one left is swept away"
    made = sorted(path.name for path in (told / piece).iterdir())
    assert sorted(path.name for path in (run / piece).iterdir()) == made
