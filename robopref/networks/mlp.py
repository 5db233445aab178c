"""Plain and residual multilayer perceptrons, the second one as a denoiser of action chunks."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from robopref.networks.embedding import TimeEmbedding


def mlp(widths: Sequence[int], activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear layers of the given widths with `activation` between them: (..., widths[0]) -> (..., widths[-1])."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Linear(before, after)] + ([activation()] if index < len(widths) - 2 else [])
    return nn.Sequential(*layers)


class MLPDenoiser(nn.Module):
    """Noisy chunk, time and condition -> prediction of the chunk's shape, through residual blocks."""

    def __init__(self, horizon: int, action: int, condition: int, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.horizon, self.action = horizon, action
        self.embed = TimeEmbedding(32)
        self.enter = nn.Linear(horizon * action + condition + 32, width)
        self.blocks = nn.ModuleList(mlp((width, width, width)) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.leave = nn.Linear(width, horizon * action)

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """noisy (B, H, A), time (B,), condition (B, C) -> (B, H, A)."""
        hidden = self.enter(torch.cat([noisy.flatten(1), condition, self.embed(time)], dim=-1))  # (B, width)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            hidden = hidden + block(norm(hidden))
        return self.leave(hidden).unflatten(-1, (self.horizon, self.action))


class ResidualMLP(nn.Module):
    """Condition (B, C) -> (B, outputs) through residual blocks; with depth 0 it is one linear map of the condition."""

    def __init__(self, inputs: int, outputs: int, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(mlp((width, width, width)) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.leave = nn.Linear(width, outputs)

    def forward(self, condition: Tensor) -> Tensor:
        """(B, C) -> (B, outputs)."""
        hidden = self.enter(condition)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            hidden = hidden + block(norm(hidden))
        return self.leave(hidden)
