"""A policy that was trained in Meta-World on a Franka arm: the same 39 numbers in, the same 4 numbers out.

Meta-World's frame stands on the table before the arm: its y axis points away from the arm, its x axis to the right. The hand's position
and opening are measured. What a real arm cannot measure, the poses of objects and the goal, must be told (topics, or fixed numbers).

| numbers | Meta-World | here |
|---|---|---|
| 0-3 | hand | grasp point, plus `hand` upwards: Meta-World's hand lies 0.045 m above the point between the fingers |
| 3 | distance of the fingers, 0.297 closed on nothing to 1 open | opening of the hand, drawn to the same ends |
| 4-11, 11-18 | position and quaternion of up to two objects, zeros without | told |
| 18-36 | the frame of the step before | the frame of the period before |
| 36-39 | goal | told, or drawn from `goal_low`, `goal_high` by the episode's number |

An action moves the hand by up to a centimetre (times `repeat`) along Meta-World's axes and opens (-1) or closes (1) the fingers. The hand keeps
pointing down. Meta-World takes 80 such steps a second and its hand lags behind; the arm takes `hz`, and follows within the guard's limits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from robopref.arrays import InputError, check_shape

from . import kinematics
from .action_spaces import ActionSpace, turned
from .choices import chosen
from .limits import ARMS
from .views import HOME, Sensed

CLOSED = 0.29663396
"""What Meta-World says of fingers that closed on nothing."""
STEP = 0.01
"""Metres of a full action in one step of Meta-World."""


@dataclass(frozen=True)
class MetaWorldView:
    """See the module. origin: where Meta-World's origin lies in the arm's base frame, metres; yaw: how its axes stand there."""

    arm: str = "fr3"
    repeat: int = 1
    objects: int = 1
    scalar_first: bool = False
    judged: Literal["hand", "object"] = "hand"
    radius: float = 0.05
    origin: tuple[float, float, float] = (-0.25, 0.0, 0.12)
    yaw: float = -math.pi / 2
    hand: float = 0.045
    start: tuple[float, float, float] = (0.0, 0.6, 0.195)
    """Where the hand begins, Meta-World's frame."""
    goal_low: tuple[float, float, float] = (-0.1, 0.8, 0.05)
    goal_high: tuple[float, float, float] = (0.1, 0.9, 0.3)
    """Meta-World's own box of goals for `reach`."""
    rest: tuple[float, float, float] = (0.0, 0.62, 0.02)
    """Where objects lie in the simulation that has an arm only."""
    space: ActionSpace = field(init=False)

    def __post_init__(self) -> None:
        if self.judged not in ("hand", "object") or not 0 <= self.objects <= 2 or self.repeat < 1 or self.radius <= 0:
            raise InputError(
                f"robot=metaworld: got judged={self.judged}, objects={self.objects}, repeat={self.repeat}, radius={self.radius}, "
                "wanted hand or object, 0 to 2 objects, repeat >= 1 and radius > 0."
            )
        for name in ("origin", "start", "goal_low", "goal_high", "rest"):
            check_shape("robot=metaworld", name, np.shape(getattr(self, name)), (3,), "Three metres.")
        limits = chosen("arm", self.arm, ARMS)
        space = ActionSpace("ee_delta", True, STEP * self.repeat, limits=limits, yaw=self.yaw, closes=True)
        object.__setattr__(self, "space", space)

    @property
    def width(self) -> int:
        """D."""
        return 39

    @property
    def told(self) -> int:
        """Objects whose poses must be told."""
        return self.objects

    def observe(self, sensed: Sensed) -> np.ndarray:
        """Meta-World's observation (39,) float32."""
        now, before = self._frame(sensed), self._frame(sensed.before or sensed)
        return np.concatenate([now, before, self._seen(sensed.goal)]).astype(np.float32)

    def distance(self, sensed: Sensed) -> float:
        """Metres from hand or first object to the goal."""
        at = sensed.objects[0, :3] if self.judged == "object" and len(sensed.objects) else self._hand(sensed)
        return float(np.linalg.norm(at - sensed.goal))

    def goal_of(self, seed: int) -> np.ndarray:
        """A goal (3,) from the box, base frame."""
        return self.placed(np.random.default_rng(seed).uniform(self.goal_low, self.goal_high))

    def resting(self) -> np.ndarray:
        """Objects at rest (told, 7), upright."""
        upright = Rotation.from_euler("z", self.yaw).as_quat()
        return np.tile(np.concatenate([self.placed(np.array(self.rest)), upright]), (self.objects, 1))

    def start_of(self, seed: int) -> np.ndarray:
        """Joint positions (7,) with the hand at `start`, pointing down. Raises `InputError` where the arm does not get there."""
        wanted, q = self.placed(np.array(self.start)), HOME.copy()
        wanted[2] -= self.hand
        for _ in range(200):
            way = wanted - kinematics.grasp_point(q)[:3, 3]
            if np.linalg.norm(way) < 1e-6:
                break
            step = way * min(1.0, 0.02 / float(np.linalg.norm(way)))
            q = q + kinematics.solve_twist(q, np.concatenate([step, np.zeros(3)]), damping=1e-3)
        limits = self.space.limits
        if np.linalg.norm(way) > 1e-3 or (q < limits.stop_min).any() or (q > limits.stop_max).any():
            raise InputError(
                f"robot=metaworld: got start {self.start} with origin {self.origin}, which the arm does not reach."
            )
        return q

    def expert(self, observation: np.ndarray, dt: float) -> np.ndarray:
        """An action (4,) float32 that moves the hand straight towards the goal, fingers left open."""
        way = np.asarray(observation[36:39], np.float64) - np.asarray(observation[:3], np.float64)
        step = way * min(1.0, 0.8 * self.space.scale / (float(np.linalg.norm(way)) + 1e-9))
        return np.append(step / self.space.scale, -1.0).clip(-1, 1).astype(np.float32)

    def shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (39,) as if objects and goal stood elsewhere by `offset` (3,), metres in Meta-World's frame."""
        shifted = np.array(observation, dtype=np.float32)
        for frame in (0, 18):
            for one in range(self.objects):
                shifted[frame + 4 + 7 * one : frame + 7 + 7 * one] += offset
        shifted[36:39] += np.asarray(offset, dtype=np.float32)
        return shifted

    def placed(self, point: np.ndarray) -> np.ndarray:
        """A point (3,) of Meta-World's frame in the arm's base frame."""
        return turned(point, self.yaw) + np.array(self.origin)

    def _seen(self, point: np.ndarray) -> np.ndarray:
        """A point (3,) of the base frame in Meta-World's."""
        return turned(np.asarray(point, np.float64) - np.array(self.origin), -self.yaw)

    def _hand(self, sensed: Sensed) -> np.ndarray:
        return kinematics.grasp_point(np.asarray(sensed.q, np.float64))[:3, 3] + [0.0, 0.0, self.hand]

    def _frame(self, sensed: Sensed) -> np.ndarray:
        """Hand, opening and objects (18,)."""
        frame = np.zeros(18)
        frame[:3] = self._seen(self._hand(sensed))
        frame[3] = CLOSED + (1 - CLOSED) * sensed.opening
        for number, pose in enumerate(sensed.objects[: self.objects]):
            quaternion = (Rotation.from_euler("z", -self.yaw) * Rotation.from_quat(pose[3:])).as_quat()
            quaternion = -quaternion if quaternion[3] < 0 else quaternion  # one of two that are the same turn
            at = 4 + 7 * number
            frame[at : at + 3] = self._seen(pose[:3])
            frame[at + 3 : at + 7] = np.roll(quaternion, 1) if self.scalar_first else quaternion
        return frame
