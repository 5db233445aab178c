"""Numpy-level nouns: what an episode is before any tensor exists. No torch import here.

Axis letters, package-wide: N pairs, B batch, T time, H chunk length, E executed steps, A action, D observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


class InputError(ValueError):
    """A request that cannot be met as asked: what was got, what was wanted, what to do. The command exits with 2."""


def check_shape(owner: str, name: str, got: tuple[int, ...], wanted: tuple[int | None, ...], do: str) -> None:
    """Raise `InputError` unless `got` matches `wanted`, where None stands for any length."""
    same = len(got) == len(wanted)
    for length, limit in zip(got, wanted, strict=False):  # a plain loop: this runs several times in every training step
        same = same and (limit is None or length == limit)
    if not same:
        shown = tuple("any" if w is None else w for w in wanted)
        raise InputError(f"{owner}.{name}: got shape {got}, wanted {shown}. {do}")


@dataclass(frozen=True)
class Trajectory:
    """One episode, or a window of one. Row t holds what was seen before action t and what followed it."""

    observation: np.ndarray
    """(T, D) float32, the state the policy saw before action t."""
    action: np.ndarray
    """(T, A) float32, the action that was executed."""
    reward: np.ndarray
    """(T,) float32, the simulator's reward after action t (for teachers and reports, never for training)."""
    success: np.ndarray
    """(T,) bool, whether the simulator reported success after action t."""
    task: str = ""
    """Task name, for example `drawer-open-v3`."""
    seed: int = -1
    """Reset seed of the episode; trajectories with equal (env, task, seed) start alike."""
    policy: str = ""
    """Who acted: a policy folder's fingerprint or the name of a scripted behaviour."""
    env: str = ""
    """Environment id, for example `metaworld`."""
    sim_state: np.ndarray | None = None
    """(T, S) float64, full simulator state before action t, or None."""
    chunk: np.ndarray | None = None
    """(T, H, A) float32, the chunk predicted at step t (zeros where none was), or None if no policy acted."""
    executed: np.ndarray | None = None
    """(T, H) bool, which steps of that chunk ran; all False at steps where nothing was predicted."""
    images: Mapping[str, np.ndarray] = field(default_factory=dict)
    """camera -> (T, height, width, 3) uint8, upright."""
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    """name -> (T, K) float32 further per-step features, for example `expert_action`."""
    sentence: str = ""
    """What the actor was asked to do, in words; empty where nobody was asked."""

    def __post_init__(self) -> None:
        do = "Every per-step array of a trajectory must have the same length T."
        check_shape("Trajectory", "observation", self.observation.shape, (None, None), do)
        steps = len(self.observation)
        if steps == 0:
            raise InputError("Trajectory: got 0 steps, wanted at least 1. Drop empty episodes before storing them.")
        check_shape("Trajectory", "action", self.action.shape, (steps, None), do)
        check_shape("Trajectory", "reward", self.reward.shape, (steps,), do)
        check_shape("Trajectory", "success", self.success.shape, (steps,), do)
        if self.sim_state is not None:
            check_shape("Trajectory", "sim_state", self.sim_state.shape, (steps, None), do)
        if (self.chunk is None) != (self.executed is None):
            raise InputError(
                "Trajectory: got only one of chunk and executed, wanted both or neither. Give both or drop it."
            )
        if self.chunk is not None and self.executed is not None:
            check_shape("Trajectory", "chunk", self.chunk.shape, (steps, None, self.action.shape[1]), do)
            check_shape("Trajectory", "executed", self.executed.shape, (steps, self.chunk.shape[1]), do)
        for name, image in self.images.items():
            check_shape("Trajectory", f"images[{name}]", image.shape, (steps, None, None, 3), do)
        for name, value in self.extra.items():
            check_shape("Trajectory", f"extra[{name}]", value.shape, (steps, None), do)
        for name in ("observation", "action"):
            if not np.isfinite(getattr(self, name)).all():
                raise InputError(f"Trajectory.{name}: got NaN or infinity, wanted finite numbers. Drop that episode.")

    def __len__(self) -> int:
        return len(self.observation)

    @property
    def succeeded(self) -> bool:
        """Whether any step reported success (the package-wide meaning of a successful episode)."""
        return bool(self.success.any())

    def window(self, start: int, end: int) -> Trajectory:
        """The half-open window [start, end) as a trajectory of its own. Raises `InputError` outside the episode."""
        if not 0 <= start < end <= len(self):
            raise InputError(f"Trajectory.window: got [{start}, {end}), wanted a window inside [0, {len(self)}).")
        cut = slice(start, end)

        def part(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[cut]

        return Trajectory(
            self.observation[cut], self.action[cut], self.reward[cut], self.success[cut],
            self.task, self.seed, self.policy, self.env,
            part(self.sim_state), part(self.chunk), part(self.executed),
            {k: v[cut] for k, v in self.images.items()}, {k: v[cut] for k, v in self.extra.items()}, self.sentence,
        )  # fmt: skip
