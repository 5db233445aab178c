"""A latched stop outlives the arm node's process: a file that is there while the stop is latched."""

from __future__ import annotations

import os
from pathlib import Path


class Latch:
    """`held` at the start is what the last process left; `keep(latched)` writes what is so now. None: nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path, self.failure = path, ""
        self.held = path is not None and path.exists()

    def keep(self, latched: bool) -> None:
        """Write a change down; a disk that refuses is told in `failure`, and the stop stands all the same."""
        if latched is self.held or self._path is None:
            return
        try:
            if latched:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("w") as file:
                    file.write("the arm was stopped: an operator clears this with `reset`\n")
                    file.flush()
                    os.fsync(file.fileno())
            else:
                self._path.unlink(missing_ok=True)
            self.held, self.failure = latched, ""
        except OSError as error:
            self.failure = f"{self._path}: {error.strerror}"


def place(address: str) -> Path:
    """Where the stop of the arm at an address is kept: XDG_STATE_HOME/robopref, or ~/.local/state/robopref."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "robopref" / f"{''.join(c if c.isalnum() or c in '.-' else '_' for c in address)}.estop"
