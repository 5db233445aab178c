"""What a policy sees of an arm and what its actions mean: one object for the simulation and for the arm, a preset of `conf/robot/`.

A view turns what is sensed (`Sensed`: joints, hand, goal, objects, in the arm's base frame) into the numbers that the policy was trained
on, and holds the `ActionSpace` of its actions. The simulation and the deployment are given the same view, so that they cannot differ.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Protocol

import numpy as np

from robopref.arrays import InputError

from . import kinematics
from .action_spaces import WIDTH, ActionSpace, Kind
from .choices import chosen
from .limits import ARMS

HOME = np.array([0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4])
_LOW, _HIGH = np.array([0.35, -0.25, 0.25]), np.array([0.55, 0.25, 0.55])


@dataclass(frozen=True)
class Sensed:
    """What is known at one moment; metres and radians in the arm's base frame."""

    q: np.ndarray
    """Joint positions (7,)."""
    goal: np.ndarray
    """(3,)."""
    opening: float = 1.0
    """Of the hand, 0 closed to 1 open (0.08 m)."""
    objects: np.ndarray = field(default_factory=lambda: np.zeros((0, 7)))
    """(n, 7): position and quaternion x, y, z, w of each object that the policy is told of."""
    before: Sensed | None = None
    """The period before; None at an episode's start."""


class View(Protocol):
    """One preset of `conf/robot/`."""

    @property
    def space(self) -> ActionSpace:
        """What the policy's actions mean."""

    @property
    def width(self) -> int:
        """D, numbers that the policy sees."""

    @property
    def told(self) -> int:
        """Objects whose poses the arm cannot measure and somebody must tell."""

    @property
    def radius(self) -> float:
        """Metres of `distance` that count as success."""

    def observe(self, sensed: Sensed) -> np.ndarray:
        """What the policy sees (D,) float32."""

    def distance(self, sensed: Sensed) -> float:
        """Metres that are left to the goal."""

    def goal_of(self, seed: int) -> np.ndarray:
        """The goal (3,) of an episode, where nobody gives another."""

    def resting(self) -> np.ndarray:
        """Where the objects (told, 7) lie in the simulation that has an arm only."""

    def start_of(self, seed: int) -> np.ndarray:
        """The joint positions (7,) at which an episode starts."""

    def expert(self, observation: np.ndarray, dt: float) -> np.ndarray:
        """An action (A,) float32 that moves the hand straight towards the goal; dt: seconds of a step."""

    def shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (D,) as if goal and objects stood elsewhere by `offset` (3,), metres in the observation's frame."""


def observe(q: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """What a policy of the reach task sees (13,) float32: joint positions (7), grasp point (3), goal (3); base frame."""
    point = kinematics.grasp_point(np.asarray(q, dtype=np.float64))[:3, 3]
    return np.concatenate([q, point, goal]).astype(np.float32)


def goal_of(seed: int) -> np.ndarray:
    """The goal (3,) of an episode of the reach task, metres, base frame."""
    return np.random.default_rng(seed).uniform(_LOW, _HIGH)


def start_of(seed: int) -> np.ndarray:
    """The joint positions (7,) at which an episode of the reach task starts: near home."""
    return HOME + np.random.default_rng([seed, 1]).uniform(-0.1, 0.1, 7)


@dataclass(frozen=True)
class Reach:
    """Joint positions (7), grasp point (3), goal (3), and with a gripper its opening (1): D = 13 or 14."""

    arm: str = "fr3"
    kind: Kind = "joint_delta"
    scale: float = 0.05
    gripper: bool = False
    turn: float = 0.1
    rotate: bool = False
    radius: float = 0.03
    told: int = 0
    space: ActionSpace = field(init=False)

    def __post_init__(self) -> None:
        space = ActionSpace(self.kind, self.gripper, self.scale, self.turn, self.rotate, chosen("arm", self.arm, ARMS))
        object.__setattr__(self, "space", space)

    @property
    def width(self) -> int:
        """D."""
        return 13 + self.gripper

    def observe(self, sensed: Sensed) -> np.ndarray:
        """What the policy sees (D,) float32."""
        seen = observe(sensed.q, sensed.goal)
        return np.append(seen, np.float32(sensed.opening)) if self.gripper else seen

    def distance(self, sensed: Sensed) -> float:
        """Metres from the measured grasp point to the goal."""
        return float(np.linalg.norm(kinematics.grasp_point(sensed.q)[:3, 3] - sensed.goal))

    def goal_of(self, seed: int) -> np.ndarray:
        """Anywhere in front of the arm (3,)."""
        return goal_of(seed)

    def resting(self) -> np.ndarray:
        """None: (0, 7)."""
        return np.zeros((0, 7))

    def start_of(self, seed: int) -> np.ndarray:
        """Near home (7,)."""
        return start_of(seed)

    def expert(self, observation: np.ndarray, dt: float) -> np.ndarray:
        """An action (A,) float32 straight towards the goal, the hand left open."""
        q, point, goal = (np.asarray(observation[part], np.float64) for part in (slice(7), slice(7, 10), slice(10, 13)))
        way = goal - point
        step = way * min(1.0, 0.04 / (float(np.linalg.norm(way)) + 1e-9))
        arm = self._towards(q, step, dt)
        return np.append(arm, np.ones(int(self.gripper))).clip(-1, 1).astype(np.float32)

    def _towards(self, q: np.ndarray, step: np.ndarray, dt: float) -> np.ndarray:
        if self.kind == "ee_delta":
            return np.concatenate([step / self.scale, np.zeros(3 * self.rotate)])
        move = kinematics.solve_twist(q, np.concatenate([step, np.zeros(3)]), damping=0.1)
        if self.kind == "joint_velocity":
            return move / (self.scale * dt)
        if self.kind == "joint_absolute":
            low, high = self.space.limits.stop_min + self.space.margin, self.space.limits.stop_max - self.space.margin
            return 2 * (q + move - low) / (high - low) - 1
        return move / self.scale

    def shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (D,) as if the goal stood elsewhere by `offset` (3,), metres."""
        shifted = np.array(observation, dtype=np.float32)
        shifted[10:13] += np.asarray(offset, dtype=np.float32)
        return shifted


def view_of(preset: str, changed: Mapping[str, Any] | None = None) -> View:
    """The view of a preset in `conf/robot/`, with some of its values changed. Raises `InputError` for names that are none."""
    import yaml
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    folder = files("robopref.conf").joinpath("robot")
    known = {one.name.removesuffix(".yaml"): one for one in folder.iterdir() if one.name.endswith(".yaml")}
    settings = yaml.safe_load(chosen("robot", preset, known).read_text(encoding="utf-8")) | dict(changed or {})
    try:
        view: View = instantiate(settings)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from error
        raise InputError(f"robot={preset}: got {dict(changed or {})}: {error.__cause__}") from error
    return view


def opening_of(width: float) -> float:
    """Share of the hand's stroke for a width between the fingers in metres, 0 to 1."""
    return min(1.0, max(0.0, width / WIDTH))
