"""Start states that were reached once: the hand's way to its place is most of what a reset costs."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np

ROOM = 4096
"""Start states kept, of a few kilobytes each; the one that was asked for longest ago goes first."""


class Starts:
    """(task, seed) -> state vector (S,), for the threads of one process."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, task: str, seed: int) -> np.ndarray | None:
        """The start state, or None where it was not reached yet (or not lately)."""
        with self._lock:
            state = self._kept.get((task, seed))
            if state is not None:
                self._kept.move_to_end((task, seed))
            return state

    def put(self, task: str, seed: int, state: np.ndarray) -> None:
        """Keep a start state, at the expense of the one that was asked for longest ago."""
        with self._lock:
            self._kept[task, seed] = state
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
