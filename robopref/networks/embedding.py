"""Sinusoidal embedding of diffusion times (Vaswani et al. 2017, section 3.5)."""

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Times (B,) -> features (B, width); width must be even."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * torch.arange(half) / max(half - 1, 1)))

    def forward(self, time: Tensor) -> Tensor:
        """(B,) int or float -> (B, width)."""
        angle = time.float()[:, None] * self.frequencies  # (B, width / 2)
        return torch.cat([angle.sin(), angle.cos()], dim=-1)
