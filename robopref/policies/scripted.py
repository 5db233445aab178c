"""Scripted behaviour with named imperfections: demonstrations of a teacher who does not always do it right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError
from robopref.protocols import Environment


@dataclass(frozen=True)
class Imperfection:
    """How a scripted episode deviates from the expert. The default deviates in nothing."""

    action_noise: float = 0.0
    """Standard deviation of Gaussian noise on every action."""
    bias: float = 0.0
    """Length of a constant action offset in a random direction, drawn once an episode."""
    stop: float = 0.0
    """Probability that the arm stops acting at a random time in the first half of the horizon."""
    burst: float = 0.0
    """Probability per step that a burst of 10 random actions begins."""
    wrong_goal: float = 0.0
    """Distance in metres by which the expert misjudges where object and goal are, in a random horizontal direction."""
    random: float = 0.0
    """Probability that the whole episode is random actions."""
    late: float = 0.0
    """Probability that the arm only trembles until a random time in the first three quarters of the horizon."""
    quit: float = 0.0
    """Probability that it only trembles from a random time in the first half on (with `stop` it would fall still instead)."""
    noise_spread: float = 1.0
    """The episode's noise is multiplied by a factor between 1 / this and this, drawn once: then noise says nothing about quality."""

    pace: float = 1.0
    """Actions are scaled by this before noise: below 1 the arm does the same slowly."""

    def __post_init__(self) -> None:
        if not 0 < self.pace <= 1:
            raise InputError(f"Imperfection.pace: got {self.pace}, wanted a factor above 0 and at most 1.")
        for name in ("stop", "burst", "random", "late", "quit"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Imperfection.{name}: got {getattr(self, name)}, wanted a probability in [0, 1].")
        for name in ("action_noise", "bias", "wrong_goal"):
            if getattr(self, name) < 0:
                raise InputError(f"Imperfection.{name}: got {getattr(self, name)}, wanted a size >= 0.")
        if self.noise_spread < 1:
            raise InputError(f"Imperfection.noise_spread: got {self.noise_spread}, wanted a factor >= 1.")


class Scripted:
    """One episode of the scripted expert with an imperfection; construct a new one per episode."""

    def __init__(self, env: Environment, imperfection: Imperfection, rng: np.random.Generator) -> None:
        self._env, self._imperfection, self._rng = env, imperfection, rng
        width = env.action_space.shape[0]
        direction = rng.normal(size=width)
        self._bias = imperfection.bias * direction / np.linalg.norm(direction)
        angle = rng.uniform(0, 2 * np.pi)
        self._offset = imperfection.wrong_goal * np.array([np.cos(angle), np.sin(angle), 0.0])
        stops = rng.uniform() < imperfection.stop
        self._stop_at = int(rng.integers(0, env.horizon // 2)) if stops else env.horizon + 1
        self._all_random = rng.uniform() < imperfection.random
        self._burst_left, self._step = 0, 0
        # Drawn last and only where asked for, so that episodes without them stay what they were.
        self._begin_at, self._quit_at, self._noise = 0, env.horizon + 1, imperfection.action_noise
        if imperfection.late and rng.uniform() < imperfection.late:
            self._begin_at = int(rng.integers(0, 3 * env.horizon // 4))
        if imperfection.quit and rng.uniform() < imperfection.quit:
            self._quit_at = self._begin_at + int(rng.integers(0, env.horizon // 2))
        if imperfection.noise_spread > 1:
            self._noise *= float(imperfection.noise_spread ** rng.uniform(-1, 1))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The next action (A,) in [-1, 1] for an observation (D,)."""
        step, self._step = self._step, self._step + 1
        if self._burst_left == 0 and self._rng.uniform() < self._imperfection.burst:
            self._burst_left = 10
        if self._all_random or self._burst_left > 0:
            self._burst_left = max(self._burst_left - 1, 0)
            return self._rng.uniform(-1, 1, size=len(self._bias)).astype(np.float32)
        if step >= self._stop_at:
            return np.zeros(len(self._bias), dtype=np.float32)
        seen = self._env.goal_shift(observation, self._offset) if self._imperfection.wrong_goal else observation
        purpose = self._begin_at <= step < self._quit_at
        action = self._imperfection.pace * self._env.expert(seen) + self._bias if purpose else np.zeros(len(self._bias))
        action = action + self._noise * self._rng.normal(size=len(action))
        return np.clip(action, -1, 1).astype(np.float32)
