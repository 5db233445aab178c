"""A manipulation task with a preference that one can see: success alone does not say how good an episode was.

The mark (see `visible_preferences`) is drawn into the picture and pushes nothing. The reward of a step is how close hand or object is to
the goal, less what breaks the preference: an episode's return is the hidden preference score, for teachers and evaluation only.
An action is held for `repeat` steps of the simulator, so that an episode is as many pictures as it has steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from robopref.arrays import InputError

from .rendering import Mark, Rod
from .visible_preferences import preference as known

SHORTEST = 0.16
"""A way shorter than this has no room for a mark: it then stands on the way from the object to the goal."""
_EXTRA = 7
"""Numbers that `get_state` adds: mark, record, distance at the start, care, elapsed, over."""


class Base(Protocol):
    """What is wrapped: an environment that says where hand, object and goal are, and draws marks."""

    task: str
    horizon: int
    observation_space: Any
    action_space: Any
    forward: np.ndarray
    """(2,) unit vector in the plane of the table, away from the robot."""

    @property
    def render_settings(self) -> dict[str, Any]: ...
    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]: ...
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]: ...
    def get_state(self) -> np.ndarray: ...
    def set_state(self, state: np.ndarray) -> np.ndarray: ...
    def expert(self, observation: np.ndarray) -> np.ndarray: ...
    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray: ...
    def places(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hand, what has to get to the goal (the hand itself or an object), and goal, (3,) each."""

    def render(self, camera: str | None = None, drawn: Sequence[Mark | Rod] = ()) -> np.ndarray: ...
    def close(self) -> None: ...


class Preferred(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observation: the base's, then mark xy and record; action as the base's. `reset(options={"care": c})` says how carefully the expert acts."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, base: Base, preference: str = "avoid", horizon: int = 32, repeat: int = 3) -> None:
        if repeat < 1 or horizon < 1 or horizon * repeat > base.horizon:
            raise InputError(
                f"Preferred: got horizon={horizon} and repeat={repeat}, wanted both >= 1 and at most {base.horizon} steps together."
            )
        self._base, self._preference = base, known(preference)
        self.task, self.horizon, self.repeat = f"{base.task}-{preference.replace('_', '-')}", horizon, repeat
        self.render_mode = "rgb_array"
        low, high = base.observation_space.low, base.observation_space.high
        more = (np.full(2, -10, np.float32), np.full(2, 10, np.float32))
        self.observation_space = Box(np.r_[low, more[0], 0.0], np.r_[high, more[1], 1.0], dtype=np.float32)
        self.action_space = base.action_space
        self._mark, self._record, self._way, self._care = np.zeros(2), 0.0, 1.0, 1.0
        self._elapsed, self._over = 0, True
        self._seen = np.zeros(base.observation_space.shape, dtype=np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode of `seed`. options: `care`, from 0 to 1, changes what `expert` does and nothing else."""
        super().reset(seed=None if seed is None else int(seed))
        episode = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self._care = float((options or {}).get("care", 1.0))
        if not 0 <= self._care <= 1:
            raise InputError(f"reset.options.care: got {self._care}, wanted a number from 0 to 1.")
        self._seen, _ = self._base.reset(seed=episode)
        hand, moved, goal = self._base.places(self._seen)
        begin, end = (hand, moved) if np.hypot(*(moved - hand)[:2]) > SHORTEST else (moved, goal)
        self._mark = self._preference.place(begin, end, self._base.forward, np.random.default_rng([episode, 41]))
        self._record = self._preference.record(hand, self._mark, self._preference.begin)
        self._way = max(float(np.linalg.norm(goal - moved)), 1e-3)
        self._elapsed, self._over = 0, False
        return self._observation(), {"success": False, "seed": episode}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Hold an action for `repeat` steps. Raises `InputError` after the episode's end and as the base does."""
        if self._over:
            raise InputError(f"Preferred.step: got a step after the episode's end ({self.task}). Call reset first.")
        success, faults = False, []
        for _ in range(self.repeat):
            self._seen, _, _, _, info = self._base.step(action)
            success = success or bool(info["success"])
            hand, moved, goal = self._base.places(self._seen)
            self._record = self._preference.record(hand, self._mark, self._record)
            self._mark = self._preference.moved(hand, self._mark, self._record)
            faults.append(self._preference.fault(hand, self._mark, self._record))
        closeness = 1 - min(1.0, float(np.linalg.norm(goal - moved)) / self._way)
        reward = closeness - self._preference.weight * float(np.mean(faults))
        self._elapsed += 1
        self._over = self._elapsed >= self.horizon
        return self._observation(), reward, False, self._over, {"success": success}

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """The base's expert (A,) float32 in [-1, 1], bent so that it minds the preference as far as `care` says."""
        width = len(self._seen)
        action = np.array(self._base.expert(observation[:width]), dtype=np.float32)
        hand, _, _ = self._base.places(observation[:width])
        mark, record = np.asarray(observation[width : width + 2], dtype=np.float64), float(observation[-1])
        action[:2] = self._preference.bend(action[:2].astype(np.float64), hand, mark, record, self._care)
        return np.clip(action, -1, 1)

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation as if object and goal stood elsewhere by `offset` (3,), in metres; the mark stays."""
        width = len(self._seen)
        return np.concatenate([self._base.goal_shift(observation[:width], offset), observation[width:]])

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here, (S,) float64."""
        own = [*self._mark, self._record, self._way, self._care, self._elapsed, self._over]
        return np.concatenate([np.array(own, dtype=np.float64), self._base.get_state()])

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Continue from a vector of `get_state`. Returns its observation."""
        state = np.asarray(state, dtype=np.float64)
        self._seen = self._base.set_state(state[_EXTRA:])
        self._mark, (self._record, self._way, self._care) = state[:2].copy(), state[2:5].tolist()
        self._elapsed, self._over = int(state[5]), bool(state[6])
        return self._observation()

    @property
    def render_settings(self) -> Mapping[str, Any]:
        """What determines the pixels besides the state."""
        return {**self._base.render_settings, "marks": self.task}

    def render(self, camera: str | None = None) -> np.ndarray:
        """Upright picture (height, width, 3) uint8 with the mark in it."""
        return self._base.render(camera, [self._preference.drawn(self._mark)])

    def close(self) -> None:
        """Free the renderer, if one was made."""
        self._base.close()

    def _observation(self) -> np.ndarray:
        return np.concatenate([self._seen, self._mark, [self._record]]).astype(np.float32)
