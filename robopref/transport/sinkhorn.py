"""Step rewards from entropic optimal transport between a segment and a good example (Haldar et al. 2022): r_t = -sum_j P_tj c_tj.

A step that the plan moves cheaply onto the example did what the example did. The rewards of a segment sum to minus its transport cost.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from robopref.arrays import InputError

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING = 1e-30
"""Mass of padding inside the solver, whose logarithm must be finite."""


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


def plans(cost: Tensor, mask: Tensor | None = None, epsilon: float = 0.05, iterations: int = 50) -> Tensor:
    """Entropic plans (B, T, T') of a batch of costs (B, T, T') >= 0 between uniform marginals, in the log domain, with gradient.

    mask: real rows and columns, ((B, T), (B, T')) joined as (B, T + T'), 1 real and 0 padding; padding gets no mass. epsilon is relative to
    each problem's mean cost. A fixed number of iterations, so that no row's result depends on its neighbours. Peyre and Cuturi 2019, 4.4.
    """
    import torch
    from ot.batch import bregman_log_projection_batch

    batch, rows, columns = cost.shape
    live = torch.ones(batch, rows + columns, dtype=cost.dtype) if mask is None else mask.to(cost.dtype)
    left, right = (part / part.sum(dim=1, keepdim=True) for part in (live[:, :rows], live[:, rows:]))
    scale = torch.einsum("bij,bi,bj->b", cost, left, right).clamp(min=1e-12)
    made = bregman_log_projection_batch(
        -cost / (epsilon * scale[:, None, None]), left.clamp(min=_NOTHING), right.clamp(min=_NOTHING),
        max_iter=iterations, tol=0.0, grad="autodiff",
    )  # fmt: skip
    return made["T"] * live[:, :rows, None] * live[:, None, rows:]


def diagonality(plan: Tensor) -> Tensor:
    """How far plans (B, T, T') run along the diagonal, (B,): 1 all mass on it, 0 spread as a uniform plan spreads it, below 0 against it.

    1 - E|x - y| for relative times x, y in [0, 1] drawn from the plan, over the same for independent uniform times.
    """
    import torch

    rows, columns = (torch.linspace(0, 1, n, dtype=plan.dtype) for n in plan.shape[1:])
    gap = (rows[:, None] - columns[None]).abs()
    even = gap.mean().clamp(min=1e-12)
    return 1 - (plan * gap).sum(dim=(1, 2)) / plan.sum(dim=(1, 2)).clamp(min=1e-12) / even


def concentration(plan: Tensor) -> Tensor:
    """1 - entropy of plans (B, T, T') relative to the uniform plan's, on the scale from one-to-one (1) to uniform (0): (B,)."""
    rows, columns = plan.shape[1:]
    mass = plan / plan.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    entropy = -(mass * mass.clamp(min=1e-12).log()).sum(dim=(1, 2))
    most, least = np.log(rows * columns), np.log(max(rows, columns))
    return (most - entropy) / max(most - least, 1e-12)
