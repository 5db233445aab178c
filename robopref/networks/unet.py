"""One-dimensional UNet over the time axis of a chunk, conditioned by FiLM (Chi et al. 2023, Diffusion Policy)."""

import torch
from torch import Tensor, nn

from robopref.networks.embedding import TimeEmbedding


class FilmBlock(nn.Module):
    """Two convolutions over time whose features are scaled and shifted by the condition."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU())
        self.second = nn.Sequential(nn.Conv1d(after, after, 3, padding=1), nn.GroupNorm(8, after), nn.SiLU())
        self.film = nn.Linear(condition, 2 * after)
        self.skip = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, hidden: Tensor, condition: Tensor) -> Tensor:
        """hidden (B, before, H), condition (B, C) -> (B, after, H)."""
        scale, shift = self.film(condition)[..., None].chunk(2, dim=1)  # (B, after, 1) each
        return self.second(self.first(hidden) * (1 + scale) + shift) + self.skip(hidden)


class UNetDenoiser(nn.Module):
    """Noisy chunk, time and condition -> prediction of the chunk's shape. The horizon must be a multiple of 4."""

    def __init__(self, horizon: int, action: int, condition: int, width: int = 64) -> None:
        super().__init__()
        if horizon % 4:
            raise ValueError(
                f"UNetDenoiser.horizon: got {horizon}, wanted a multiple of 4. Use backbone=mlp otherwise."
            )
        context = condition + 32
        self.embed = TimeEmbedding(32)
        self.down1 = FilmBlock(action, width, context)
        self.down2 = FilmBlock(width, 2 * width, context)
        self.shrink1 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.shrink2 = nn.Conv1d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.middle = FilmBlock(2 * width, 2 * width, context)
        self.grow2 = nn.ConvTranspose1d(2 * width, 2 * width, 4, stride=2, padding=1)
        self.up2 = FilmBlock(4 * width, width, context)
        self.grow1 = nn.ConvTranspose1d(width, width, 4, stride=2, padding=1)
        self.up1 = FilmBlock(2 * width, width, context)
        self.leave = nn.Conv1d(width, action, 1)

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """noisy (B, H, A), time (B,), condition (B, C) -> (B, H, A)."""
        context = torch.cat([condition, self.embed(time)], dim=-1)  # (B, C + 32)
        one = self.down1(noisy.transpose(1, 2), context)  # (B, width, H)
        two = self.down2(self.shrink1(one), context)  # (B, 2 width, H / 2)
        low = self.middle(self.shrink2(two), context)  # (B, 2 width, H / 4)
        mid = self.up2(torch.cat([self.grow2(low), two], dim=1), context)  # (B, width, H / 2)
        top = self.up1(torch.cat([self.grow1(mid), one], dim=1), context)  # (B, width, H)
        return self.leave(top).transpose(1, 2)
