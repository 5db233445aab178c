"""Peers that cannot share our dependencies live in an environment of their own: made once, asked through a child process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HOME = "ROBOPREF_PEERS"
"""Environment variable: the folder the peers' environments are kept in (default: the user's cache)."""


def ask(
    name: str, packages: list[str], script: str, settings: dict[str, Any], version: str | None = None,
    constraints: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run `script` (it reads JSON settings from its first argument, prints JSON as its last line) where `packages` are installed.

    version: a Python of its own, such as "3.12". Raises `RuntimeError` with the child's words when installing or running fails.
    """
    python = _environment(name, packages, version, constraints)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", script, json.dumps(settings)]
    child = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"peer {name}: {child.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(child.stdout.strip().splitlines()[-1])
    return found


def _environment(name: str, packages: list[str], version: str | None, constraints: Path | None) -> Path:
    """The interpreter of the peer's environment, which is made on the first call."""
    cache = Path(os.environ.get(HOME) or Path.home() / ".cache" / "robopref" / "peers")
    tag = (version or f"{sys.version_info.major}.{sys.version_info.minor}").replace(".", "")
    folder = cache / f"{name}-py{tag}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing {', '.join(packages)} into {folder} (once) ...", file=sys.stderr, flush=True)
        held = ["-c", str(constraints)] if constraints is not None and constraints.exists() else []
        for command in (
            [_interpreter(version), "-m", "venv", "--clear", str(folder)],
            [str(python), "-m", "pip", "install", "-q", *held, *packages],
        ):
            made = subprocess.run(command, capture_output=True, text=True, check=False)
            if made.returncode:
                raise RuntimeError(f"peer {name}: could not install {packages}: {made.stderr.strip()[-800:]}")
        ready.write_text("\n".join(packages) + "\n", encoding="utf-8")
    return python


def _interpreter(version: str | None) -> str:
    """A Python of that version that runs (version managers leave stubs behind); this one for None."""
    if version is None:
        return sys.executable
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")),
    ]
    for candidate in filter(None, candidates):
        if subprocess.run([str(candidate), "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return str(candidate)
    raise RuntimeError(f"got no Python {version}, wanted one for a peer that needs it. Install it beside this one.")
