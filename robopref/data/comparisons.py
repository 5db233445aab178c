"""Comparisons that came from elsewhere: pairs of segments with a known direction, who shares frames with whom, and what overlaps.

Two segments that share a frame are of one demonstration; pairs linked by shared frames form a component. Cross-validation that keeps
components (or demonstrations) whole is free of leaks; splitting by pair is not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from robopref.arrays import InputError, check_shape
from robopref.types import PreferenceBatch, Segments


@dataclass(frozen=True)
class Comparisons:
    """N pairs of segments. `prob_first` = P(first preferred), 0.5 a tie."""

    first_observation: np.ndarray
    """(N, T, D) float32."""
    first_action: np.ndarray
    """(N, T, A) float32."""
    second_observation: np.ndarray
    second_action: np.ndarray
    prob_first: np.ndarray
    """(N,) float64 in [0, 1]."""

    def __post_init__(self) -> None:
        do = "Both sides of a comparison have the same number of steps and the same dimensions."
        pairs, steps = len(self.prob_first), self.first_action.shape[1] if self.first_action.ndim == 3 else None
        if pairs == 0:
            raise InputError("Comparisons: got no pair, wanted at least one.")
        check_shape("Comparisons", "prob_first", self.prob_first.shape, (pairs,), do)
        check_shape("Comparisons", "first_action", self.first_action.shape, (pairs, None, None), do)
        check_shape("Comparisons", "first_observation", self.first_observation.shape, (pairs, steps, None), do)
        check_shape(
            "Comparisons", "second_observation", self.second_observation.shape, self.first_observation.shape, do
        )
        check_shape("Comparisons", "second_action", self.second_action.shape, self.first_action.shape, do)
        arrays = (self.first_observation, self.first_action, self.second_observation, self.second_action)
        if not all(np.isfinite(a).all() for a in arrays):
            raise InputError("Comparisons: got NaN or infinity in a segment, wanted numbers. Drop those pairs.")
        if not ((self.prob_first >= 0) & (self.prob_first <= 1)).all():
            raise InputError("Comparisons.prob_first: got a label outside [0, 1]. Convert the labels at the door.")

    def __len__(self) -> int:
        return len(self.prob_first)

    def __getitem__(self, rows: np.ndarray) -> Comparisons:
        return Comparisons(
            self.first_observation[rows], self.first_action[rows], self.second_observation[rows],
            self.second_action[rows], self.prob_first[rows],
        )  # fmt: skip

    def batch(self) -> PreferenceBatch:
        """All pairs as tensors, each with weight 1."""
        mask = torch.ones(self.first_action.shape[:2])
        first, second = (
            Segments(torch.from_numpy(o.astype(np.float32)), torch.from_numpy(a.astype(np.float32)), mask)
            for o, a in (
                (self.first_observation, self.first_action),
                (self.second_observation, self.second_action),
            )
        )
        return PreferenceBatch(
            first, second, torch.from_numpy(self.prob_first.astype(np.float32)), torch.ones(len(self))
        )

    def demonstrations(self) -> np.ndarray:
        """Which demonstration each segment is from, (2, N): segments that share a frame are of one, and numbered alike."""
        observation = np.concatenate([self.first_observation, self.second_observation])  # (2N, T, D)
        frames = np.ascontiguousarray(observation.reshape(-1, observation.shape[-1]))
        _, name = np.unique(
            frames.view(np.dtype((np.void, frames.itemsize * frames.shape[1]))).ravel(), return_inverse=True
        )
        segment = np.repeat(np.arange(len(observation)), observation.shape[1])
        return _components(len(observation), segment, name).reshape(2, -1)

    def components(self) -> np.ndarray:
        """Which component each pair is of, (N,): pairs linked by shared demonstrations are of one."""
        demonstration = self.demonstrations()
        pair = np.arange(len(self))
        return _components(len(self), np.concatenate([pair, pair]), demonstration.ravel())

    def hashes(self) -> list[str]:
        """sha256 of each pair's contents, the same whichever side is first."""
        sides = [
            [hashlib.sha256(o.tobytes() + a.tobytes()).hexdigest() for o, a in zip(obs, act, strict=True)]
            for obs, act in ((self.first_observation, self.first_action), (self.second_observation, self.second_action))
        ]
        return ["".join(sorted(pair)) for pair in zip(*sides, strict=True)]


def check_disjoint(train: Comparisons, judged: Comparisons) -> None:
    """Raise `InputError` when a pair, in either order, is in both: a score on such pairs says nothing."""
    shared = set(train.hashes()) & set(judged.hashes())
    if shared:
        raise InputError(
            f"comparisons: got {len(shared)} of {len(judged)} evaluation pairs that are in the training pairs too, wanted none.\n"
            "Cross-validate over one of the two files instead."
        )


def _components(count: int, member: np.ndarray, name: np.ndarray) -> np.ndarray:
    """Connected components of `count` things that are linked where they carry the same name: (count,), numbered from 0."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = int(name.max()) + 1
    links = coo_matrix((np.ones(len(member)), (member, count + name)), shape=(count + size, count + size))
    labels = connected_components(links, directed=False)[1][:count]
    return np.unique(labels, return_inverse=True)[1]
