"""What a mark on a whole episode says about its moments: multiple-instance learning (Ilse et al. 2018; pooling of Pinheiro and Collobert 2015)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError, check_shape


def pooled(danger: Tensor, mask: Tensor, sharpness: float) -> Tensor:
    """(1/r) log mean_t exp(r danger_t) over real steps: (..., B, T), (B, T) -> (..., B); r = `sharpness`.

    r = 0 is the mean (the whole episode is bad), a large r the maximum (a moment of it is). Raises `InputError` for r < 0 and an episode
    without a real step.
    """
    check_shape("pooled", "mask", tuple(mask.shape), tuple(danger.shape[-2:]), "One mask value per step.")
    steps = mask.sum(dim=-1)  # (B,)
    if sharpness < 0 or not math.isfinite(sharpness) or bool((steps == 0).any()):
        raise InputError(f"pooled: got sharpness {sharpness} and {int(steps.min())} steps, wanted >= 0 and >= 1.")
    if sharpness == 0:
        return (danger * mask).sum(dim=-1) / steps
    raised = (sharpness * danger).masked_fill(mask == 0, -torch.inf)
    return (raised.logsumexp(dim=-1) - steps.log()) / sharpness


def marked_loss(badness: Tensor, marked: Tensor) -> Tensor:
    """Cross-entropy of P(marked as bad) = sigmoid(badness), per episode: (..., B), (B,) -> (..., B).

    Each side weighs the same, whatever its number: a rater who marks little would else teach that nothing is bad.
    """
    check_shape("marked_loss", "marked", tuple(marked.shape), tuple(badness.shape[-1:]), "One mark per episode.")
    bad = marked.sum()
    good = len(marked) - bad
    if bad == 0 or good == 0:
        raise InputError(
            f"marks: got {int(bad)} marked of {len(marked)}, wanted some marked and some not.\nShow more episodes, or others."
        )
    weight = torch.where(marked > 0.5, len(marked) / (2 * bad), len(marked) / (2 * good))
    each = F.binary_cross_entropy_with_logits(badness, marked.expand_as(badness), reduction="none")
    return weight * each
