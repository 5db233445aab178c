"""Reach with a Franka arm: the same task, action space and guard in this one-process simulation and on the real chain.

Each step is one command through the guard and as many of its millisecond steps as a control period has; the arm is where the guard says
(what a stiff controller does). `observe` is what a policy sees here and on the robot.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

from . import kinematics
from .action_spaces import ActionSpace, Kind
from .command import Command
from .guard import Guard, Settings
from .limiter import Motion
from .limits import ARMS, DT
from .reasons import State
from .workspace import Workspace

TASK = "arm-reach"
HOME = np.array([0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4])
RADIUS = 0.03
"""Metres from the goal that count as reached."""
WIDTH = 13
_LOW, _HIGH = np.array([0.35, -0.25, 0.25]), np.array([0.55, 0.25, 0.55])


def observe(q: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """What a policy sees (13,) float32: joint positions (7), grasp point (3), goal (3); base frame."""
    point = kinematics.grasp_point(np.asarray(q, dtype=np.float64))[:3, 3]
    return np.concatenate([q, point, goal]).astype(np.float32)


def goal_of(seed: int) -> np.ndarray:
    """The goal (3,) of an episode, metres, base frame."""
    return np.random.default_rng(seed).uniform(_LOW, _HIGH)


def start_of(seed: int) -> np.ndarray:
    """The joint positions (7,) at which an episode starts: near home."""
    return HOME + np.random.default_rng([seed, 1]).uniform(-0.1, 0.1, 7)


class ArmReach(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation (13,), see `observe`; action (A,) in [-1, 1], see `ActionSpace`. Reward is minus the distance in metres."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self, task: str = TASK, horizon: int = 60, space: Kind = "joint_delta", scale: float = 0.05, hz: int = 15,
        speed: float = 0.3, arm: str = "fr3", image_size: int = 96,
    ) -> None:  # fmt: skip
        if task.replace("_", "-") != TASK:
            raise InputError(f"ArmReach.task: got {task!r}, wanted {TASK!r}, its only task.\nSay task={TASK}.")
        if horizon < 1 or not 5 <= hz <= 50:
            raise InputError(f"ArmReach: got horizon={horizon}, hz={hz}, wanted horizon >= 1 and hz from 5 to 50.")
        self.task, self.horizon, self.image_size = TASK, horizon, image_size
        self.render_mode = "rgb_array"
        self.render_settings = {"height": image_size, "width": image_size, "drawing": "capsules"}
        self.space = ActionSpace(space, scale=scale, limits=ARMS[arm])
        self.observation_space = Box(-5.0, 5.0, (WIDTH,), np.float32)
        self.action_space = Box(-1.0, 1.0, (self.space.width,), np.float32)
        self._settings, self._workspace = Settings(speed=speed), Workspace()
        self._ticks = round(1 / (hz * DT))
        self._goal, self._elapsed, self._over = np.zeros(3), 0, True
        self._start(HOME)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`: the arm near home, the goal anywhere in front of it."""
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._goal = goal_of(episode)
        self._start(start_of(episode))
        self._elapsed, self._over = 0, False
        return self._observation(), {"success": False, "seed": episode}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One control period. `info` holds `success` and `reason`, the guard's bits of this step."""
        action = np.asarray(action, dtype=np.float64)
        if action.shape != (self.space.width,) or not np.isfinite(action).all():
            raise InputError(
                f"ArmReach.step: got action {action}, wanted {self.space.width} finite numbers in [-1, 1]."
            )
        if self._over:
            raise InputError("ArmReach.step: got a step after the episode's end. Call reset first.")
        now, dt = self._elapsed * self._ticks * DT, self._ticks * DT
        target, _ = self.space.target(action, self._guard._target, dt)
        reason = self._guard.receive(Command(1, self._elapsed, now, now, target=target, duration=dt), now)
        for tick in range(1, self._ticks + 1):
            reason |= self._guard.tick(now + tick * DT).reason
        self._elapsed += 1
        distance = float(np.linalg.norm(self._point() - self._goal))
        self._over = self._elapsed >= self.horizon
        info = {"success": distance <= RADIUS, "reason": int(reason)}
        return self._observation(), -distance, False, self._over, info

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here, (35,) float64."""
        guard, motion = self._guard, self._guard.motion
        flags = [float(self._elapsed), float(self._over)]
        flags += [float(guard._blocked), float(guard.state is State.RUNNING)]
        return np.concatenate([motion.q, motion.v, motion.a, guard._target, self._goal, flags])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state`. Returns its observation. Raises `InputError` on a wrong length."""
        state = np.asarray(state, dtype=np.float64)
        if state.shape != (35,):
            raise InputError(f"ArmReach.set_state: got shape {state.shape}, wanted (35,). Use one of get_state.")
        self._start(HOME)
        guard = self._guard
        guard.motion = Motion(state[:7].copy(), state[7:14].copy(), state[14:21].copy())
        guard._target = guard._from = state[21:28].copy()
        self._goal, self._elapsed, self._over = state[28:31].copy(), int(state[31]), bool(state[32])
        guard._blocked, guard.seq = bool(state[33]), self._elapsed - 1
        if state[34]:
            guard.state = State.RUNNING
            guard._valid = guard._since = (self._elapsed - 1) * self._ticks * DT
            guard._duration = self._ticks * DT
        return self._observation()

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """An action (A,) float32 that moves the grasp point straight towards the goal."""
        q, point, goal = (
            np.asarray(observation[part], dtype=np.float64) for part in (slice(7), slice(7, 10), slice(10, 13))
        )
        way = goal - point
        step = way * min(1.0, 0.04 / (float(np.linalg.norm(way)) + 1e-9))
        if self.space.kind == "ee_delta":
            return np.clip(step / self.space.scale, -1, 1).astype(np.float32)
        move = kinematics.solve_twist(q, np.concatenate([step, np.zeros(3)]), damping=0.1)
        if self.space.kind == "joint_velocity":
            return np.clip(move / (self.space.scale * self._ticks * DT), -1, 1).astype(np.float32)
        if self.space.kind == "joint_absolute":
            low, high = self.space.limits.stop_min + self.space.margin, self.space.limits.stop_max - self.space.margin
            return np.clip(2 * (q + move - low) / (high - low) - 1, -1, 1).astype(np.float32)
        return np.clip(move / self.space.scale, -1, 1).astype(np.float32)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (13,) as if the goal stood elsewhere by `offset` (3,), metres."""
        shifted = np.array(observation, dtype=np.float32)
        shifted[10:13] += np.asarray(offset, dtype=np.float32)
        return shifted

    def render(self, camera: str | None = None) -> np.ndarray:
        """Picture (image_size, image_size, 3) uint8 of the arm from the side, and of the goal; `side` is the only camera."""
        if camera not in (None, "side"):
            raise InputError(f"ArmReach.render: got camera {camera!r}, wanted 'side', its only one.")
        from .drawing import draw

        return draw(self._guard.motion.q, self._goal, self.image_size)

    def close(self) -> None:
        """Nothing to free."""

    def _start(self, q: np.ndarray) -> None:
        self._guard = Guard(self.space.limits, self._settings, self._workspace)
        self._guard.link(True, 0.0)
        self._guard.arm(1, q, 1, 0.0)

    def _point(self) -> np.ndarray:
        return kinematics.grasp_point(self._guard.motion.q)[:3, 3]

    def _observation(self) -> np.ndarray:
        return observe(self._guard.motion.q, self._goal)
