"""The one-second task as processes of their own: killed, without space, and swept, they end as one undisturbed run does."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from story import TINY, timeless

from robopref.run import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = tmp_path_factory.mktemp("pipeline") / "run"
    main("run", [*TINY, f"out={run}"])
    return run


def test_a_sweep_runs_every_combination_and_compare_reads_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli = [sys.executable, "-m", "robopref.cli"]
    words = [w for w in TINY if not w.startswith("experiment=")]
    swept = ["experiment=quickstart,align_metaworld", "seed=1,2"]
    command = [*cli, "run", *words, "baselines=[filtered]", *swept, "out=four", "--multirun"]
    assert subprocess.run(command, check=False).returncode == 0
    made = sorted(path.name for path in Path("four").iterdir() if path.is_dir())
    assert made == [f"experiment={name}_seed={seed}" for name in ("align_metaworld", "quickstart") for seed in (1, 2)]
    done = [json.loads(Path("four", name, "metrics.json").read_text()) for name in made]
    assert all(Path("four", name, "report.html").exists() for name in made)
    assert [f"experiment={one['experiment']}_seed={one['seed']}" for one in done] == made
    compared = subprocess.run([*cli, "compare", "four", "out=compared"], capture_output=True, text=True, check=False)
    assert compared.returncode == 0, compared.stderr
    assert "aligned" in compared.stdout and "point-mass" in compared.stdout
    result = json.loads(Path("compared", "compare.json").read_text())
    assert len(result["runs"]) == 4


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


def largest(folder):
    """Bytes of the largest file below a folder."""
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


QUOTA = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def test_a_full_disk_ends_a_run_in_words_and_with_space_it_goes_on_to_the_same_result(finished, tmp_path):
    kept, ended = (largest(finished / part) for part in ("demonstrations", "rounds/rollouts"))
    assert kept > largest(finished / "base") and kept < ended, (
        "so that a limit between them ends the run in its first round"
    )
    run = tmp_path / "full"
    code = f"{QUOTA.format((kept + ended) // 2)}\nimport sys\nfrom robopref.cli import main\nmain(sys.argv[1:])"
    words = [sys.executable, "-c", code, "run", *TINY, f"out={run}"]
    full = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = full.stderr.strip().splitlines()
    assert full.returncode == 2 and len(lines) <= 5, full.stderr
    assert "disk full" in lines[0] and "free" in lines[0].lower()
    assert (run / "base" / "base.json").exists() and not (run / "rounds" / "rollouts").exists(), "it must end under way"
    main("run", [*TINY, f"out={run}"])
    assert timeless(run) == timeless(finished)
