"""How the control loop runs, one period of it as it is recorded, and what many of them add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .chunk_queue import Due, Mode
from .observer import Reading


@dataclass(frozen=True)
class AgentSettings:
    """How the loop runs. Seconds, of the robot's clock where ages of observations are meant."""

    hz: float = 15.0
    mode: Mode = "real_time"
    observation_age: float = 0.1
    """Oldest joint state (since it arrived here) that an action may be computed from."""
    skew: float = 0.05
    """Largest distance in time of a picture from the joint state it is paired with."""
    camera_period: float = 0.1
    """Seconds between pictures: how much older than `skew` the newest one may be."""
    adopt_age: float = 0.3
    """Oldest observation, by the robot's clock, whose chunk is adopted."""
    patience: float = 1.0
    """Seconds after which a question counts as lost."""
    auto_arm: bool = True
    """Whether holds that only arming ends, and idleness, are left without asking a person."""


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
    reward: float = 0.0
    """What the task says of this period; told to labellers and reports, never to training."""
    success: bool = False


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
    candidates: list[int] = field(default_factory=list)
    """Of how many candidates each adopted chunk was the best."""
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
        told["candidates_mean"] = round(float(np.mean(self.candidates)), 2) if self.candidates else float("nan")
        for name in ("jitter", "ages", "overheads", "adopted_ages", "action_ages"):
            values = getattr(self, name)
            for q in (50, 99):
                told[f"{name}_p{q}_ms"] = round(1000 * float(np.percentile(values, q)), 2) if values else float("nan")
        return told
