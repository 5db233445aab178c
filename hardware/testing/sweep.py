"""Random commands through the limiter of many arms at once, checked against what the robot itself would refuse."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from ..limiter import Limiter, Motion
from ..limits import DT, JOINTS, Limits

TOLERANCE = 1e-9
TICKS = 64
"""Length of a sequence: one random pattern of commands per arm, starting from whatever motion the last one left."""


@dataclass
class Swept:
    """What a sweep found."""

    sequences: int = 0
    steps: int = 0
    position: int = 0
    velocity: int = 0
    acceleration: int = 0
    jerk: int = 0
    seconds: float = 0.0
    """Time inside the limiter alone."""
    fastest: np.ndarray = field(default_factory=lambda: np.zeros(JOINTS))
    """Largest share of the admissible speed that each joint reached."""

    @property
    def violations(self) -> int:
        """Joint-steps outside any limit."""
        return self.position + self.velocity + self.acceleration + self.jerk

    @property
    def microseconds(self) -> float:
        """Amortised time of one step of one arm."""
        return 1e6 * self.seconds / max(self.steps, 1)


def sweep(limits: Limits, sequences: int, seed: int, arms: int = 2048, limiter: Limiter | None = None) -> Swept:
    """Run at least `sequences` random sequences of `TICKS` steps at 1 kHz and count joint-steps that break a limit."""
    rng = np.random.default_rng(seed)
    limiter = limiter or Limiter(limits)
    found = Swept()
    motion = Motion.at(rng.uniform(limits.stop_min, limits.stop_max, (arms, JOINTS)))
    while found.sequences < sequences:
        for target in _targets(rng, limits, motion.q):
            begin = time.perf_counter()
            after, _ = limiter.step(motion, target)
            found.seconds += time.perf_counter() - begin
            _count(found, limits, motion, after)
            motion = after
        found.sequences += arms
    return found


def _targets(rng: np.random.Generator, limits: Limits, q: np.ndarray) -> list[np.ndarray | None]:
    """TICKS targets (arms, 7): anywhere and beyond the stops, jumps around the arm, flicker at the edge, holds."""
    arms, span = len(q), limits.stop_max - limits.stop_min
    anywhere = rng.uniform(limits.stop_min - 0.3 * span, limits.stop_max + 0.3 * span, (arms, JOINTS))
    jump = q + rng.uniform(-0.3, 0.3, (arms, JOINTS))
    edges = np.where(rng.random((arms, JOINTS)) < 0.5, limits.stop_min, limits.stop_max)
    far = np.where(rng.random((arms, JOINTS)) < 0.5, limits.stop_min - 9.0, limits.stop_max + 9.0)
    kind = rng.integers(0, 5, arms)[:, None]
    # Far targets stay for many sequences, so that the arms reach full speed and meet their stops with it.
    steady = np.where(
        np.sin(np.arange(arms) + rng.integers(2))[:, None] > 0, limits.stop_max + 9.0, limits.stop_min - 9.0
    )
    first = np.select([kind == 0, kind == 1, kind == 2, kind == 3], [anywhere, jump, edges, far], steady)
    second = np.where(kind == 2, limits.stop_min + limits.stop_max - edges, first)
    second = np.where(kind == 1, q - (jump - q), second)
    period = int(rng.integers(1, TICKS))
    targets: list[np.ndarray | None] = [first if (tick // period) % 2 == 0 else second for tick in range(TICKS)]
    if rng.random() < 0.1:
        targets[TICKS // 2 :] = [None] * (TICKS // 2)
    return targets


def _count(found: Swept, limits: Limits, before: Motion, after: Motion) -> None:
    """Judge by differences of positions alone, as the robot does."""
    v = (after.q - before.q) / DT
    # Differences of positions lose digits (1e-16 / 1e-3 per order): compare what was integrated, and that it agrees.
    assert np.abs(v - after.v).max() < 1e-10
    a, j = after.a, (after.a - before.a) / DT
    high, low = limits.v_high(after.q), limits.v_low(after.q)
    found.steps += len(v)
    found.position += int(((after.q > limits.q_max + TOLERANCE) | (after.q < limits.q_min - TOLERANCE)).sum())
    found.velocity += int(
        ((after.v > np.maximum(high, 0) + TOLERANCE) | (after.v < np.minimum(low, 0) - TOLERANCE)).sum()
    )
    found.acceleration += int((np.abs(a) > limits.a_max + TOLERANCE).sum())
    found.jerk += int((np.abs(j) > limits.j_max + TOLERANCE * limits.j_max).sum())
    share = np.abs(after.v) / np.where(
        after.v > 0, np.maximum(high, 0.2 * limits.v_max), np.maximum(-low, 0.2 * limits.v_max)
    )
    found.fastest = np.maximum(found.fastest, share.max(0))
