"""For few answers, some of them wrong: Bradley-Terry on a quadratic step reward with a ridge, judged mostly by how an episode ends.

r(s) = w . (phi(s) - m) / d with phi = [z, z^2] of the standardised state z; m, d are mean and deviation over episodes of an episode's phi. A
segment's return is the mean of r over its steps, step t weighing exp(late t / T). P(first) = sigmoid(difference of returns) with a penalty
ridge / 2 |w|^2 a pair: logistic regression with a Gaussian prior, which thirty answers can fill and ten wrong ones cannot bend far, where a
network learns every answer by heart. Bradley and Terry 1952; on partial returns Christiano et al. 2017, eq. 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments

GAIN = 20.0
"""Weights are learned divided by this, so that a few hundred steps of Adam can carry them as far as the answers ask."""


class Quadratic(Compared):
    """K weight vectors of a quadratic step reward."""

    centre: Tensor
    middle: Tensor
    """(2 D,) mean over episodes of an episode's features."""
    spread: Tensor
    """(2 D,) their deviation; 1 until `prepare` has seen episodes."""

    def __init__(self, dims: Dims, members: int = 4, late: float = 5.0, ridge: float = 0.02) -> None:
        """late: a segment's last step weighs exp(late) times its first; 0: all alike. ridge: penalty on the squared weights, a pair."""
        super().__init__()
        if members < 1 or late < 0 or ridge < 0:
            raise InputError(
                f"Quadratic: got members={members}, late={late}, ridge={ridge}, wanted members >= 1, late and ridge >= 0."
            )
        self.config: dict[str, Any] = {"dims": asdict(dims), "members": members, "late": late, "ridge": ridge}
        self.late, self.ridge = late, ridge
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration()
        width = 2 * dims.observation
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.nets = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(members))
        for net in self.nets:
            nn.init.normal_(net.weight, std=1e-3)  # type: ignore[arg-type]

    @torch.no_grad()
    def prepare(self, segments: Segments) -> None:
        """Read the scale of every feature from whole episodes, labelled or not: what hardly differs between them must not weigh little."""
        seen = self._mean(self._features(segments), segments.mask)  # (B, 2 D)
        deviation = seen.std(dim=0, correction=0)
        self.middle.copy_(seen.mean(dim=0))
        self.spread.copy_(torch.where(deviation > 1e-5, deviation, torch.ones_like(deviation)))

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        inputs = (self._features(segments) - self.middle) / self.spread / math.sqrt(len(self.spread))
        return GAIN * torch.stack([net(inputs).squeeze(-1) for net in self.nets]) * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the members, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Late-weighted mean step reward of segments for every member, (K, B), in logits."""
        return self._mean(self.members(segments)[..., None], segments.mask).squeeze(-1)

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy, averaged over members, plus the ridge; logs (`reward/loss` is the first alone)."""
        loss, logs = preference_loss(self.logits(batch.first, batch.second), batch, share)
        squared = torch.stack([net.weight.square().sum() for net in self.nets]).mean()  # type: ignore[operator]
        return loss + 0.5 * self.ridge * GAIN**2 * squared, logs

    def _features(self, segments: Segments) -> Tensor:
        state = self.normalizer.state(segments.observation)
        return torch.cat([state, state.square()], dim=-1)  # (B, T, 2 D)

    def _mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """Late-weighted mean over real steps, (..., B, T, F), (B, T) -> (..., B, F)."""
        steps = mask.sum(dim=1, keepdim=True).clamp(min=1)
        position = torch.arange(mask.shape[1], device=mask.device) / steps  # (B, T)
        weight = torch.exp(self.late * (position - 1)) * mask
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-8)
        return (values * weight[..., None]).sum(dim=-2)
