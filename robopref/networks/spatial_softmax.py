"""Spatial softmax: where each feature is, in place of how much of it there is (Levine et al. 2016; Finn et al. 2016)."""

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Feature maps (B, C, height, width) -> expected place of each channel in [-1, 1], (B, 2 C): x of all, then y of all."""

    def __init__(self) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, 2 C)."""
        height, width = maps.shape[-2:]
        weight = (maps.flatten(2) * torch.exp(-self.log_temperature)).softmax(dim=-1)  # (B, C, height width)
        x = torch.linspace(-1, 1, width, dtype=maps.dtype, device=maps.device).repeat(height)
        y = torch.linspace(-1, 1, height, dtype=maps.dtype, device=maps.device).repeat_interleave(width)
        return torch.cat([weight @ x, weight @ y], dim=-1)


class MeanOverPlaces(nn.Module):
    """Feature maps (B, C, height, width) -> their mean, (B, C)."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, height, width) -> (B, C)."""
        return maps.mean(dim=(2, 3))
