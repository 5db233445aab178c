"""A run folder for an experiment of its own stages: claimed by one configuration, parts of it made anew on request."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.data.files import locked, write_text

PRIVATE = ("stages", "out", "workers", "command")
"""Keys that may differ between two calls on one run folder."""
LATER = {
    "record_sim_state": False, "record_log_prob": False, "learner": "align", "rank_by": "reward", "pairing": "best_worst",
    "condition": {"drop": 0.2, "guidance": 1.5}, "best_of": {"candidates": 1, "actor": "reference", "probes": 10, "lowest": 1.0},
    "list_budget": 0, "objectives": {"weights": [1.0], "others": []}, "lora": {"rank": 0, "alpha": 32.0, "targets": [], "root": ""}, "arm": None,
    "recompute": False,
}  # fmt: skip
"""Keys that runs begun before them do not hold, and what they meant there."""


def in_order(
    config: dict[str, Any], out: Path, folders: Mapping[str, Sequence[str]], steps: Mapping[str, Callable[[], None]]
) -> None:
    """Run the wanted stages in the order of `steps`, in a folder that is this process's own, and say how long each took.

    folders: see `prepare`. Raises `InputError` for what `prepare` refuses and for a folder in which another process is at work.
    """
    with locked(out):
        prepare(config, out, folders)
        for name, step in steps.items():
            if name in config["stages"]:
                begin = time.perf_counter()
                step()
                print(f"{name} done in {time.perf_counter() - begin:.0f} s", flush=True)


def prepare(config: dict[str, Any], out: Path, folders: Mapping[str, Sequence[str]]) -> None:
    """Check the wanted stages, make the folder this run's own, and remove what the stages that are done again have written.

    folders: stage -> what it writes. Raises `InputError` for an unknown stage or a folder of another run.
    """
    for name in config["stages"]:
        if name not in folders:
            raise InputError(f"stages: got {name!r}, wanted some of {', '.join(folders)}.")
    fresh = not (out / "config.yaml").exists()
    claim(config, out)
    if fresh or set(config["stages"]) == set(folders):
        return
    for name in config["stages"]:
        for entry in folders[name]:
            path = out / entry
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


def claim(config: dict[str, Any], out: Path) -> None:
    """Make the folder this run's own; refuse one that holds another configuration."""
    import yaml

    kept = {k: v for k, v in config.items() if k not in PRIVATE}
    path = out / "config.yaml"
    if path.exists():
        held = {**LATER, **yaml.safe_load(path.read_text(encoding="utf-8"))}
        held = {k: v for k, v in held.items() if k not in PRIVATE}
        if held != kept:
            differing = ", ".join(sorted(k for k in held.keys() | kept.keys() if held.get(k) != kept.get(k)))
            raise InputError(
                f"out={out}: got a folder of another run (differs in {differing}), wanted a new one or the same settings."
            )
    elif out.exists() and any(not p.name.startswith(".") for p in out.iterdir()):
        raise InputError(f"out={out}: got a folder that is not empty and holds no run, wanted a new or empty one.")
    else:
        write_text(path, yaml.safe_dump(config, sort_keys=False))
