"""AOT: winners' scores should dominate losers' as *distributions*: both sides are sorted over the batch, then compared rank by rank.

So a value belongs to a rank of the batch, not to a pair, and labels must be hard: these two take winner and loser, not prob_first.
"""

import torch.nn.functional as F
from torch import Tensor


def aot(
    score_winner: Tensor, score_loser: Tensor, reference_winner: Tensor, reference_loser: Tensor, *,
    beta: float = 1.0, smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """-log sg(beta (sorted(s_w - s_l) - sorted(reference's s_w - s_l))), per rank (B,). Melnyk et al. 2024, paired."""
    policy, reference = (score_winner - score_loser).sort().values, (reference_winner - reference_loser).sort().values
    return _smoothed(beta * (policy - reference), smoothing)


def aot_unpaired(rho_winner: Tensor, rho_loser: Tensor, *, beta: float = 1.0, smoothing: float = 0.0) -> Tensor:
    """-log sg(beta (sorted(rho_w) - sorted(rho_l))), per rank (B,). Melnyk et al. 2024, unpaired."""
    return _smoothed(beta * (rho_winner.sort().values - rho_loser.sort().values), smoothing)


def _smoothed(x: Tensor, smoothing: float) -> Tensor:
    return (1 - smoothing) * F.softplus(-x) + smoothing * F.softplus(x)
