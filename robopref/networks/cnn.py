"""A small convolutional encoder of pictures, light enough for two cores; group norm, so that a row's result is its own."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Four strided convolutions and a mean over places: pictures (B, 3, height, width) in [0, 1] -> features (B, width)."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = (3, 32, 48, 64, width)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, height, width) float32 in [0, 1] -> (B, width)."""
        return self.layers(pictures - 0.5).mean(dim=(2, 3))
