"""A small convolutional encoder of pictures, light enough for two cores; group norm, so that a row's result is its own."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.spatial_softmax import MeanOverPlaces, SpatialSoftmax

Pool = Literal["softmax", "mean"]


class SmallCNN(nn.Module):
    """Four convolutions: pictures (B, 3, height, width) in [0, 1] -> features (B, width).

    pool: `mean` says how much of each feature there is, `softmax` where it is (the last convolution then keeps its places: 84 pixels
    become 11).
    """

    def __init__(self, width: int = 64, pool: Pool = "mean") -> None:
        super().__init__()
        if width < 8 or width % 8:
            raise InputError(f"SmallCNN.width: got {width}, wanted a multiple of 8, its group norm's number of groups.")
        layers: list[nn.Module] = []
        strides = (2, 2, 2, 2 if pool == "mean" else 1)
        for (before, after), stride in zip(pairwise((3, 32, 48, 64, width)), strides, strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        # The softmax makes the maps positive itself.
        self.layers = nn.Sequential(*layers if pool == "mean" else layers[:-1])
        self.pool, features = pooling(pool, width)
        self.leave = nn.Identity() if pool == "mean" else nn.Linear(features, width)
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, height, width) float32 in [0, 1] -> (B, width)."""
        return self.leave(self.pool(self.layers(pictures - 0.5)))


def pooling(pool: Pool, channels: int) -> tuple[nn.Module, int]:
    """From maps of `channels` to a row, and how long that is."""
    if pool == "softmax":
        return SpatialSoftmax(), 2 * channels
    if pool == "mean":
        return MeanOverPlaces(), channels
    raise InputError(f"pool: got {pool!r}, wanted softmax or mean.")
