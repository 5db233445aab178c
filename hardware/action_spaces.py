"""What a policy's action in [-1, 1] means for the arm: the same configuration in simulation and on hardware.

| kind | A | meaning of an action |
|---|---|---|
| joint_delta | 7 (+1) | change of the joint targets per step, `scale` rad |
| joint_absolute | 7 (+1) | joint targets, -1 to 1 over the joint range |
| joint_velocity | 7 (+1) | joint velocities, `scale` rad/s, integrated over the step |
| ee_delta | 3 or 6 (+1) | change of the grasp point per step: `scale` m, and `turn` rad, along axes that stand at `yaw` about the base's z; solved by damped least squares |

With `gripper` the last number opens (1) or closes (-1) the hand, with `closes` the other way round (Meta-World's). All of it ends in absolute joint targets; the guard judges those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robopref.arrays import InputError, check_shape

from . import kinematics
from .limits import FR3, JOINTS, Limits

Kind = Literal["joint_delta", "joint_absolute", "joint_velocity", "ee_delta"]
WIDTH = 0.08
"""Metres between the open fingers."""


@dataclass(frozen=True)
class ActionSpace:
    """Turns actions into joint targets and gripper widths, and targets back into actions."""

    kind: Kind = "joint_delta"
    gripper: bool = False
    scale: float = 0.05
    turn: float = 0.1
    rotate: bool = False
    """Whether an ee_delta also turns the hand (A = 6)."""
    limits: Limits = FR3
    margin: float = 0.05
    yaw: float = 0.0
    """Radians about the base's z axis to the axes of an ee_delta."""
    closes: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("joint_delta", "joint_absolute", "joint_velocity", "ee_delta"):
            raise InputError(
                f"ActionSpace.kind: got {self.kind!r}, wanted joint_delta, joint_absolute, joint_velocity or ee_delta."
            )
        if self.scale <= 0 or self.turn <= 0:
            raise InputError(f"ActionSpace: got scale={self.scale}, turn={self.turn}, wanted both > 0.")

    @property
    def width(self) -> int:
        """A, numbers per action."""
        joints = (6 if self.rotate else 3) if self.kind == "ee_delta" else JOINTS
        return joints + self.gripper

    def target(self, action: np.ndarray, before: np.ndarray, dt: float) -> tuple[np.ndarray, float | None]:
        """(joint targets (7,), gripper width or None) for an action (A,) that follows the targets `before` (7,)."""
        check_shape("ActionSpace", "action", action.shape, (self.width,), f"{self.kind} has {self.width} numbers.")
        action = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        arm = action[: self.width - self.gripper]
        width = float(((-action[-1] if self.closes else action[-1]) + 1.0) / 2.0 * WIDTH) if self.gripper else None
        low, high = self.limits.stop_min + self.margin, self.limits.stop_max - self.margin
        if self.kind == "joint_absolute":
            joints = low + (arm + 1.0) / 2.0 * (high - low)
        elif self.kind == "joint_delta":
            joints = before + self.scale * arm
        elif self.kind == "joint_velocity":
            joints = before + self.scale * dt * arm
        else:
            twist = np.zeros(6)
            twist[:3] = self.scale * turned(arm[:3], self.yaw)
            twist[3:] = self.turn * turned(arm[3:], self.yaw) if self.rotate else 0.0
            joints = before + kinematics.solve_twist(before, twist)
        return np.minimum(np.maximum(joints, low), high), width


def turned(vector: np.ndarray, yaw: float) -> np.ndarray:
    """A vector (3,) turned about z by `yaw` radians."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1], vector[2]])
