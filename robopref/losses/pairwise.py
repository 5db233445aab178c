"""Preference losses on pairs. Each takes two relative scores and P(first preferred), and gives one number per pair.

rho = summed score of the policy minus that of the reference, per segment (DESIGN, section 3); beta scales it. A soft label
mixes the two directions: loss(p) = p loss(1) + (1 - p) loss(0). All are finite at large margins.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """DPO: -log sigmoid(beta (rho_w - rho_l)), per pair (B,). Rafailov et al. 2023, eq. 7."""
    return F.binary_cross_entropy_with_logits(beta * (rho_first - rho_second), prob_first, reduction="none")


def ipo(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """(rho_w - rho_l - 1 / (2 beta))^2 scaled by beta^2 so that its size does not follow beta, (B,). Azar et al. 2023, eq. 17."""
    margin = beta * (rho_first - rho_second)
    return prob_first * (margin - 0.5) ** 2 + (1 - prob_first) * (margin + 0.5) ** 2


def hinge(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """relu(1 - beta (rho_w - rho_l)), per pair (B,). Zhao et al. 2023 (SLiC), eq. 2."""
    margin = beta * (rho_first - rho_second)
    return prob_first * F.relu(1 - margin) + (1 - prob_first) * F.relu(1 + margin)


def robust(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, flip: float = 0.05
) -> Tensor:
    """DPO made unbiased under labels flipped with probability `flip`, (B,). Chowdhury et al. 2024, eq. 12."""
    margin = beta * (rho_first - rho_second)
    forth, back = F.softplus(-margin), F.softplus(margin)  # -log sigmoid(margin), -log sigmoid(-margin)
    win, lose = ((1 - flip) * forth - flip * back), ((1 - flip) * back - flip * forth)
    return (prob_first * win + (1 - prob_first) * lose) / (1 - 2 * flip)


def conservative(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, flip: float = 0.05
) -> Tensor:
    """cDPO: cross-entropy against a label smoothed by `flip`, (B,). Mitchell 2023."""
    return sigmoid(rho_first, rho_second, prob_first * (1 - flip) + (1 - prob_first) * flip, beta=beta)


def flipped(first: Tensor, second: Tensor, prob_first: Tensor, *, flip: Tensor | float = 0.0) -> Tensor:
    """Cross-entropy when a share `flip` < 0.5 of the labels says the opposite: P = (1 - flip) s + flip (1 - s), any shape.

    s = sigmoid(first - second). A confident score forgives a label against it, since that label may be a flipped one. Flip 0
    is Bradley-Terry.
    """
    margin = first - second
    rate = torch.as_tensor(flip, dtype=margin.dtype, device=margin.device)
    stay, turn = torch.log1p(-rate), torch.log(rate.clamp(min=1e-12))
    yes, no = F.logsigmoid(margin), F.logsigmoid(-margin)
    win, lose = torch.logaddexp(stay + yes, turn + no), torch.logaddexp(stay + no, turn + yes)
    return -(prob_first * win + (1 - prob_first) * lose)


ZERO_POINT = {"sigmoid": math.log(2), "ipo": 0.25, "hinge": 1.0, "robust": math.log(2), "conservative": math.log(2)}
"""Value of each loss at rho_first = rho_second = 0, whatever the label and beta."""
