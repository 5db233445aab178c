"""The loss that all reward learners share: weighted cross-entropy of an ensemble's logits on compared pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from robopref.losses.pairwise import flipped
from robopref.types import PreferenceBatch


def preference_loss(
    logit: Tensor, batch: PreferenceBatch, share: Tensor | None = None, flip: Tensor | float = 0.0
) -> tuple[Tensor, dict[str, float]]:
    """Weighted cross-entropy of P(first) = sigmoid(logit), averaged over members, and what to log.

    logit (K, B). share (K, B): how much a pair counts for a member (cross-fitted members leave a part out); None: all.
    flip: share of labels taken to say the opposite.
    """
    weight = batch.weight.expand_as(logit) if share is None else batch.weight * share  # (K, B)
    each = flipped(logit, torch.zeros_like(logit), batch.prob_first.expand_as(logit), flip=flip)  # (K, B)
    loss = ((each * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-8)).mean()
    decided = batch.prob_first != 0.5
    right = ((logit.detach().mean(dim=0) > 0) == (batch.prob_first > 0.5))[decided].float()
    accuracy = float(right.mean()) if len(right) else 0.5
    return loss, {"reward/loss": float(loss.detach()), "reward/accuracy": accuracy}
