"""A run folder for an experiment of its own stages: claimed by one configuration, parts of it made anew on request."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.stages.pipeline import _claim


def prepare(config: dict[str, Any], out: Path, folders: Mapping[str, Sequence[str]]) -> None:
    """Check the wanted stages, make the folder this run's own, and remove what the stages that are done again have written.

    folders: stage -> what it writes. Raises `InputError` for an unknown stage or a folder of another run.
    """
    for name in config["stages"]:
        if name not in folders:
            raise InputError(f"stages: got {name!r}, wanted some of {', '.join(folders)}.")
    fresh = not (out / "config.yaml").exists()
    _claim(config, out)
    if fresh or set(config["stages"]) == set(folders):
        return
    for name in config["stages"]:
        for entry in folders[name]:
            path = out / entry
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()
