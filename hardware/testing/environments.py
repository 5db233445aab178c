"""Build the two environments of real peers: ROS 2 (jazzy wheels) with rosbridge-server-rs, and the Franka protocol simulator.

Run: python -m robopref.hardware.testing.environments [FOLDER]

They re-exec the interpreter or pin an old numpy, so they live beside robopref's own environment, are built once per list of
versions (`ros.txt`, `franka.txt`), and are used through child processes only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from robopref import arrays
from robopref.arrays import InputError

from . import model

HERE = Path(__file__).parent
PYTHONS = ("python3.11", "python3.12", "python3.10")
"""Interpreters for which every wheel exists."""


@dataclass(frozen=True)
class Environments:
    """Where the two environments are, or would be."""

    ros: Path
    franka: Path
    shim: Path

    @property
    def ready(self) -> bool:
        """Whether both were built completely."""
        return all((folder / "ready").exists() for folder in (self.ros, self.franka))

    @property
    def fr3_model(self) -> Path:
        """Our model of the arm for the simulator."""
        return self.shim / "fr3.xml"


def locate(root: Path | None = None) -> Environments:
    """The environments below `root` (default: ROBOPREF_ENVIRONMENTS, else the user's cache), built or not."""
    if root is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        root = Path(os.environ.get("ROBOPREF_ENVIRONMENTS") or cache / "robopref")
    return Environments(root / _name("ros"), root / _name("franka"), root / "shim")


def build(root: Path | None = None, say: object = print) -> Environments:
    """Build what is missing and return the environments. Raises `InputError` if the machine cannot."""
    found = locate(root)
    for kind, folder in (("ros", found.ros), ("franka", found.franka)):
        if not (folder / "ready").exists():
            if callable(say):
                say(f"building the {kind} environment in {folder} (once, some minutes)")
            _venv(kind, folder)
    _shim(found.shim)
    return found


def _name(kind: str) -> str:
    return f"{kind}-{hashlib.sha256((HERE / f'{kind}.txt').read_bytes()).hexdigest()[:12]}"


def _python() -> str:
    """An interpreter that all wheels support and that can run here."""
    for name in (sys.executable, *PYTHONS):
        path = shutil.which(name)
        if path is None:
            continue
        asked = [
            path,
            "-c",
            "import sys, venv; print(sys._base_executable, sys.version_info[:2] in ((3, 11), (3, 12)))",
        ]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
        if answer[1:] == ["True"]:
            return answer[0]
    raise InputError("hardware: got no Python 3.11 or 3.12 with venv, wanted one for the ROS and simulator wheels.")


def _venv(kind: str, folder: Path) -> None:
    python = _python()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [python, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-r", str(HERE / f"{kind}.txt")],
    ):
        environment = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "PYTHONPATH")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode != 0:
            raise InputError(f"hardware: `{' '.join(command[:3])} ...` failed\n{done.stderr.strip()[-800:]}")
    if kind == "ros":
        bridge_binary(folder).chmod(0o755)  # the wheel loses the bit
    (folder / "ready").touch()


def bridge_binary(ros: Path) -> Path:
    """The bridge's program inside the ROS environment."""
    return next(ros.glob("lib/python3.*/site-packages/rosbridge_server_rs")) / "rosbridge_server_rs_jazzy"


def _shim(shim: Path) -> None:
    """A folder for PYTHONPATH that shows only the robot-side half of robopref, and the simulator's model."""
    package = shim / "robopref"
    package.mkdir(parents=True, exist_ok=True)
    source = Path(arrays.__file__).parent
    links = {package / name: source / name for name in ("__init__.py", "arrays.py")} | {
        package / "hardware": HERE.parent
    }
    for link, target in links.items():
        if link.is_symlink() and link.resolve() == target.resolve():
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(target)
    model.write(shim / "fr3.xml")


if __name__ == "__main__":
    built = build(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    print(f"{built.ros}\n{built.franka}")
