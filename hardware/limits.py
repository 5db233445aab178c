"""What the arms allow: joint limits of Franka Research 3 and Panda, with their sources.

FR3: libfranka >= 0.10 `rate_limiting.h` and the joint table of the FR3 data sheet; Panda: libfranka 0.9.2 `rate_limiting.h`.
Units: rad, rad/s, rad/s^2, rad/s^3, Nm. Arrays are (7,) float64.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robopref.arrays import InputError, check_shape

JOINTS = 7
DT = 1e-3
"""Seconds per control step of the arm (1 kHz)."""
BRAKING = 0.95
"""Share of the arm's acceleration that is used."""
RAMPS = 8e-3
"""Seconds that limited jerk adds to braking at most: 5.3 ms from full acceleration (1.5 + 1 times A / J), rest for whole steps."""


@dataclass(frozen=True)
class Limits:
    """Limits of one arm. `v_high(q)` and `v_low(q)` are the velocities the robot itself tolerates at a position."""

    name: str
    q_min: np.ndarray
    q_max: np.ndarray
    """Positions the robot tolerates."""
    stop_min: np.ndarray
    stop_max: np.ndarray
    """Positions we tolerate: inside `q_min, q_max` in every published table of this arm."""
    v_max: np.ndarray
    a_max: np.ndarray
    j_max: np.ndarray
    offset: np.ndarray
    deceleration: np.ndarray
    """Shape of the velocity envelope near a stop: v <= -offset + sqrt(2 deceleration distance)."""
    envelope: bool
    """Whether the robot enforces that envelope (FR3), or only we do (Panda)."""
    torque: np.ndarray
    torque_rate: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("q_min", "q_max", "stop_min", "stop_max", "v_max", "a_max", "j_max", "offset", "deceleration"):
            check_shape("Limits", name, getattr(self, name).shape, (JOINTS,), "One number per joint.")
        if not ((self.q_min <= self.stop_min) & (self.stop_min < self.stop_max) & (self.stop_max <= self.q_max)).all():
            raise InputError("Limits: got stops outside [q_min, q_max], wanted q_min <= stop_min < stop_max <= q_max.")

    def v_high(self, q: np.ndarray) -> np.ndarray:
        """Largest velocity the robot tolerates at q: (..., 7) -> (..., 7)."""
        return self._envelope(self.q_max - q)

    def v_low(self, q: np.ndarray) -> np.ndarray:
        """Smallest (most negative) velocity the robot tolerates at q: (..., 7) -> (..., 7)."""
        return -self._envelope(q - self.q_min)

    def _envelope(self, distance: np.ndarray) -> np.ndarray:
        if not self.envelope:
            return np.broadcast_to(self.v_max, distance.shape)
        braking = -self.offset + np.sqrt(np.maximum(0.0, 2.0 * self.deceleration * distance))
        return np.minimum(self.v_max, np.maximum(0.0, braking)) - 1e-3

    def slowed(self, speed: float) -> Limits:
        """The same arm at a fraction of its speed, 0 < speed <= 1; accelerations stay. Raises `InputError` otherwise."""
        if not 0.0 < speed <= 1.0:
            raise InputError(f"Limits.slowed: got speed={speed}, wanted 0 < speed <= 1.")
        return replace(self, v_max=self.v_max * speed)

    def stopping_within(self, seconds: float) -> Limits:
        """The same arm, no joint faster than it can stop from in that time. Raises `InputError` for less than two ramps of jerk."""
        if not seconds > 2.0 * RAMPS:
            raise InputError(f"Limits.stopping_within: got {seconds} s, wanted more than {2.0 * RAMPS}.")
        return replace(self, v_max=np.minimum(self.v_max, BRAKING * self.a_max * (seconds - RAMPS)))


def _row(*values: float) -> np.ndarray:
    row = np.array(values, dtype=np.float64)
    row.setflags(write=False)
    return row


def _same(value: float) -> np.ndarray:
    return _row(*[value] * JOINTS)


_TORQUE = _row(87, 87, 87, 87, 12, 12, 12)

FR3 = Limits(
    name="fr3",
    q_min=_row(-2.7501, -1.7918, -2.9065, -3.0481, -2.8101, 0.54092, -3.0196),
    q_max=_row(2.7501, 1.7918, 2.9065, -0.1458, 2.8101, 4.5205, 3.0196),
    # The older published model of the arm is narrower by a few mrad.
    stop_min=_row(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    stop_max=_row(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    v_max=_row(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    a_max=_same(10.0),
    j_max=_same(5000.0),
    offset=_row(0.30, 0.20, 0.20, 0.30, 0.35, 0.35, 0.35),
    deceleration=_row(6.0, 2.585, 3.5, 4.0, 17.0, 5.5, 17.0),
    envelope=True,
    torque=_TORQUE,
)

_PANDA_A = _row(15, 7.5, 10, 12.5, 15, 20, 20)
_PANDA_MIN = _row(-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973)
_PANDA_MAX = _row(2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973)

PANDA = Limits(
    name="panda",
    q_min=_PANDA_MIN,
    q_max=_PANDA_MAX,
    stop_min=_PANDA_MIN,
    stop_max=_PANDA_MAX,
    # 2.175 and 2.61 less libfranka's own reserve of 1e-3 + 3e-3 a_max for three lost packets.
    v_max=_row(2.129, 2.1515, 2.144, 2.1365, 2.564, 2.549, 2.549),
    a_max=_PANDA_A,
    j_max=_PANDA_A * 500.0,
    offset=_same(0.2),
    deceleration=np.minimum(6.0, 0.9 * 0.95 * _PANDA_A),
    envelope=False,
    torque=_TORQUE,
)

ARMS = {"fr3": FR3, "panda": PANDA}
