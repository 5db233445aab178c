"""Step rewards from entropic optimal transport between a segment and a good example (Haldar et al. 2022): r_t = -sum_j P_tj c_tj.

A step that the plan moves cheaply onto the example did what the example did. The rewards of a segment sum to minus its transport cost.
"""

from __future__ import annotations

import warnings

import numpy as np

from robopref.arrays import InputError


def plan(cost: np.ndarray, epsilon: float = 0.05) -> np.ndarray:
    """Entropic plan (T, T') between uniform marginals for a cost (T, T') >= 0; epsilon is relative to the mean cost.

    Raises `InputError` for an empty cost, NaN, or an epsilon that is not positive.
    """
    import ot

    if cost.ndim != 2 or 0 in cost.shape or not np.isfinite(cost).all() or epsilon <= 0:
        raise InputError(
            f"sinkhorn.plan: got a cost of shape {cost.shape} and epsilon={epsilon}, wanted finite costs (T, T') and epsilon > 0."
        )
    u, v = np.full(cost.shape[0], 1 / cost.shape[0]), np.full(cost.shape[1], 1 / cost.shape[1])
    scale = float(cost.mean())
    if scale <= 1e-12:
        return u[:, None] * v[None]
    with warnings.catch_warnings():  # a plan a hair off its marginals is good enough for a reward
        warnings.simplefilter("ignore")
        return np.asarray(
            ot.sinkhorn(u, v, cost / scale, epsilon, method="sinkhorn_log", numItermax=2000, stopThr=1e-7)
        )


def step_rewards(segment: np.ndarray, example: np.ndarray, epsilon: float = 0.05) -> np.ndarray:
    """Reward of each step of a segment (T, F) against an example (T', F), (T,), all <= 0: minus what it costs to move it there.

    Features are compared by Euclidean distance; standardise them first. Raises `InputError` for unequal widths.
    """
    from scipy.spatial.distance import cdist

    if segment.ndim != 2 or example.ndim != 2 or segment.shape[1] != example.shape[1]:
        raise InputError(
            f"step_rewards: got features {segment.shape} and {example.shape}, wanted (T, F) and (T', F) of one width."
        )
    cost = cdist(segment, example)
    return -(plan(cost, epsilon) * cost).sum(axis=1)
