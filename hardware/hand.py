"""The gripper of an arm node: it moves, stops and is measured on threads of its own, because each waits for the hand."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

_APART = 2e-3
"""Metres from the last order at which the hand is moved again."""
_PERIOD = 0.1
"""Seconds between two looks at the width."""
_LATE = 1.0
"""Seconds without an answer after which the last width is none any more."""


class Gripping(Protocol):
    """What a hand needs of the arm's back end."""

    def grip(self, width: float) -> None:
        """Move the fingers to a width in metres; returns when they are there. Raises `BackendError`."""

    def release(self) -> None:
        """Stop the fingers where they are. Raises `BackendError`."""

    def width(self) -> float | None:
        """Measured metres between the fingers; None without a gripper. Raises `BackendError`."""


class Hand:
    """`ordered`: the width the fingers were last sent to, `width` what was measured, `error` what went wrong last."""

    def __init__(self, backend: Gripping, ordered: float) -> None:
        self._backend, self.ordered = backend, ordered
        self.width: float | None = None
        self.error, self.errors, self.stops = "", 0, 0
        self._threads = ThreadPoolExecutor(3)
        self._moving: Future[None] | None = None
        self._stopping: Future[None] | None = None
        self._looking: Future[float | None] | None = None
        self._looked = float("-inf")

    def cycle(self, now: float, wanted: float | None, stop: bool) -> bool:
        """Send the fingers to a width (metres) where one is `wanted`, or `stop` them; True if there is a new measured width."""
        self._moving = self._over(self._moving)
        self._stopping = self._over(self._stopping)
        if stop and self._moving is not None and self._stopping is None:
            self.stops += 1
            self._stopping = self._threads.submit(self._backend.release)
        elif wanted is not None and not stop and self._moving is None and abs(wanted - self.ordered) > _APART:
            self.ordered = wanted
            self._moving = self._threads.submit(self._backend.grip, wanted)
        return self._look(now)

    def _look(self, now: float) -> bool:
        if self._looking is None:
            if now - self._looked >= _PERIOD:
                self._looked, self._looking = now, self._threads.submit(self._backend.width)
            return False
        if not self._looking.done():
            self.width = self.width if now - self._looked < _LATE else None
            return False
        failed, before = self._looking.exception() is not None, self._looking
        self._looking = self._over(self._looking)
        self.width = None if failed else before.result()
        return self.width is not None

    def _over(self, work: Future[Any] | None) -> Future[Any] | None:
        """None where the work is done; its error is kept to be told."""
        if work is None or not work.done():
            return work
        if (error := work.exception()) is not None:
            self.error, self.errors = str(error)[:200], self.errors + 1
        return None

    def close(self) -> None:
        """Begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
