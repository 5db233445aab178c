"""Which action runs now: chunks that arrive late, and what is done about it. Pure logic, no clock and no I/O.

Steps are counted in control periods. Four ways: `synchronous` waits for each chunk and idles meanwhile; `asynchronous` switches to
the new chunk when it comes (it may jump at the seam); `ensemble` averages all chunks that cover a step, exp(-m i) with the oldest
i = 0 (Zhao et al. 2023); `real_time` asks for a chunk that continues the old one (`robopref.policies.real_time_chunking`).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robopref.arrays import InputError

Mode = Literal["real_time", "ensemble", "asynchronous", "synchronous"]
_KEPT = 10
"""How many delays the next one is guessed from: the largest of them."""


@dataclass(frozen=True)
class Plan:
    """What to ask the policy for: the step of the observation, the rest of the old chunk, and how much of it runs anyway."""

    step: int
    previous: np.ndarray | None
    """(n, A): actions from `step` on that are planned already; None when nothing is to be continued."""
    delay: int


@dataclass(frozen=True)
class Due:
    """The action of one step and where it comes from."""

    action: np.ndarray
    observed: int
    """Step of the observation behind it."""
    index: int
    """Which row of its chunk."""


@dataclass
class ChunkQueue:
    """Chunks of H actions, of which about E run. `due(step)` -> action; `plan(step)` -> request or None; `adopt(...)`."""

    horizon: int
    execute: int
    mode: Mode = "real_time"
    decay: float = 0.01
    _chunks: deque[tuple[int, np.ndarray]] = field(default_factory=deque)
    _delays: deque[int] = field(default_factory=lambda: deque([1], maxlen=_KEPT))
    _asked: int | None = None
    dropped: int = 0
    """Replies that came too late to be adopted."""

    def __post_init__(self) -> None:
        if self.mode not in ("real_time", "ensemble", "asynchronous", "synchronous"):
            raise InputError(
                f"ChunkQueue.mode: got {self.mode!r}, wanted real_time, ensemble, asynchronous or synchronous."
            )
        if not 1 <= self.execute <= self.horizon:
            raise InputError(f"ChunkQueue: got execute={self.execute}, horizon={self.horizon}, wanted 1 <= E <= H.")

    @property
    def delay(self) -> int:
        """Steps that the next reply is expected to take: the largest of the last few."""
        return max(self._delays)

    def plan(self, step: int) -> Plan | None:
        """What to ask for now, or None: one question at a time, early enough that nothing runs out."""
        if self._asked is not None:
            return None
        if not self._chunks:
            return self._ask(Plan(step, None, 0))
        start, chunk = self._chunks[-1]
        used = step - start
        if self.mode == "synchronous":
            return self._ask(Plan(step, None, 0)) if used >= self.execute else None
        # Ask so that E steps have run when the reply is expected, and before the delay could outlast the chunk.
        if used < min(self.execute, self.horizon - self.delay) - self.delay and used < self.execute:
            return None
        if self.mode != "real_time":
            return self._ask(Plan(step, None, 0))
        rest = chunk[max(used, 0) :]
        delay = min(self.delay, len(rest), self.horizon - len(rest))
        return self._ask(Plan(step, rest.copy(), delay) if len(rest) and delay >= 0 else Plan(step, None, 0))

    def _ask(self, plan: Plan) -> Plan:
        self._asked = plan.step
        return plan

    def adopt(self, observed: int, chunk: np.ndarray, step: int) -> bool:
        """Take the chunk (H, A) for the observation of step `observed`, at step `step`; False if it came too late."""
        if observed != self._asked:
            self.dropped += 1
            return False
        self._asked = None
        late = max(step - observed, 0)
        self._delays.append(late)
        if late >= self.horizon:
            self.dropped += 1
            return False
        if self.mode == "synchronous":
            observed = step  # nothing moved meanwhile
        if self.mode != "ensemble":
            self._chunks.clear()
        self._chunks.append((observed, chunk))
        while len(self._chunks) > 1 and self._chunks[0][0] + self.horizon <= step:
            self._chunks.popleft()
        return True

    def forget(self) -> None:
        """The question that is out will not be answered."""
        self._asked = None

    def clear(self) -> None:
        """Start over: no chunk, no question."""
        self._chunks.clear()
        self._asked = None

    def due(self, step: int) -> Due | None:
        """The action of this step, or None where no chunk covers it (the caller sends nothing: the guard then holds)."""
        covering = [(start, chunk) for start, chunk in self._chunks if 0 <= step - start < self.horizon]
        if self.mode == "synchronous":
            covering = [(start, chunk) for start, chunk in covering if step - start < self.execute]
        if not covering:
            return None
        start, chunk = covering[-1]
        action = chunk[step - start]
        if self.mode == "ensemble" and len(covering) > 1:
            weights = np.array([math.exp(-self.decay * i) for i in range(len(covering))])
            rows = np.stack([c[step - s] for s, c in covering])
            action = (weights[:, None] * rows).sum(0) / weights.sum()
        return Due(action, start, step - start)
