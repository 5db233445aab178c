"""What a set of processes holds in memory now, each with its children."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path


class Memory:
    """`look()` once a minute; sizes are resident megabytes, name -> one number a look."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        """processes: name -> process id; this one is added as `agent`."""
        self._ids = {"agent": os.getpid(), **processes}
        self.sizes: dict[str, list[float]] = {name: [] for name in self._ids}
        self.when: list[float] = []

    def look(self) -> None:
        """Note what is held now."""
        children = _children()
        kept = set(self._ids.values())
        self.when.append(time.monotonic())
        for name, process in self._ids.items():
            family, waiting = {process}, [process]
            while waiting:
                young = [
                    c for c in children.get(waiting.pop(), []) if c not in kept
                ]  # they are counted under their own names
                family |= set(young)
                waiting += young
            self.sizes[name].append(round(sum(_resident(one) for one in family), 2))

    @property
    def growth(self) -> float:
        """Megabytes by which all that grew has grown, from the first look to the largest later one; what shrank hides nothing."""
        return sum(max(0.0, max(sizes[1:], default=sizes[0]) - sizes[0]) for sizes in self.sizes.values() if sizes)


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        found.setdefault(parent, []).append(int(status.parent.name))
    return found


def _resident(process: int) -> float:
    """Resident megabytes of one process; 0 of one that ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
