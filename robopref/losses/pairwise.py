"""Preference losses that see only the difference of two relative scores, and P(first preferred); one number per pair.

rho = summed score of the policy minus that of the reference, per segment (DESIGN, section 3); beta scales it. A soft label
mixes the two directions: loss(p) = p loss(1) + (1 - p) loss(0), except in `irepo`. All are finite at large margins.
Winner and loser may fall together at no cost here: keep an anchor on winners beside them, or take a loss of `absolute`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError
from robopref.losses.facts import Facts, check_share, mixed


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
    check_share("flip", flip)
    margin = beta * (rho_first - rho_second)
    forth, back = F.softplus(-margin), F.softplus(margin)  # -log sigmoid(margin), -log sigmoid(-margin)
    win, lose = ((1 - flip) * forth - flip * back), ((1 - flip) * back - flip * forth)
    return (prob_first * win + (1 - prob_first) * lose) / (1 - 2 * flip)


def conservative(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, flip: float = 0.05
) -> Tensor:
    """cDPO: cross-entropy against a label smoothed by `flip`, (B,). Mitchell 2023."""
    check_share("flip", flip)
    return sigmoid(rho_first, rho_second, prob_first * (1 - flip) + (1 - prob_first) * flip, beta=beta)


def margin(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, target: float = 0.5
) -> Tensor:
    """-log sigmoid(beta (rho_w - rho_l) - target), (B,): winners must lead by a margin. Meng et al. 2024 (SimPO), eq. 6, on
    relative scores; SimPO's own form without a reference is `reference_free.simpo`."""
    x = beta * (rho_first - rho_second)
    return mixed(F.softplus(target - x), F.softplus(target + x), prob_first)


def exo(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, flip: float = 1e-3) -> Tensor:
    """EXO: KL(policy's pair distribution || labels smoothed by `flip`), (B,): the reverse of DPO's direction, so it seeks one mode.
    Ji et al. 2024, eq. 16. flip must lie above 0."""
    check_share("flip", flip, least=1e-6)
    x = beta * (rho_first - rho_second)
    first, second = F.logsigmoid(x), F.logsigmoid(-x)
    keep, swap = math.log1p(-flip), math.log(flip)

    def towards(win: float, lose: float) -> Tensor:
        return first.exp() * (first - win) + second.exp() * (second - lose)

    return mixed(towards(keep, swap), towards(swap, keep), prob_first)


def discopop(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, tau: float = 0.05
) -> Tensor:
    """DiscoPOP: logistic and exponential loss blended by m = sigmoid(x / tau), (B,). Lu et al. 2024, eq. 5.

    Near x = 0 it slopes the wrong way: from policy = reference it first lowers the winner. Here for comparison.
    """

    if not 0 < tau < 1:
        raise InputError(f"loss.tau: got {tau}, wanted a number above 0 and below 1.")

    def forth(x: Tensor) -> Tensor:  # exp(-x) m as one exponential, which cannot overflow for tau < 1
        blend = F.logsigmoid(x / tau)
        return (blend - x).exp() + F.softplus(-x) * F.logsigmoid(-x / tau).exp()

    x = beta * (rho_first - rho_second)
    return mixed(forth(x), forth(-x), prob_first)


def negative_sigmoid(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """-sigmoid(beta (rho_w - rho_l)), (B,): a pair that is far wrong stops pulling (outliers). Chen et al. 2024 (DeformPAM's code)."""
    x = beta * (rho_first - rho_second)
    return -mixed(x.sigmoid(), (-x).sigmoid(), prob_first)


def irepo(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, clip: float = 0.05
) -> Tensor:
    """(beta (rho_first - rho_second) - logit(p))^2 with p held in [clip, 1 - clip], (B,): regression on the share of raters who
    prefer the first, so it stops at their log-odds. Le et al. 2024 (iREPO). Soft labels do not mix."""
    check_share("clip", clip, least=1e-6)
    odds = prob_first.clamp(clip, 1 - clip).logit()
    return (beta * (rho_first - rho_second) - odds).square()


def flipped(first: Tensor, second: Tensor, prob_first: Tensor, *, flip: Tensor | float = 0.0) -> Tensor:
    """Cross-entropy when a share `flip` < 0.5 of the labels says the opposite: P = (1 - flip) s + flip (1 - s), any shape.

    s = sigmoid(first - second). A confident score forgives a label against it, since that label may be a flipped one. Flip 0
    is Bradley-Terry.
    """
    if not isinstance(flip, Tensor):
        check_share("flip", flip)
    margin = first - second
    rate = torch.as_tensor(flip, dtype=margin.dtype, device=margin.device)
    stay, turn = torch.log1p(-rate), torch.log(rate.clamp(min=1e-12))
    yes, no = F.logsigmoid(margin), F.logsigmoid(-margin)
    win, lose = torch.logaddexp(stay + yes, turn + no), torch.logaddexp(stay + no, turn + yes)
    return -(prob_first * win + (1 - prob_first) * lose)


FACTS = {
    "sigmoid": Facts(math.log(2), "both", "free", "equal"),
    "ipo": Facts(0.25, "both", "free", "equal"),
    "hinge": Facts(1.0, "both", "free", "silent"),
    "robust": Facts(math.log(2), "both", "free", "equal"),
    "conservative": Facts(math.log(2), "both", "free", "equal"),
    "margin": Facts(math.log1p(math.exp(0.5)), "both", "free", "equal"),
    "exo": Facts(-math.log(2) - 0.5 * math.log(1e-3 * (1 - 1e-3)), "both", "free", "equal"),
    "discopop": Facts(0.5 + 0.5 * math.log(2), "reversed", "free", "apart"),
    "negative_sigmoid": Facts(-0.5, "both", "free", "silent"),
    "flipped": Facts(math.log(2), "both", "free", "equal"),
    "irepo": Facts(None, "both", "free", "equal"),
}

ZERO_POINT = {name: facts.zero for name, facts in FACTS.items()}
"""Value of each loss at rho_first = rho_second = 0, whatever the label and beta (None: it depends on the label)."""
