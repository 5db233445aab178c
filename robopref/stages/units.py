"""Resumable pieces of work: a folder that exists only when its work is done, so a killed run continues where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from robopref.data.files import atomic_folder, read_json, write_json

DONE = "done.json"


def unit(folder: Path, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Do `make(partial folder)` once; its result (with the seconds it took) is kept in `done.json` and returned ever after."""
    if (folder / DONE).exists():
        return read_json(folder / DONE)
    begin = time.perf_counter()
    with atomic_folder(folder) as partial:
        result = make(partial)
        result = {**result, "seconds": round(time.perf_counter() - begin, 3)}
        write_json(partial / DONE, result)
    return result


def write_log(path: Path, logs: Iterable[dict[str, Any]]) -> None:
    """Write rows of a log as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in logs), encoding="utf-8")


def thin(logs: Iterable[dict[str, float]], every: int, **labels: Any) -> list[dict[str, Any]]:
    """Means over each `every` steps of a learner's logs, labelled: what a curve needs, and no more."""
    rows: list[dict[str, Any]] = []
    block: list[dict[str, float]] = []
    for step, row in enumerate(logs, start=1):
        block.append(row)
        if step % every == 0:
            mean = {k: sum(b[k] for b in block) / len(block) for k in row}
            rows.append({**labels, "step": step, **{k: round(v, 6) for k, v in mean.items()}})
            block = []
    return rows
