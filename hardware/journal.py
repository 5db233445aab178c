"""A journal of every call to a guard, one JSON line each; replaying it gives the same bytes, or shows where they differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from .command import Command
from .guard import Guard, Output
from .reasons import Reason

CALLS = frozenset(
    {
        "link", "robot_mode", "backend_ended", "arm", "disarm", "deadman", "estop", "reset", "recover", "recovered",
        "receive", "tick", "follow", "hand",
    }
)  # fmt: skip


class Journal:
    """Passes calls on to a guard and writes them down; with `path=None` it only passes them on."""

    def __init__(self, guard: Guard, path: Path | None) -> None:
        self.guard = guard
        # Line buffered: what was written survives a crash, at most the last line is torn.
        self._file = None if path is None else path.open("w", encoding="utf-8", buffering=1)

    def call(self, name: str, *arguments: Any) -> Any:
        """`guard.name(*arguments)`, written down together with its result."""
        result = getattr(self.guard, name)(*arguments)
        if self._file is not None:
            self._file.write(json.dumps([name, [_plain(a) for a in arguments], _plain(result)]) + "\n")
        return result

    def close(self) -> None:
        """Complete the file."""
        if self._file is not None:
            self._file.close()


def replay(path: Path, guard: Guard) -> tuple[int, str]:
    """Give a fresh guard the calls of a journal: (calls that agreed, what differed first or an empty string)."""
    agreed = 0
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            name, arguments, wanted = json.loads(line)
        except ValueError:
            break  # the torn end of a killed process
        if name not in CALLS:
            return agreed, f"line {agreed + 1}: unknown call {name!r}"
        got = _plain(getattr(guard, name)(*_arguments(name, arguments)))
        if got != wanted:
            return agreed, f"line {agreed + 1}: {name} gave {got}, the journal has {wanted}"
        agreed += 1
    return agreed, ""


def _plain(value: Any) -> Any:
    """JSON of a value; floats keep every bit, NaN included."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Output):
        return [value.motion.q.tolist(), value.motion.v.tolist(), value.gripper, str(value.state), int(value.reason)]
    if isinstance(value, Command):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return int(value) if isinstance(value, Reason) else value


def _arguments(name: str, arguments: list[Any]) -> list[Any]:
    if name == "receive":
        told = dict(arguments[0])
        told["target"], told["fault"] = np.array(told["target"], dtype=np.float64), Reason(told["fault"])
        return [Command(**told), *arguments[1:]]
    if name in ("arm", "follow"):
        at = 1 if name == "arm" else 0
        return [np.array(a) if i == at else a for i, a in enumerate(arguments)]
    return arguments
