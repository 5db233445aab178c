"""Losses on lists of G rollouts of one reset: (rho (B, G), grade (B, G), mask (B, G)) -> (B,). A higher grade is better.

mask is 1 at real entries, 0 at padding; every list needs two real entries. Lists may come in any order.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError, check_shape


def plackett_luce(rho: Tensor, grade: Tensor, mask: Tensor, *, beta: float = 1.0) -> Tensor:
    """-sum_i log(e^{r_i} / sum_{j not better than i} e^{r_j}), (B,). Plackett 1975; Rafailov et al. 2023, appendix A.3.

    Entries of equal grade stand in each other's denominator (Breslow 1974). Two entries give `pairwise.sigmoid`.
    """
    live = _checked(rho, grade, mask)
    below = (grade[:, None, :] <= grade[:, :, None]) & live[:, None, :]  # (B, G, G): j is not better than i
    rest = torch.where(below, beta * rho[:, None, :], -math.inf)
    # A row of padding has no entry of its own: give it one, so that no infinity enters the gradient.
    rest = torch.where(live[:, :, None], rest, 0.0)
    return ((rest.logsumexp(dim=-1) - beta * rho) * mask).sum(dim=-1)


def list_softmax(rho: Tensor, grade: Tensor, mask: Tensor, *, beta: float = 1.0) -> Tensor:
    """-sum_i softmax(grade)_i log softmax(r)_i, (B,): ListNet's top-one cross-entropy. Cao et al. 2007; Liu et al. 2024 (LiPO)."""
    live = _checked(rho, grade, mask)
    target = torch.where(live, grade, -math.inf).softmax(dim=-1)
    log_prob = torch.where(live, beta * rho, torch.finfo(rho.dtype).min).log_softmax(dim=-1)
    return -(target * torch.where(live, log_prob, 0.0)).sum(dim=-1)


def lambda_rank(rho: Tensor, grade: Tensor, mask: Tensor, *, beta: float = 1.0) -> Tensor:
    """LiPO-lambda: sum_{i better than j} |2^g_i - 2^g_j| |1 / D_i - 1 / D_j| softplus(r_j - r_i), D = log(1 + rank), (B,).
    Liu et al. 2024.

    Ranks follow the current scores, better grades first among equal ones: at policy = reference the ideal order, so the first step
    has a gradient. The weights carry none. Grades enter as a power of two: keep them within about 0 to 5.
    """
    live = _checked(rho, grade, mask)
    with torch.no_grad():
        score, value = rho.detach(), grade
        ahead = (score[:, None, :] > score[:, :, None]) | (
            (score[:, None, :] == score[:, :, None]) & (value[:, None, :] > value[:, :, None])
        )
        rank = 1 + (ahead & live[:, None, :]).sum(dim=-1)  # (B, G), 1 for the highest score
        discount = 1 / torch.log1p(rank.to(rho.dtype))
        gain = torch.exp2(grade.to(rho.dtype))
        weight = (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()
        better = (grade[:, :, None] > grade[:, None, :]) & live[:, :, None] & live[:, None, :]
        weight = torch.where(better, weight, 0.0)
    x = beta * (rho[:, :, None] - rho[:, None, :])  # (B, G, G): lead of i over j
    return (weight * F.softplus(-x)).sum(dim=(1, 2))


def _checked(rho: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
    """The mask as bool (B, G); raises `InputError` for other shapes and for lists with fewer than two real entries."""
    check_shape("listwise", "rho", tuple(rho.shape), (None, None), "One list per row.")
    for name, value in (("grade", grade), ("mask", mask)):
        check_shape("listwise", name, tuple(value.shape), tuple(rho.shape), "One grade and one mask value per entry.")
    live = mask > 0
    shortest = int(live.sum(dim=-1).min()) if len(live) else 2
    if shortest < 2:
        raise InputError(
            f"listwise: got a list of {shortest}, wanted at least 2 entries. Drop lists with nothing to compare."
        )
    return live
