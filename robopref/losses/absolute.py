"""Pair losses that see where each side stands, not only their difference: most of them hold the winner up by themselves.

r = beta rho. A soft label mixes the two directions. `FACTS` says what each does with ties and with a common fall.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from robopref.losses.facts import Facts, mixed


def nca(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """NCA: -log sg(r_w) - 1/2 log sg(-r_w) - 1/2 log sg(-r_l), (B,): holds the winner at r_w = log 2. Chen et al. 2024 (NCA)."""
    first, second = beta * rho_first, beta * rho_second
    both = 0.5 * (F.softplus(first) + F.softplus(second))
    return mixed(F.softplus(-first) + both, F.softplus(-second) + both, prob_first)


def bco(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """BCO on a pair: -log sg(r_w) - log sg(-r_l), (B,): each side is classified by itself. Jung et al. 2024, without shift."""
    first, second = beta * rho_first, beta * rho_second
    return mixed(F.softplus(-first) + F.softplus(second), F.softplus(-second) + F.softplus(first), prob_first)


def sppo(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """SPPO: (r_w - 1/2)^2 + (r_l + 1/2)^2, (B,), the published loss times beta^2: bounded targets. Wu et al. 2024, eq. 4.7."""
    first, second = beta * rho_first, beta * rho_second
    return mixed(
        (first - 0.5) ** 2 + (second + 0.5) ** 2, (second - 0.5) ** 2 + (first + 0.5) ** 2, prob_first
    )  # fmt: skip


def apo_zero(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """APO-zero: 1 - sg(r_w) + sg(r_l), (B,), for winners better than the policy. D'Oosterlinck et al. 2024, eq. 7."""
    difference = (beta * rho_first).sigmoid() - (beta * rho_second).sigmoid()
    return 1 + mixed(-difference, difference, prob_first)


def apo_down(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """APO-down: sg(r_w) + 1 - sg(r_w - r_l), (B,), for winners *worse* than the policy: both fall, losers more.
    D'Oosterlinck et al. 2024, eq. 8."""
    first, second = beta * rho_first, beta * rho_second
    return mixed(
        first.sigmoid() + (second - first).sigmoid(), second.sigmoid() + (first - second).sigmoid(), prob_first
    )


def dpop(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, hold: float = 5.0) -> Tensor:
    """DPO-positive: -log sg(beta (rho_w - rho_l - hold relu(-rho_w))), (B,): a winner that becomes less likely costs. Pal et al. 2024."""
    x = beta * (rho_first - rho_second)
    fallen_first, fallen_second = (beta * hold * F.relu(-rho) for rho in (rho_first, rho_second))
    return mixed(F.softplus(-x + fallen_first), F.softplus(x + fallen_second), prob_first)


def flowpro(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, bound: float = 1.0, hold: float = 1.0
) -> Tensor:  # fmt: skip
    """DPO + hold (r - clip(r, -bound, bound))^2 on both sides, (B,): a proximal term keeps scores bounded.
    FlowPRO (2025), whose term this is one form of."""
    first, second = beta * rho_first, beta * rho_second
    excess = sum((r - r.clamp(-bound, bound)).square() for r in (first, second))
    return F.binary_cross_entropy_with_logits(first - second, prob_first, reduction="none") + hold * excess


FACTS = {
    "nca": Facts(2 * math.log(2), "both", "held", "zero"),
    "bco": Facts(2 * math.log(2), "both", "held", "zero"),
    "sppo": Facts(0.5, "both", "held", "zero"),
    "apo_zero": Facts(1.0, "both", "held", "silent"),
    "apo_down": Facts(1.0, "loser", "rewarded", "falls"),
    "dpop": Facts(math.log(2), "both", "held", "equal"),
    "flowpro": Facts(math.log(2), "both", "held", "equal"),
}
