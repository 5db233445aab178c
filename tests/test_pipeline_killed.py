"""The one-second task as processes of their own: killed, without space, and swept, they end as one undisturbed run does."""

import os
import signal
import subprocess
import sys
import time

import pytest
from story import TINY, timeless

from robopref.run import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipeline") / "run"
    main("run", [*TINY, f"out={run}"])
    return run


def test_a_sweep_makes_a_folder_per_combination(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, "stages=[collect]", "seed=1,2", "out=four", "--multirun"]
    assert subprocess.run([sys.executable, "-m", "robopref.cli", "run", *words], check=False).returncode == 0
    assert sorted(p.name for p in (tmp_path / "four").iterdir() if p.is_dir()) == ["seed=1", "seed=2"]


@pytest.mark.parametrize(
    "piece", ["demonstrations", "base", "rounds/labels", "arms/aligned/round-0/align", "evaluation"]
)
def test_a_killed_run_continues_to_the_same_result(finished, tmp_path, piece):
    run = tmp_path / "killed"
    two = ["workers=2" if t == "workers=1" else t for t in TINY]
    command = [sys.executable, "-m", "robopref.cli", "run", *two, f"out={run}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (run / piece).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)  # the parent alone: its workers must notice
    process.wait()
    time.sleep(1)
    assert (run / piece).exists() and not (run / "report.html").exists(), "it must die under way, not before or after"
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert timeless(run) == timeless(finished)
