"""One row of features per picture of a film, and a small head on them: what rewards that look are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.cnn import Pool
from robopref.networks.encoders import EncoderName, as_floats, build_encoder
from robopref.networks.mlp import mlp
from robopref.types import Segments

BLOCK = 256
"""Pictures that go through the encoder at once."""
LEAST = 0.01
"""Features that deviate by less than this share of the liveliest one count as that lively: noise must not be blown up."""


class FilmEncoder(nn.Module):
    """Pictures by one camera -> features of the encoder (B, T, W) -> outputs of the head (B, T, outputs).

    Features are taken before the encoder's last linear layer, so that a head that learns from a few answers still finds in them what
    the encoder's own training had no use for. They are standardised one by one: a hand moves few of them, and those little.
    """

    mean: Tensor
    """(W,) mean of each feature over the films that `standardise` saw."""
    deviation: Tensor
    """(W,) its deviation, never 0."""

    def __init__(
        self, camera: str, size: int, encoder: EncoderName, width: int, pool: Pool, hidden: int, outputs: int,
        folder: str | None = None, described: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """size: pixels, square. folder: local weights of a backbone or ResNet. described: what a saved backbone was."""
        super().__init__()
        self.camera, self.size = camera, (int(size), int(size))
        self.encoder, self.described = build_encoder(encoder, width, pool, folder, False, described)
        leave = self.encoder.leave
        wide = leave.in_features if isinstance(leave, nn.Linear) else width
        self.encoder.leave = nn.Identity()
        self.head = mlp((wide, hidden, outputs))
        self.register_buffer("mean", torch.zeros(wide))
        self.register_buffer("deviation", torch.ones(wide))

    def features(self, segments: Segments) -> Tensor:
        """Features of every picture, (B, T, W), with gradient. Raises `InputError` for a camera or size that is missing."""
        if self.camera not in segments.images:
            seen = ", ".join(segments.images) or "none"
            raise InputError(
                f"reward: got pictures by {seen}, wanted them by {self.camera!r}: this reward looks. Collect with cameras=[{self.camera}]."
            )
        images = segments.images[self.camera]
        do = "Draw pictures of the size the reward learned from."
        check_shape("reward", f"images[{self.camera}]", tuple(images.shape), (None, None, *self.size, 3), do)
        pictures = images if isinstance(images, Tensor) else images[:]
        flat = pictures.flatten(0, 1)
        made = [self.encoder(as_floats(part, self.mean)) for part in flat.split(BLOCK)]
        return torch.cat(made).view(*pictures.shape[:2], -1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (..., W) -> outputs of the head (..., outputs)."""
        return self.head((features - self.mean) / self.deviation)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Standardise by these features (N, T, W) from now on; the outputs stay what they were, the head's first layer takes it up."""
        rows = features.flatten(0, -2)
        mean, deviation = rows.mean(dim=0), rows.std(dim=0).clamp(min=LEAST * float(rows.std(dim=0).max()) + 1e-8)
        first = self.head[0]
        assert isinstance(first, nn.Linear)
        first.bias.add_(first.weight @ ((mean - self.mean) / self.deviation))
        first.weight.mul_(deviation / self.deviation)
        self.mean, self.deviation = mean, deviation


def films(pictures: Tensor, camera: str, mask: Tensor | None = None) -> Segments:
    """Films (B, T, height, width, 3) uint8 of which neither states nor actions are known, as segments of width 0."""
    live = torch.ones(pictures.shape[:2]) if mask is None else mask
    nothing = torch.zeros(*live.shape, 0)
    return Segments(nothing, nothing, live, {camera: pictures})
