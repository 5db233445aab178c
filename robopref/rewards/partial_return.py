"""Bradley-Terry on partial return: P(first) = sigmoid(G_first - G_second), G = reduced step rewards (Christiano et al. 2017).

An ensemble of small networks on standardised inputs; a tie is a soft label of 0.5. `mean` reduction makes the temperature
independent of the segment's length. The tanh keeps separable labels from growing the reward without limit.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.mlp import mlp
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments


class PartialReturn(nn.Module):
    """K networks of step rewards in [-1, 1]; `score` is their mean, `uncertainty` their deviation."""

    def __init__(
        self,
        dims: Dims,
        members: int = 4,
        width: int = 64,
        reduce: Literal["sum", "mean"] = "mean",
        temperature: float = 0.1,
        use_action: bool = False,
    ) -> None:
        super().__init__()
        if reduce not in ("sum", "mean") or temperature <= 0 or members < 1:
            raise InputError(
                f"PartialReturn: got reduce={reduce!r}, temperature={temperature}, members={members}, "
                "wanted reduce sum or mean, temperature > 0, members >= 1."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "reduce": reduce, "temperature": temperature,
            "use_action": use_action,
        }  # fmt: skip
        self.reduce, self.temperature, self.use_action = reduce, temperature, use_action
        self.normalizer = Normalizer(dims.observation, dims.action)
        inputs = dims.observation + (dims.action if use_action else 0)
        self.nets = nn.ModuleList(mlp((inputs, width, width, 1)) for _ in range(members))

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        inputs = self.normalizer.state(segments.observation)  # (B, T, D)
        if self.use_action:
            inputs = torch.cat([inputs, self.normalizer.action(segments.action)], dim=-1)  # (B, T, D + A)
        return torch.stack([net(inputs).squeeze(-1).tanh() for net in self.nets]) * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the ensemble, (B, T); padding scores 0."""
        return self.members(segments).mean(dim=0)

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Reduced score of whole segments for every member, (K, B), in units of the temperature."""
        summed = self.members(segments).sum(dim=-1)  # (K, B)
        scale = segments.mask.sum(dim=-1).clamp(min=1) if self.reduce == "mean" else 1.0
        return summed / scale / self.temperature

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy, averaged over members, and what to log."""
        logit = self.returns(batch.first) - self.returns(batch.second)  # (K, B)
        target = batch.prob_first.expand_as(logit)
        each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")  # (K, B)
        loss = (each * batch.weight).sum(dim=1).mean() / batch.weight.sum().clamp(min=1e-8)
        decided = batch.prob_first != 0.5
        right = ((logit.mean(dim=0) > 0) == (batch.prob_first > 0.5))[decided].float()
        return loss, {
            "reward/loss": float(loss.detach()),
            "reward/accuracy": float(right.mean()) if len(right) else 0.5,
        }
