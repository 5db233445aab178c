"""Point mass: reach the goal, go around the hazard. A task of one second, without a simulator, for tests and teaching.

A point in the square [-1, 1]^2 starts on the left, the goal lies on the right, a round hazard lies between them. Going
straight is short and bad, going around is good: a preference that everybody shares and a return alone can hide.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

TASK = "point-mass"
CAMERA = "top"
"""The only camera: it looks from above."""
STEP = 0.08
"""Metres a full action moves the point per step; a real step also keeps some of the last velocity."""
INERTIA = 0.4
GOAL_RADIUS = 0.12
HAZARD_RADIUS = 0.3
CLEARANCE = 0.06
"""Metres by which the expert stays away from the hazard's edge."""
_POSITION, _VELOCITY, _GOAL, _HAZARD = slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)


class PointMass(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation (8,) float32: position, velocity, goal, hazard centre (2 each); action (2,) in [-1, 1].

    Reward is minus the distance to the goal, minus 2 within the hazard; `info` holds `success` (within 0.12 m of the
    goal), `hazard` (inside it now) and the same as a number, `cost`. `reset(options={"care": c})` says how far the expert minds the hazard.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, task: str = "point-mass", horizon: int = 40, terminate_on_success: bool = False, image_size: int = 96
    ) -> None:
        if task.replace("_", "-") != TASK:
            raise InputError(f"PointMass.task: got {task!r}, wanted {TASK!r}, its only task.\nSay task={TASK}.")
        if horizon < 1:
            raise InputError(f"PointMass.horizon: got {horizon}, wanted at least 1 step.")
        self.task = TASK
        self.horizon = horizon
        self.terminate_on_success = terminate_on_success
        self.image_size = image_size
        self.render_mode = "rgb_array"
        self.render_settings = {"height": image_size, "width": image_size, "drawing": "numpy"}
        self.observation_space = Box(-2.0, 2.0, (8,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self._world = np.zeros(8)
        self._elapsed = 0
        self._care = 1.0
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`. options: `care`, from 0 to 1, by how much of its radius the expert goes around the hazard.

        Returns the observation (8,) and `info`. Raises `InputError` for another care.
        """
        self._care = float((options or {}).get("care", 1.0))
        if not 0 <= self._care <= 1:
            raise InputError(f"PointMass.reset: got care {self._care}, wanted a number from 0 to 1.")
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        draw = np.random.default_rng(episode)
        start = np.array([-0.8, draw.uniform(-0.4, 0.4)])
        goal = np.array([0.8, draw.uniform(-0.4, 0.4)])
        # The hazard touches the straight way; which side is shorter is drawn, and never a close call.
        middle = start + draw.uniform(0.4, 0.6) * (goal - start)
        side = draw.choice([-1.0, 1.0]) * draw.uniform(0.05, 0.2)
        self._world = np.concatenate([start, np.zeros(2), goal, middle + np.array([0.0, side])])
        self._elapsed, self._over = 0, False
        return self._observation(), {"success": False, "hazard": self._inside(), "seed": episode}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply an action (2,), clipped to [-1, 1]. Raises `InputError` for a wrong shape, NaN or a finished episode."""
        push = np.asarray(action, dtype=np.float64)
        if push.shape != (2,) or not math.isfinite(push[0] + push[1]):
            raise InputError(f"PointMass.step: got action {action}, wanted two finite numbers in [-1, 1].")
        if self._over:
            raise InputError("PointMass.step: got a step after the episode's end. Call reset first.")
        x, y, speed_x, speed_y, goal_x, goal_y = self._world[:6].tolist()
        push_x, push_y = push.tolist()
        speed_x = INERTIA * speed_x + (1 - INERTIA) * STEP * min(max(push_x, -1.0), 1.0)
        speed_y = INERTIA * speed_y + (1 - INERTIA) * STEP * min(max(push_y, -1.0), 1.0)
        x, y = min(max(x + speed_x, -1.0), 1.0), min(max(y + speed_y, -1.0), 1.0)
        self._world[:4] = (x, y, speed_x, speed_y)
        self._elapsed += 1
        distance = math.hypot(goal_x - x, goal_y - y)
        success, hazard = distance <= GOAL_RADIUS, self._inside()
        terminated = self.terminate_on_success and success
        truncated = self._elapsed >= self.horizon
        self._over = terminated or truncated
        info = {"success": success, "hazard": hazard, "cost": float(hazard)}
        return self._observation(), -distance - 2.0 * hazard, terminated, truncated, info

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here, (10,) float64."""
        return np.concatenate([self._world, [float(self._elapsed), float(self._over)]])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state`. Returns its observation (8,). Raises `InputError` on a wrong length."""
        state = np.asarray(state, dtype=np.float64)
        if state.shape != (10,):
            raise InputError(f"PointMass.set_state: got shape {state.shape}, wanted (10,). Use one of get_state.")
        self._world, self._elapsed, self._over = state[:8].copy(), int(state[8]), bool(state[9])
        return self._observation()

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """An action (2,) float32 that goes straight to the goal where that is safe, else past the hazard's near side."""
        world = np.asarray(observation, dtype=np.float64)
        position, goal, hazard = world[_POSITION], world[_GOAL], world[_HAZARD]
        target = goal
        way = goal - position
        length = float(np.hypot(*way)) + 1e-9
        along = float((hazard - position) @ way) / length
        across = float(way[0] * (hazard - position)[1] - way[1] * (hazard - position)[0]) / length
        safe = self._care * (HAZARD_RADIUS + CLEARANCE)
        if 0.0 < along < length and abs(across) < safe:
            left = np.array([-way[1], way[0]]) / length
            target = hazard + (-left if across >= 0 else left) * (safe + CLEARANCE)
        # Full speed until close, and against the velocity that is left over.
        wish = (target - position - INERTIA * world[_VELOCITY]) / ((1 - INERTIA) * STEP)
        near = target is goal and float(np.hypot(*wish)) < 1.0
        wish = wish if near else wish / max(1.0, float(np.abs(wish).max()))
        return np.clip(wish, -1.0, 1.0).astype(np.float32)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (8,) as if the goal stood elsewhere by the first two numbers of `offset`, in metres."""
        shifted = np.array(observation, dtype=np.float32)
        shifted[_GOAL] += np.asarray(offset)[:2]
        return shifted

    def render(self, camera: str | None = None) -> np.ndarray:
        """Picture (image_size, image_size, 3) uint8: hazard red, goal green, point blue, y upwards."""
        if camera not in (None, CAMERA):
            raise InputError(f"PointMass.render: got camera {camera!r}, wanted {CAMERA!r}, its only one.")
        at = np.linspace(-1.1, 1.1, self.image_size)
        x, y = np.meshgrid(at, at[::-1])
        picture = np.full((self.image_size, self.image_size, 3), 245, dtype=np.uint8)
        for where, radius, colour in (
            (_HAZARD, HAZARD_RADIUS, (214, 73, 62)),
            (_GOAL, GOAL_RADIUS, (70, 160, 90)),
            (_POSITION, 0.06, (45, 85, 170)),
        ):
            centre = self._world[where]
            picture[np.hypot(x - centre[0], y - centre[1]) <= radius] = colour
        return picture

    def close(self) -> None:
        """Nothing to free."""

    def _inside(self) -> bool:
        return math.dist(self._world[_HAZARD].tolist(), self._world[_POSITION].tolist()) <= HAZARD_RADIUS

    def _observation(self) -> np.ndarray:
        return self._world.astype(np.float32)
