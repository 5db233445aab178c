"""Distances between the trajectories of one task, in features that mean the same in every task.

Meta-World's observation: hand 0:3, gripper 3, object 4:7, goal 36:39. Task-relative quantities per step are |hand - object|,
|object - goal| and |object - its start|. `relative` takes them as they are; `closeness` (the default) as tasks judge them: how close hand and
object, and object and goal, are on the scale at which the task begins, and which share of its way the object has moved. Every feature is
divided by its own deviation over all trajectories and times of the task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robopref.arrays import InputError, Trajectory

HAND, OBJECT, GOAL = slice(0, 3), slice(4, 7), slice(36, 39)
FEATURES = ("closeness", "relative", "raw")
NEAR = 0.3
"""Closeness falls to 1/e at this share of the distance at the start."""
STILL = 1e-5
"""A feature that deviates less than this is constant: what is left is rounding, and must not be blown up to unit size."""
LEAST = 0.02
"""Metres: tasks that begin at their goal have no scale of their own."""


def features(trajectories: Sequence[Trajectory], kind: str = "closeness", every: int = 10) -> np.ndarray:
    """One row of features per trajectory, (N, F): every `every`-th step, flattened; shorter ones end with their last step repeated.

    kind: `closeness` or `relative` (task-relative, see above) or `raw` (standardised observations and actions, the baseline).
    Raises `InputError` for an unknown kind, no trajectory, or observations that are not Meta-World's where that is needed.
    """
    if kind not in FEATURES:
        raise InputError(f"features: got {kind!r}, wanted one of {', '.join(FEATURES)}.")
    if not trajectories:
        raise InputError("features: got no trajectory, wanted at least one.")
    if kind == "raw":
        made = [np.hstack([t.observation, t.action]) for t in trajectories]
    else:
        made = [relative(t.observation) for t in trajectories]
        made = closeness(made) if kind == "closeness" else made
    longest = max(map(len, made))
    steps = np.arange(0, longest, every)
    rows = np.stack([one[np.minimum(steps, len(one) - 1)] for one in made])  # (N, T', F)
    scale = rows.std(axis=(0, 1))
    rows = rows / np.where(scale > STILL, scale, 1.0)
    return rows.reshape(len(rows), -1)


def relative(observation: np.ndarray) -> np.ndarray:
    """|hand - object|, |object - goal|, |object - its start| of every step: (T, D) -> (T, 3)."""
    if observation.shape[1] < GOAL.stop:
        raise InputError(
            f"features(relative): got observations of width {observation.shape[1]}, wanted Meta-World's 39. "
            "Say labeler.features=raw, or give distances of your own."
        )
    hand, thing, goal = observation[:, HAND], observation[:, OBJECT], observation[:, GOAL]
    gaps = (hand - thing, thing - goal, thing - thing[:1])
    return np.stack([np.linalg.norm(gap, axis=1) for gap in gaps], axis=1).astype(np.float64)


def closeness(gaps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Gaps of all trajectories of a task, each (T, 3), as closeness and progress in about [0, 1], each (T, 3)."""
    reach = NEAR * float(np.median([g[0, 0] for g in gaps])) + LEAST
    way = float(np.median([g[0, 1] for g in gaps]))
    return [
        np.stack(
            [
                np.exp(-g[:, 0] / reach),
                np.exp(-g[:, 1] / (NEAR * way + LEAST)),
                np.clip(g[:, 2] / max(way, LEAST), 0, 1.5),
            ],
            axis=1,
        )
        for g in gaps
    ]


def pairwise(rows: np.ndarray) -> np.ndarray:
    """Euclidean distances between rows (N, F), divided by the largest: (N, N). All zero where all rows are equal."""
    from scipy.spatial.distance import cdist

    found = cdist(rows, rows)
    return found / max(found.max(), 1e-12)
