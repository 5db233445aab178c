"""Jerk-limited following of joint targets inside the velocity envelope; pure numpy, vectorised over leading axes.

One step of 1 ms per joint: a desired velocity that still stops at the target and at the joint's stop, then an acceleration that
reaches it without breaking acceleration or jerk. The speed cap looks `LOOK` seconds ahead, because jerk delays braking; the
robot's braking of joints 5 and 7 (17 rad/s^2) exceeds what it lets us decelerate (10), so their cap brakes earlier.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .limits import DT, Limits
from .reasons import Reason

LOOK = 4e-3
_A, _J = 0.95, 0.9
_SLACK = 2e-3
_GAIN = 40.0
_HALVES = np.array([[0.5], [1.0]])


@dataclass(frozen=True)
class Motion:
    """Commanded position, velocity and acceleration, each (..., 7) float64."""

    q: np.ndarray
    v: np.ndarray
    a: np.ndarray

    @staticmethod
    def at(q: np.ndarray) -> Motion:
        """Standing still at q."""
        q = np.array(q, dtype=np.float64)
        return Motion(q, np.zeros_like(q), np.zeros_like(q))

    @property
    def still(self) -> bool:
        """Whether nothing moves (below 0.1 mrad/s)."""
        return bool(np.abs(self.v).max() < 1e-4)


class Limiter:
    """Steps a `Motion` towards targets so that no limit of the arm is broken."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.acceleration, self.jerk = _A * limits.a_max, _J * limits.j_max
        self._braking = np.minimum(limits.deceleration, 0.9 * self.acceleration)
        # The slower braking ends at the same place in front of the stop.
        self._offset = limits.offset * np.sqrt(self._braking / limits.deceleration) + _SLACK
        self._top = limits.v_max - _SLACK
        self._jump = self.jerk * DT
        brake = 0.9 * self.acceleration
        self._half_brake, self._per_brake = 0.5 * brake, 1.0 / brake

    def _cap(self, distance: np.ndarray) -> np.ndarray:
        speed = np.sqrt(np.maximum(0.0, 2.0 * self._braking * distance)) - self._offset
        return np.minimum(np.maximum(speed, 0.0), self._top)

    def step(self, motion: Motion, target: np.ndarray | None) -> tuple[Motion, Reason]:
        """One control step towards `target` (..., 7), or braking to a stop where it is None.

        Returns the next motion and which limits held the motion back in any joint.
        """
        q, v, a = motion.q, motion.v, motion.a
        if target is None:
            wanted = bounded = np.zeros_like(q)
        else:
            error = target - q
            size = np.abs(error)
            wanted = np.copysign(np.minimum(_GAIN * size, np.sqrt(1.4 * self.acceleration * size)), error)
            ahead = q + LOOK * v + (0.5 * LOOK * LOOK) * a
            high, low = self._cap(self.limits.stop_max - ahead), self._cap(ahead - self.limits.stop_min)
            bounded = np.minimum(np.maximum(wanted, -low), high)
        change = bounded - v
        # The largest acceleration that can still be taken back in whole steps before the velocity overshoots: k such
        # steps of `jump` follow, and (k + 1) a - jump k (k + 1) / 2 is what they add up to.
        size = np.abs(change) / DT
        k = np.floor(np.sqrt(0.25 + 2.0 * size / self._jump) - 0.5)
        needed = (size + self._jump * (0.5 * k * (k + 1.0))) / (k + 1.0)
        push = np.copysign(np.minimum(self.acceleration, needed), change)
        new_a = np.minimum(np.maximum(push, a - self._jump), a + self._jump)
        new_a = np.minimum(np.maximum(new_a, -self.acceleration), self.acceleration)
        new_v = v + new_a * DT
        reason = Reason.NONE
        if (bounded != wanted).any():
            reason |= Reason.VEL
        if (needed > self.acceleration).any():
            reason |= Reason.ACC
        if (new_a != push).any():
            reason |= Reason.JERK
        return Motion(q + new_v * DT, new_v, new_a), reason

    def braking_path(self, motion: Motion) -> np.ndarray:
        """Positions (2, 7) half-way to standstill and at rest, if braking began now (a little beyond: jerk delays it)."""
        ends = np.abs(motion.v) * self._per_brake  # (7,) seconds
        times = np.minimum(_HALVES * ends.max(), ends)  # (2, 7)
        return motion.q + motion.v * (times + 2.0 * LOOK) - np.copysign(self._half_brake, motion.v) * times * times
