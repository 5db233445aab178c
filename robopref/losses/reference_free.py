"""Pair losses without a reference: (score_first, score_second, prob_first) -> (B,), on scores or on denoising errors of one policy.

score: (surrogate) log-likelihood of a segment. error: its squared denoising error, mean over executed elements (`Policy.loss` averaged
over a segment's chunks). Half the cost of a loss with reference; the policy's own difficulty with a sample does not cancel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.losses.facts import mixed


def cpl(
    score_first: Tensor, score_second: Tensor, prob_first: Tensor, *, alpha: float = 0.1, bias: float = 0.5
) -> Tensor:
    """CPL: -log(e^{a_w} / (e^{a_w} + e^{bias a_l})), a = alpha score, (B,). Hejna et al. 2024.

    bias < 1 makes the losers' likelihood matter less, which holds the winners up. It wants regret-like labels.
    """
    first, second = alpha * score_first, alpha * score_second
    return mixed(F.softplus(bias * second - first), F.softplus(bias * first - second), prob_first)


def simpo(
    score_first: Tensor, score_second: Tensor, prob_first: Tensor, *, beta: float = 2.0, target: float = 1.0
) -> Tensor:
    """SimPO: -log sg(beta (s_w - s_l) - target) on scores *per element*, (B,). Meng et al. 2024, eq. 6."""
    x = beta * (score_first - score_second)
    return mixed(F.softplus(target - x), F.softplus(target + x), prob_first)


def cpo(
    score_first: Tensor, score_second: Tensor, prob_first: Tensor, *, beta: float = 0.1, anchor: float = 1.0
) -> Tensor:
    """CPO: -log sg(beta (s_w - s_l)) - anchor s_w, (B,). Xu et al. 2024, eq. 3 and cloning."""
    x = beta * (score_first - score_second)
    preference = F.binary_cross_entropy_with_logits(x, prob_first, reduction="none")
    return preference - anchor * mixed(score_first, score_second, prob_first)


def orpo(score_first: Tensor, score_second: Tensor, prob_first: Tensor, *, beta: float = 0.1) -> Tensor:
    """ORPO: -s_w - beta log sg(log odds_w - log odds_l), odds = p / (1 - p), on mean log-probabilities per token (below 0), (B,).
    Hong et al. 2024, eq. 4 and 7. For token heads: a density above 1 has no odds."""
    first, second = (score.clamp(max=-torch.finfo(score.dtype).eps) for score in (score_first, score_second))
    odds_first, odds_second = (s - torch.log(-torch.expm1(s)) for s in (first, second))
    preference = F.binary_cross_entropy_with_logits(odds_first - odds_second, prob_first, reduction="none")
    return beta * preference - mixed(score_first, score_second, prob_first)


def fkpd(
    error_first: Tensor, error_second: Tensor, prob_first: Tensor, error_data: Tensor, *, strength: float = 1.0, hold: float = 1.0
) -> Tensor:  # fmt: skip
    """FKPD: -log sg(strength (e_l - e_w)) + hold e_data, (B,): forward KL to the data instead of a reference. Shan et al. 2024.

    strength: beta times the number of diffusion steps. error_data (B,): errors on chunks of the whole data set, winners or not.
    """
    x = strength * (error_second - error_first)
    return F.binary_cross_entropy_with_logits(x, prob_first, reduction="none") + hold * error_data


def mapo(
    error_first: Tensor, error_second: Tensor, prob_first: Tensor, *, strength: float = 1000.0, weight: float = 0.1
) -> Tensor:
    """MaPO: e_w - weight log sg(strength (phi(e_w) - phi(e_l))), phi(y) = (y/2) / expm1(y/2), (B,). Hong et al. 2024 (MaPO)."""
    x = strength * (_odds(error_first) - _odds(error_second))
    preference = F.binary_cross_entropy_with_logits(x, prob_first, reduction="none")
    return mixed(error_first, error_second, prob_first) + weight * preference


def _odds(error: Tensor) -> Tensor:
    """phi(y) = h / (e^h - 1) with h = y / 2, and 1 - h / 2 where h is too small to divide by."""
    half = 0.5 * error
    small = half.abs() < 1e-4
    safe = torch.where(small, torch.ones_like(half), half).clamp(max=80.0)
    return torch.where(small, 1 - half / 2 + half.square() / 12, safe / torch.expm1(safe))
