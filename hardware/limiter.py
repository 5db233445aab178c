"""Jerk-limited following of joint targets inside the velocity envelope; pure numpy, vectorised over leading axes.

A single arm is stepped in plain floats, joint by joint, in the same order of operations and so to the same bits: on seven numbers
numpy costs a microsecond per operation, whatever the operation.

One step of 1 ms per joint: a desired velocity that still stops at the target and at the joint's stop, then an acceleration that
reaches it without breaking acceleration or jerk. The speed cap looks `LOOK` seconds ahead, because jerk delays braking; the
robot's braking of joints 5 and 7 (17 rad/s^2) exceeds what it lets us decelerate (10), so their cap brakes earlier.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import copysign, floor, sqrt

import numpy as np

from .limits import BRAKING, DT, RAMPS, Limits
from .reasons import Reason, reason_of

LOOK = 4e-3
_J = 0.9
_SLACK = 2e-3
_GAIN = 40.0
_STILL = 1e-4
_VEL, _ACC, _JERK = int(Reason.VEL), int(Reason.ACC), int(Reason.JERK)


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
        return all(-_STILL < v < _STILL for v in self.v.ravel().tolist())


class Limiter:
    """Steps a `Motion` towards targets so that no limit of the arm is broken."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.acceleration, self.jerk = BRAKING * limits.a_max, _J * limits.j_max
        self._braking = np.minimum(limits.deceleration, 0.9 * self.acceleration)
        # The slower braking ends at the same place in front of the stop.
        self._offset = limits.offset * np.sqrt(self._braking / limits.deceleration) + _SLACK
        self._top = limits.v_max - _SLACK
        self._jump = self.jerk * DT
        brake = 0.9 * self.acceleration
        self._brakes = list(zip((0.5 * brake).tolist(), (1.0 / brake).tolist(), strict=True))
        numbers = (self.acceleration, self._jump, 1.4 * self.acceleration, 2.0 * self._braking, self._offset, self._top)
        self._joints = list(zip(*(row.tolist() for row in (*numbers, limits.stop_min, limits.stop_max)), strict=True))

    def _cap(self, distance: np.ndarray) -> np.ndarray:
        speed = np.sqrt(np.maximum(0.0, 2.0 * self._braking * distance)) - self._offset
        return np.minimum(np.maximum(speed, 0.0), self._top)

    def step(self, motion: Motion, target: np.ndarray | None) -> tuple[Motion, Reason]:
        """One control step towards `target` (..., 7), or braking to a stop where it is None.

        Returns the next motion and which limits held the motion back in any joint.
        """
        if motion.q.ndim == 1:
            return self._step_one(motion, target)
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
        if (new_a != push).any() or (k > 0.0).any():
            reason |= Reason.JERK
        return Motion(q + new_v * DT, new_v, new_a), reason

    def _step_one(self, motion: Motion, target: np.ndarray | None) -> tuple[Motion, Reason]:
        """`step` for one arm; see there for what each line is. Conditions, because calls of `min` and `max` take most of the time."""
        qs, vs, accelerations, bits = list[float](), list[float](), list[float](), 0
        goals = motion.q.tolist() if target is None else target.tolist()
        now = zip(motion.q.tolist(), motion.v.tolist(), motion.a.tolist(), goals, self._joints, strict=True)
        for q, v, a, goal, (most, jump, pull, braking, offset, top, low, high) in now:
            bounded = 0.0
            if target is not None:
                error = goal - q
                size = error if error > 0.0 else -error
                wanted, root = _GAIN * size, sqrt(pull * size)
                wanted = copysign(root if root < wanted else wanted, error)
                ahead = q + LOOK * v + (0.5 * LOOK * LOOK) * a
                square = braking * (high - ahead)
                up = sqrt(square) - offset if square > 0.0 else 0.0
                up = top if up > top else 0.0 if up < 0.0 else up
                square = braking * (ahead - low)
                down = sqrt(square) - offset if square > 0.0 else 0.0
                down = top if down > top else 0.0 if down < 0.0 else down
                bounded = -down if wanted < -down else wanted
                bounded = up if bounded > up else bounded
                if bounded != wanted:
                    bits |= _VEL
            change = bounded - v
            size = (change if change > 0.0 else -change) / DT
            k = floor(sqrt(0.25 + 2.0 * size / jump) - 0.5)
            push = (size + jump * (0.5 * k * (k + 1.0))) / (k + 1.0)
            if push > most:
                push, bits = most, bits | _ACC
            push = copysign(push, change)
            least, largest = a - jump, a + jump
            new_a = least if push < least else largest if push > largest else push
            new_a = -most if new_a < -most else most if new_a > most else new_a
            if new_a != push or k:
                bits |= _JERK
            v += new_a * DT
            qs.append(q + v * DT)
            vs.append(v)
            accelerations.append(new_a)
        return Motion(np.array(qs), np.array(vs), np.array(accelerations)), reason_of(bits)

    def stopping_time(self, motion: Motion) -> float:
        """Seconds in which one arm would stand still if it braked now, at most."""
        return max([abs(v) / most for v, (most, *_) in zip(motion.v.tolist(), self._joints, strict=True)]) + RAMPS

    def braking_path(self, motion: Motion) -> tuple[list[float], list[float]]:
        """Positions (7) half-way to standstill and at rest of one arm, if braking began now (a little beyond: jerk delays it)."""
        speeds = motion.v.tolist()
        ends = [abs(v) * per for v, (_, per) in zip(speeds, self._brakes, strict=True)]  # seconds
        half, middle, rest = 0.5 * max(ends), list[float](), list[float]()
        for q, v, end, (brake, _) in zip(motion.q.tolist(), speeds, ends, self._brakes, strict=True):
            back = brake if v > 0.0 else -brake
            time = end if end < half else half
            middle.append(q + v * (time + 2.0 * LOOK) - back * time * time)
            rest.append(q + v * (end + 2.0 * LOOK) - back * end * end)
        return middle, rest
