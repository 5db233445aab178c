"""DPO under other divergences than the reverse KL (f-DPO, Wang et al. 2023): rho is bent by f' before the difference is taken.

With t = policy / reference = e^rho: reverse KL f'(t) = log t + const gives `pairwise.sigmoid`. Concave bends make a fall of both
scores pay off, so an anchor belongs beside them. Exponents are cut at 80, where float32 still has room.
"""

import math

import torch.nn.functional as F
from torch import Tensor

from robopref.losses.facts import Facts

_MOST = 80.0


def jensen_shannon(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """DPO with f'(t) = log(2 t / (1 + t)), that is rho -> log 2 + log sigmoid(rho), (B,)."""
    return _bent(F.logsigmoid(rho_first), F.logsigmoid(rho_second), prob_first, beta)


def forward_kl(rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0) -> Tensor:
    """DPO with f'(t) = 1 - 1 / t, that is rho -> 1 - e^-rho, (B,). Overflows soon on summed rho: normalise the length."""
    first, second = (-(-rho).clamp(max=_MOST).exp() for rho in (rho_first, rho_second))
    return _bent(first, second, prob_first, beta)


def alpha_divergence(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, *, beta: float = 1.0, alpha: float = 0.5
) -> Tensor:
    """DPO with f'(t) = (t^(alpha - 1) - 1) / (alpha - 1), (B,). alpha -> 1 is the reverse KL, alpha = 0 the forward KL."""
    power = alpha - 1
    if abs(power) < 1e-6:
        return _bent(rho_first, rho_second, prob_first, beta)
    first, second = ((power * rho).clamp(max=_MOST).exp() / power for rho in (rho_first, rho_second))
    return _bent(first, second, prob_first, beta)


def _bent(first: Tensor, second: Tensor, prob_first: Tensor, beta: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(beta * (first - second), prob_first, reduction="none")


FACTS = {
    name: Facts(math.log(2), "both", "rewarded", "equal") for name in ("jensen_shannon", "forward_kl", "alpha_divergence")
}  # fmt: skip
