"""Losses on single trajectories that are called good or bad: (rho (B,), good (B,)) -> (B,), good in [0, 1], 1 = good.

r = beta rho. A soft flag mixes the two directions. `d2o` needs bad ones only.
"""

import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import check_shape
from robopref.losses.facts import mixed


def kto_baseline(rho_mismatched: Tensor) -> Tensor:
    """KTO's point of indifference: max(0, mean rho) of chunks set against other trajectories' observations, without gradient, ()."""
    return rho_mismatched.detach().mean().clamp(min=0)


def kto(
    rho: Tensor, good: Tensor, *, baseline: Tensor | float = 0.0, beta: float = 1.0, weight_good: float = 1.0, weight_bad: float = 1.0
) -> Tensor:  # fmt: skip
    """KTO: w_g (1 - sg(beta (rho - k))) where good, w_b (1 - sg(beta (k - rho))) where bad, (B,). Ethayarajh et al. 2024.

    baseline: k of `kto_baseline`. Balance the weights so that w_g n_good / (w_b n_bad) lies between 1 and 4/3.
    """
    x = beta * (rho - baseline)
    return mixed(weight_good * (-x).sigmoid(), weight_bad * x.sigmoid(), good)


def bco(rho: Tensor, good: Tensor, *, shift: Tensor | float = 0.0, beta: float = 1.0) -> Tensor:
    """BCO: -log sg(r - shift) where good, -log sg(shift - r) where bad, (B,). Jung et al. 2024.

    shift: half the sum of the mean rewards of good and of bad ones, as a running mean without gradient.
    """
    return F.binary_cross_entropy_with_logits(beta * rho - shift, good, reduction="none")


def apo_zero(rho: Tensor, good: Tensor, *, beta: float = 1.0) -> Tensor:
    """APO-zero on single trajectories: 1 - sg(r) where good, sg(r) where bad, (B,). D'Oosterlinck et al. 2024, eq. 7."""
    return mixed((-beta * rho).sigmoid(), (beta * rho).sigmoid(), good)


def d2o(rho_bad: Tensor, rho_own: Tensor, *, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """D2O, from negatives only: -log sg(beta mean_k rho(own_k) - alpha rho_bad), (B,). Duan et al. 2024.

    rho_bad (B,): what people called dangerous or wrong. rho_own (B, K): the policy's own samples at the same observations, which hold up
    everything else. Both coefficients act on rho as it is given: with normalised lengths take larger ones.
    """
    check_shape("d2o", "rho_own", tuple(rho_own.shape), (len(rho_bad), None), "K own samples for each bad one.")
    return F.softplus(alpha * rho_bad - beta * rho_own.mean(dim=-1))
