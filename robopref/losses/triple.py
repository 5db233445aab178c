"""Losses on three things: winner, loser and a demonstration, or winner and the policy's own sample."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.losses.facts import Facts, mixed


def triple(
    score_first: Tensor, score_second: Tensor, prob_first: Tensor, score_demonstration: Tensor, *, beta: float = 0.01, alpha: float = 1.0
) -> Tensor:  # fmt: skip
    """Triple preference optimisation: -log sg(beta (s_w - s_l)) - alpha s_demo, (B,). Saeidi et al. 2024. No reference."""
    preference = F.binary_cross_entropy_with_logits(beta * (score_first - score_second), prob_first, reduction="none")
    return preference - alpha * score_demonstration


def triple_margin(
    score_first: Tensor, score_second: Tensor, prob_first: Tensor, score_demonstration: Tensor, *,
    beta: float = 0.01, alpha: float = 1.0, target: float = 0.5,
) -> Tensor:  # fmt: skip
    """TPO-L: the same on scores per element and with a margin, (B,). Saeidi et al. 2024."""
    x = beta * (score_first - score_second)
    return mixed(F.softplus(target - x), F.softplus(target + x), prob_first) - alpha * score_demonstration


def seppo(rho_winner: Tensor, rho_own: Tensor, *, beta: float = 1.0) -> Tensor:
    """SePPO: -log sg(beta (rho_w - f rho_own)), f = 1 where rho_w >= 0, else -1, (B,). Zhang et al. 2024.

    The loser is a sample of an earlier checkpoint (`data.strategies.semi_policy_pairs`). Where the policy does worse on the winner than the
    reference does (rho_w < 0), its own sample is the better teacher, and the sign turns: it is raised too.
    """
    sign = torch.where(rho_winner.detach() >= 0, 1.0, -1.0).to(rho_own.dtype)
    return F.softplus(beta * (sign * rho_own - rho_winner))


def seppo_pair(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """`seppo` as a pair loss, (B,): the side that is not preferred is the policy's own sample."""
    return mixed(seppo(rho_first, rho_second, beta=beta), seppo(rho_second, rho_first, beta=beta), prob_first)


FACTS = {"seppo_pair": Facts(math.log(2), "both", "held", "rises")}
