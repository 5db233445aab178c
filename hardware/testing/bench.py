"""A guard with a clock of its own, for tests: commands and milliseconds, nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arm_reach import HOME
from ..command import Command
from ..guard import Guard, Output, Settings
from ..limits import DT, FR3, Limits
from ..reasons import Reason
from ..workspace import Workspace

__all__ = ["HOME", "Bench"]


class Bench:
    """A guard in reach of its robot, armed unless told otherwise; `settings` are those of the guard."""

    def __init__(
        self, limits: Limits = FR3, armed: bool = True, workspace: Workspace | None = None, **settings: Any
    ) -> None:
        self.guard, self.now, self.seq = Guard(limits, Settings(**settings), workspace), 5.0, 0
        self.guard.link(True, self.now)
        self.guard.follow(HOME)
        if armed:
            assert self.guard.arm(1, HOME, 1, self.now) == Reason.NONE

    def command(self, target: Any = HOME, **changes: Any) -> Reason:
        """Give the guard a command of the epoch 1, made now."""
        self.seq += 1
        given = {"epoch": 1, "seq": self.seq, "seen": self.now - 0.01, "observed": self.now - 0.05} | changes
        return self.guard.receive(Command(target=np.asarray(target, dtype=np.float64), **given), self.now)

    def run(self, seconds: float) -> list[Output]:
        """What the guard says in the milliseconds that follow."""
        outputs = []
        for _ in range(round(seconds / DT)):
            self.now += DT
            outputs.append(self.guard.tick(self.now))
        return outputs
