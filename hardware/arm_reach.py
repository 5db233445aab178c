"""A task of a Franka arm alone: the same view (what is seen, what actions mean) and guard in this one-process simulation and on the real chain.

Each step is one command through the guard and as many of its millisecond steps as a control period has; the arm is where the guard says
(what a stiff controller does), the hand as wide. Objects lie still. `views.View` says what a policy sees here and on the robot.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

from .command import Command
from .guard import Guard, Settings
from .limiter import Motion
from .limits import DT
from .reasons import State
from .views import HOME, Reach, Sensed, View, goal_of, observe, opening_of, start_of
from .workspace import Workspace

__all__ = ["HOME", "ArmReach", "goal_of", "observe", "start_of"]

TASK = "arm-reach"
_STATE = 45


class ArmReach(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation (D,) and action (A,) in [-1, 1] as the view `robot` has them (default `views.Reach`). Reward is minus the distance in metres."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012

    def __init__(
        self, task: str = TASK, horizon: int = 60, robot: View | None = None, hz: int = 15, speed: float = 0.3,
        image_size: int = 96,
    ) -> None:  # fmt: skip
        if task.replace("_", "-") != TASK:
            raise InputError(f"ArmReach.task: got {task!r}, wanted {TASK!r}, its only task.\nSay task={TASK}.")
        if horizon < 1 or not 5 <= hz <= 50:
            raise InputError(f"ArmReach: got horizon={horizon}, hz={hz}, wanted horizon >= 1 and hz from 5 to 50.")
        self.task, self.horizon, self.image_size = TASK, horizon, image_size
        self.render_mode = "rgb_array"
        self.render_settings = {"height": image_size, "width": image_size, "drawing": "capsules"}
        self.view: View = robot or Reach()
        self.space = self.view.space
        self.observation_space = Box(-5.0, 5.0, (self.view.width,), np.float32)
        self.action_space = Box(-1.0, 1.0, (self.space.width,), np.float32)
        self._settings, self._workspace = Settings(speed=speed), Workspace()
        self._ticks = round(1 / (hz * DT))
        self._goal, self._elapsed, self._over = np.zeros(3), 0, True
        self._objects, self._before = self.view.resting(), (HOME, 1.0)
        self._start(HOME)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed` where the view says, the hand open."""
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._goal = self.view.goal_of(episode)
        self._start(self.view.start_of(episode))
        self._before = self._body()
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
        target, width = self.space.target(action, self._guard._target, dt)
        self._before = self._body()
        command = Command(1, self._elapsed, now, now, target=target, gripper=width, duration=dt)
        reason = self._guard.receive(command, now)
        for tick in range(1, self._ticks + 1):
            reason |= self._guard.tick(now + tick * DT).reason
        self._elapsed += 1
        distance = self.view.distance(self._sensed())
        self._over = self._elapsed >= self.horizon
        info = {"success": distance <= self.view.radius, "reason": int(reason)}
        return self._observation(), -distance, False, self._over, info

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here, (45,) float64."""
        guard, motion = self._guard, self._guard.motion
        flags = [float(self._elapsed), float(self._over)]
        flags += [float(guard._blocked), float(guard.state is State.RUNNING)]
        hand = [guard.gripper, guard._grip_target, self._before[1]]
        return np.concatenate([motion.q, motion.v, motion.a, guard._target, self._goal, flags, hand, self._before[0]])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state`. Returns its observation. Raises `InputError` on a wrong length."""
        state = np.asarray(state, dtype=np.float64)
        if state.shape != (_STATE,):
            raise InputError(f"ArmReach.set_state: got shape {state.shape}, wanted ({_STATE},). Use one of get_state.")
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
        guard.gripper, guard._grip_target = float(state[35]), float(state[36])
        self._before = state[38:45].copy(), float(state[37])
        return self._observation()

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """An action (A,) float32 that moves the hand straight towards the goal."""
        return self.view.expert(observation, self._ticks * DT)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (D,) as if the goal stood elsewhere by `offset` (3,), metres."""
        return self.view.shift(observation, offset)

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

    def _body(self) -> tuple[np.ndarray, float]:
        return self._guard.motion.q.copy(), opening_of(self._guard.gripper)

    def _sensed(self) -> Sensed:
        before = Sensed(self._before[0], self._goal, self._before[1], self._objects)
        q, opening = self._body()
        return Sensed(q, self._goal, opening, self._objects, before)

    def _observation(self) -> np.ndarray:
        return self.view.observe(self._sensed())
