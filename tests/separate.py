"""Environments of their own for tests of packages that do not fit beside robopref. Kept in pytest's cache."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def find_python312():
    """A Python 3.12, or a skip where there is none."""
    candidates = [shutil.which("python3.12"), *sorted(Path.home().glob(".pyenv/versions/3.12.*/bin/python3.12"))]
    for candidate in filter(None, candidates):
        if subprocess.run([str(candidate), "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    return pytest.skip("this machine has no Python 3.12")


def environment(cache, python, name, constraints, packages, beside=False):
    """The interpreter of a venv with `packages`, built once for each content of the constraints file.

    beside: it also finds what is installed where this test runs (the same Python then), so that only what is missing is added.
    """
    shared = [path for path in sys.path if Path(path).name == "site-packages"] if beside else []
    told = "\n".join([(TOP / constraints).read_text(), *packages, *shared])
    folder = Path(cache.mkdir(f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}"))
    inside, ready = folder / "bin/python", folder / "ready"
    if not ready.exists():
        run([python, "-m", "venv", "--clear", str(folder)])
        if beside:
            (own,) = folder.glob("lib/python*/site-packages")
            (own / "beside.pth").write_text("\n".join(shared))
        run([str(inside), "-m", "pip", "install", "--quiet", "-c", str(TOP / constraints), *packages])
        ready.touch()
    return str(inside)


def lerobot(cache, python):
    """The interpreter of an environment with lerobot, its datasets and policies, for all tests that need it."""
    packages = ["lerobot[dataset,diffusion,smolvla,pi]>=0.6,<0.7", "peft>=0.18"]
    return environment(cache, python, "lerobot", "constraints-lerobot.txt", packages)


def run(command, **options):
    """Output of a command; a failure shows what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
