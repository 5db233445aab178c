"""A reward of pictures by Bradley-Terry on partial return (Christiano et al. 2017), with the eyes of `aligned`: the plain way beside it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from robopref.networks.cnn import Pool
from robopref.networks.encoders import EncoderName
from robopref.networks.ensemble import Calibration, reduce_steps
from robopref.networks.films import FilmEncoder
from robopref.types import PreferenceBatch, Segments


class Pictured(nn.Module):
    """Step rewards in [-1, 1] of pictures; P(first) = sigmoid of the difference of mean rewards over the temperature."""

    def __init__(
        self,
        camera: str,
        size: int = 84,
        encoder: EncoderName = "small",
        width: int = 64,
        pool: Pool = "softmax",
        hidden: int = 64,
        temperature: float = 0.1,
        folder: str | None = None,
        described: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.eyes = FilmEncoder(camera, size, encoder, width, pool, hidden, 1, folder, described)
        self.config: dict[str, Any] = {
            "camera": camera, "size": size, "encoder": encoder, "width": width, "pool": pool, "hidden": hidden,
            "temperature": temperature, "described": self.eyes.described,
        }  # fmt: skip
        self.temperature = temperature
        self.cameras = (camera,)
        self.calibration = Calibration()

    def rewards(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features of the encoder (B, T, width) -> step rewards (B, T); padding scores 0."""
        return self.eyes(features).squeeze(-1).tanh() * mask

    def score(self, segments: Segments) -> Tensor:
        """Reward of every picture, (B, T); padding scores 0."""
        return self.rewards(self.eyes.features(segments), segments.mask)

    def value(self, features: Tensor, mask: Tensor) -> Tensor:
        """Mean reward of films from their features, in units of the temperature, (B,)."""
        return reduce_steps(self.rewards(features, mask), mask, "mean") / self.temperature

    def returns(self, segments: Segments) -> Tensor:
        """Mean reward of films, in units of the temperature, (1, B)."""
        return self.value(self.eyes.features(segments), segments.mask)[None]

    def prob_first(self, first: Segments, second: Segments) -> Tensor:
        """P(first preferred), (B,)."""
        return self.calibration(self.returns(first) - self.returns(second))

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy of pairs, and what to log."""
        logit = (self.returns(batch.first) - self.returns(batch.second))[0]
        each = F.binary_cross_entropy_with_logits(logit, batch.prob_first, reduction="none")
        loss = (each * batch.weight).sum() / batch.weight.sum().clamp(min=1e-8)
        return loss, {"reward/loss": float(loss.detach())}
