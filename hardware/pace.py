"""How many candidates there is time for: the policy server draws as many as its latest latencies say a deadline leaves room for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from robopref.arrays import InputError

_KEPT = 10
"""Answers from which the present slowness is guessed: the slowest of them."""


@dataclass
class Pace:
    """`choose(robots, continuing, seconds)` -> candidates per robot, a power of two of `most` down to 1.

    An answer of some rows is expected to take what it took when the server warmed up, times how much slower than that the slowest of
    the last answers was. So a machine that gets busy draws fewer after one slow answer, also of sizes that it has not tried since.
    """

    most: int = 1
    """N: largest number of candidates for one robot."""
    budget: float = 0.1
    """Seconds that an answer may take however far its deadline is."""
    share: float = 0.5
    """Share of the time to the deadline that an answer may take; the rest is for the way back and for surprises."""
    _fresh: dict[bool, dict[int, float]] = field(default_factory=lambda: {False: {}, True: {}})
    """Whether chunks are continued -> rows -> seconds."""
    _slow: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def __post_init__(self) -> None:
        if self.most < 1 or self.budget <= 0 or not 0 < self.share <= 1:
            raise InputError(
                f"candidates: got candidates={self.most}, budget={self.budget}, share={self.share}, "
                "wanted candidates >= 1, budget > 0 seconds and a share above 0, at most 1."
            )

    @property
    def sizes(self) -> list[int]:
        """Numbers of candidates that may be drawn, largest first: N, N // 2, ... 1."""
        return [self.most >> halved for halved in range(self.most.bit_length())]

    def learn(self, rows: int, continuing: bool, seconds: float) -> None:
        """What an answer of so many chunks takes while nothing else runs; the least of several."""
        table = self._fresh[continuing]
        table[rows] = min(seconds, table.get(rows, float("inf")))

    def took(self, rows: int, continuing: bool, seconds: float) -> None:
        """An answer of so many chunks took so long just now."""
        usual = self._usual(rows, continuing)
        if usual > 0:
            self._slow.append(max(1.0, seconds / usual))

    def expected(self, rows: int, continuing: bool) -> float:
        """Seconds that an answer of so many chunks is expected to take now; 0 before anything was learned."""
        return self._usual(rows, continuing) * max(self._slow, default=1.0)

    def choose(self, robots: int, continuing: bool, seconds: float) -> int:
        """The most candidates for each of some robots whose answer fits into `seconds` from now; 1 where none does."""
        allowed = min(self.budget, self.share * seconds)
        fitting = [size for size in self.sizes if self.expected(robots * size, continuing) <= allowed]
        return fitting[0] if fitting else 1

    def _usual(self, rows: int, continuing: bool) -> float:
        table = self._fresh[continuing]
        if not table:
            return 0.0
        known = sorted(table)
        if rows > known[-1]:  # more rows than were tried cost no more than in proportion
            return table[known[-1]] * rows / known[-1]
        return float(np.interp(rows, known, [table[size] for size in known]))
