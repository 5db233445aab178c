"""Where a model comes from: what its provenance.json says, whichever stage made it."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import robopref
from robopref.arrays import Trajectory
from robopref.checkpoint import fingerprint
from robopref.data.content import trajectory_hash


def provenance(
    config: dict[str, Any], trajectories: Iterable[Trajectory], reference: Path | None = None, **facts: Any
) -> dict[str, Any]:
    """Version and git hash of robopref, seed, fingerprint of the data, command, fingerprint of the policy it started from, facts."""
    return {
        "version": robopref.__version__,
        "git": git_hash(),
        "seed": config["seed"],
        "data": data_fingerprint(trajectories),
        "command": config.get("command", ""),
        "reference": None if reference is None else fingerprint(reference),
        **facts,
    }


def data_fingerprint(trajectories: Iterable[Trajectory]) -> str:
    """Short hash of the contents of trajectories, in their order."""
    digest = hashlib.sha256()
    for one in trajectories:
        digest.update(trajectory_hash(one).encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=1)
def git_hash() -> str | None:
    """Commit of the source tree that runs; None for an installed package."""
    top = Path(robopref.__file__).parents[1]
    if not (top / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(top), "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
