"""One period of the control loop as it is recorded, and what many of them add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .chunk_queue import Due
from .observer import Reading


@dataclass
class Step:
    """One period of the loop, for the recorder."""

    number: int
    reading: Reading | None
    observation: np.ndarray | None
    status: dict[str, Any]
    due: Due | None = None
    target: np.ndarray | None = None
    sent: int = -1
    lateness: float = 0.0
    latency: float = float("nan")
    overhead: float = float("nan")
    adopted: np.ndarray | None = None
    picture: bytes | None = None


@dataclass
class Tally:
    """What the loop lived through; percentiles are taken over these."""

    steps: int = 0
    missed: int = 0
    commands: int = 0
    idle: int = 0
    """Steps without an action while the arm could have moved."""
    stale_replies: int = 0
    bad_replies: int = 0
    lost_questions: int = 0
    arms: int = 0
    jitter: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    overheads: list[float] = field(default_factory=list)
    adopted_ages: list[float] = field(default_factory=list)
    action_ages: list[float] = field(default_factory=list)

    def report(self) -> dict[str, float]:
        """Counts, and percentiles in milliseconds."""
        told: dict[str, float] = {}
        for name in ("steps", "missed", "commands", "idle", "stale_replies", "bad_replies", "lost_questions", "arms"):
            told[name] = getattr(self, name)
        for name in ("jitter", "ages", "overheads", "adopted_ages", "action_ages"):
            values = getattr(self, name)
            for q in (50, 99):
                told[f"{name}_p{q}_ms"] = round(1000 * float(np.percentile(values, q)), 2) if values else float("nan")
        return told
