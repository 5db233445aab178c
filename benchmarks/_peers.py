"""Peers that cannot share our dependencies live in an environment of their own: made once, asked through a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HOME = "ROBOPREF_PEERS"
"""Environment variable: the folder the peers' environments are kept in (default: the user's cache)."""


def ask(name: str, packages: list[str], script: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run `script` (it reads JSON settings from its first argument, prints JSON as its last line) where `packages` are installed.

    Raises `RuntimeError` with the child's words when installing or running fails.
    """
    python = _environment(name, packages)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"OMP_NUM_THREADS": "1"}
    command = [str(python), "-c", script, json.dumps(settings)]
    child = subprocess.run(command, env=clean, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"peer {name}: {child.stderr.strip()[-800:]}")
    found: dict[str, Any] = json.loads(child.stdout.strip().splitlines()[-1])
    return found


def _environment(name: str, packages: list[str]) -> Path:
    """The interpreter of the peer's environment, which is made on the first call."""
    cache = Path(os.environ.get(HOME) or Path.home() / ".cache" / "robopref" / "peers")
    folder = cache / f"{name}-py{sys.version_info.major}{sys.version_info.minor}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if not ready.exists():
        print(f"installing {', '.join(packages)} into {folder} (once) ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True, clear=True)
        made = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *packages], capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"peer {name}: pip could not install {packages}: {made.stderr.strip()[-800:]}")
        ready.write_text("\n".join(packages) + "\n", encoding="utf-8")
    return python
