"""Bradley-Terry on partial return: P(first) = sigmoid(G_first - G_second), G = reduced step rewards (Christiano et al. 2017).

An ensemble of small networks on standardised inputs; a tie is a soft label of 0.5. `mean` reduction makes the temperature
independent of the segment's length. The tanh keeps separable labels from growing the reward without limit.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared, reduce_steps, step_networks
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments


class PartialReturn(Compared):
    """K networks of step rewards in [-1, 1]; `score` is their mean, `uncertainty` their deviation."""

    centre: Tensor
    """Mean step reward of the training data, taken off every score."""

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
        self.calibration = Calibration()
        self.register_buffer("centre", torch.zeros(()))
        self.nets = step_networks(dims.observation + (dims.action if use_action else 0), width, members)

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        inputs = self.normalizer.state(segments.observation)  # (B, T, D)
        if self.use_action:
            inputs = torch.cat([inputs, self.normalizer.action(segments.action)], dim=-1)  # (B, T, D + A)
        return torch.stack([net(inputs).squeeze(-1).tanh() for net in self.nets]) * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the ensemble, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Reduced score of whole segments for every member, (K, B), in units of the temperature."""
        return reduce_steps(self.members(segments), segments.mask, self.reduce) / self.temperature

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy, averaged over members, and what to log. share (K, B): a pair's weight for a member."""
        return preference_loss(self.logits(batch.first, batch.second), batch, share)
