"""Several objectives at once, weighed when the policy is trained (MODPO) or when it runs (`weighed`)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError, check_shape


def modpo(
    rho_first: Tensor, rho_second: Tensor, prob_first: Tensor, other_first: Tensor, other_second: Tensor, *,
    weights: Sequence[float], beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """MODPO: -log sg((beta (rho_w - rho_l) - sum_j v_j (R_j(w) - R_j(l))) / v_0), (B,). Zhou et al. 2024.

    weights: v_0 of the objective the labels speak of, then v_1.. of the J others; they sum to one and v_0 > 0.
    other_first, other_second (B, J): what the other objectives' rewards give to either side, in units in which beta rho is a reward.
    """
    others = len(weights) - 1
    for name, value in (("other_first", other_first), ("other_second", other_second)):
        check_shape("modpo", name, tuple(value.shape), (len(rho_first), others), "One column per further objective.")
    lead = modpo_lead(other_first - other_second, weights)
    x = beta * (rho_first - rho_second) / float(weights[0]) - lead
    return F.binary_cross_entropy_with_logits(x, prob_first, reduction="none")


def modpo_lead(other: Tensor, weights: Sequence[float]) -> Tensor:
    """sum_j v_j other_j / v_0, (B,), of the other objectives' differences (B, J): what any difference loss subtracts from its logit.

    Raises `InputError` unless the weights sum to one, are not negative, and v_0 > 0.
    """
    v = _checked(weights)
    check_shape("modpo", "other", tuple(other.shape), (None, len(v) - 1), "One column per further objective.")
    if v[0] <= 0:
        raise InputError(f"modpo.weights: got {v[0]} for the labels' own objective, wanted more than 0.")
    return other @ other.new_tensor(v[1:]) / v[0]


def weighed(scores: Tensor, weights: Sequence[float]) -> Tensor:
    """One score from several objectives, (J, ..., N) -> (..., N): each is scaled to unit deviation over N first, so that weights compare."""
    checked = _checked(weights)
    if len(checked) != len(scores):
        raise InputError(f"weights: got {len(checked)} for {len(scores)} objectives, wanted one each.")
    scale = scores.std(dim=-1, correction=0, keepdim=True).clamp(min=1e-8)
    return torch.einsum("j,j...->...", scores.new_tensor(checked), scores / scale)


def _checked(weights: Sequence[float]) -> list[float]:
    given = [float(w) for w in weights]
    if not given or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
        raise InputError(
            f"weights: got {given} (sum {sum(given):g}), wanted numbers >= 0 that sum to one. Divide them by their sum."
        )
    return given
