"""Contrastive preference learning: segments are compared by the policy's own log-likelihood (Hejna et al. 2024, eq. 9)."""

import torch.nn.functional as F
from torch import Tensor


def contrastive(first: Tensor, second: Tensor, prob_first: Tensor, *, bias: float = 0.5) -> Tensor:
    """p softplus(bias A_2 - A_1) + (1 - p) softplus(bias A_1 - A_2), per pair (B,).

    first, second (B,): alpha * summed log-likelihood of a segment. A bias below 1 makes raising the preferred segment worth more than lowering
    the other; 1 is Bradley-Terry.
    """
    win, lose = F.softplus(bias * second - first), F.softplus(bias * first - second)
    return prob_first * win + (1 - prob_first) * lose
