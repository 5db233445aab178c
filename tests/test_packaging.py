"""The wheel: it holds everything that the command needs, and runs from an empty folder without the source tree."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
PARTS = ("pyproject.toml", "README.md", "robopref", "envs", "conf", "hardware", "benchmarks")
pytestmark = pytest.mark.separate


def run(*words, **options):
    """Output of a command; a failure shows what it printed."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, env=clean, **options)
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the tree, built as `pip install .` builds it."""
    place = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        source = TOP / part
        if source.is_dir():
            shutil.copytree(source, place / "tree" / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            (place / "tree").mkdir(exist_ok=True)
            shutil.copy(source, place / "tree" / part)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", place / "dist", place / "tree")
    return next((place / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Scripts folder of a fresh venv that holds the wheel; what the wheel depends on is lent by this one."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # A path line lends packages but not their .pth files, so an editable robopref in the lending venv stays out.
    (own / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import robopref; print(robopref.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(folder)
    return folder / "bin"


def test_the_wheel_holds_presets_and_the_template_and_no_stranger(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for source in [*(TOP / "conf").rglob("*.yaml"), *(TOP / "robopref").rglob("*.j2"), TOP / "robopref" / "py.typed"]:
        home = source.relative_to(TOP)
        wanted = str(home) if home.parts[0] == "robopref" else f"robopref/{home}"
        assert wanted in names
    roots = {name.partition("/")[0] for name in names}
    assert {root.split("-")[0] for root in roots} == {"robopref"}


def test_the_command_answers_from_an_empty_folder(installed, tmp_path):
    assert "quickstart" in run(installed / "robopref", "--help", cwd=tmp_path)
    assert "align_metaworld" in run(installed / "robopref", "run", "--help", cwd=tmp_path)
    assert run(installed / "robopref", "bench", cwd=tmp_path) is not None
    assert list(tmp_path.iterdir()) == []


def test_every_package_of_the_wheel_can_be_imported(installed, wheel, tmp_path):
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")]
    modules = sorted(name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in names)
    code = f"from importlib import import_module\nfor name in {modules}: import_module(name)"
    run(installed / "python", "-c", code, cwd=tmp_path)


@pytest.mark.slow
def test_the_wheel_alone_runs_the_quickstart_and_the_readmes_python_from_an_empty_folder(installed, tmp_path):
    run(installed / "robopref", "quickstart", "out=runs/quickstart", cwd=tmp_path, timeout=1800)
    story = tmp_path / "runs" / "quickstart"
    assert (story / "report.html").stat().st_size > 100_000
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    metrics = json.loads((story / "metrics.json").read_text())
    assert 0 < metrics["labels_asked"] <= 60
    assert set(metrics["policies"]) == {"base", "cloned", "filtered", "plain_dpo", "aligned_no_pairs", "aligned"}
    assert {one["episodes"] for one in metrics["policies"].values()} == {100}
    (gain,) = [one for one in metrics["tests"] if (one["a"], one["b"]) == ("aligned", "base")]
    assert gain["difference"] >= 0.25 and gain["p_value"] < 0.01 and gain["ci95"][0] > 0
    low, high, stored = run(installed / "python", "-c", python_of_the_readme(), cwd=tmp_path).split()
    assert float(low.strip("(,")) <= metrics["policies"]["aligned"]["success_rate"] <= float(high.strip("),"))
    assert int(stored) == 48 * 4, "resets of a round times replicas"


def python_of_the_readme():
    """The one Python block of the README, as it stands there."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (TOP / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return block


def test_too_small_a_disk_is_told_before_anything_is_installed(tmp_path):
    shutil.copy(TOP / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    words = ["make", "-C", str(tmp_path), "install", "ROOM=1000000000"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not (tmp_path / ".venv").exists()
    assert "wanted 1000000000 for .venv: free some" in done.stderr and len(done.stderr.splitlines()) <= 5
