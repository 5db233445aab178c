"""Causal transformer over (state, action) tokens with bidirectional preference attention on top (Kim et al. 2023)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class PreferenceTransformer(nn.Module):
    """Step rewards r_t that see steps up to t, and step weights that see the whole segment and sum to 1."""

    causal: Tensor

    def __init__(self, state: int, action: int, width: int, heads: int, layers: int, longest: int) -> None:
        super().__init__()
        self.state, self.action = nn.Linear(state, width), nn.Linear(action, width)
        self.time = nn.Embedding(longest + 1, width)  # time counts from 1, 0 is padding
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.last = nn.LayerNorm(width)
        self.query, self.key, self.reward = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)
        future = torch.ones(2 * longest, 2 * longest, dtype=torch.bool).triu(1)
        self.register_buffer("causal", future, persistent=False)

    def forward(self, state: Tensor, action: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """state (B, T, D), action (B, T, A), mask (B, T) -> step rewards in [-1, 1] and step weights, both (B, T).

        The weight of step t is the mean over queries i of softmax_t(q_i k_t): the segment's score is sum_t w_t r_t.
        """
        hidden = self.encode(state, action, mask)  # (B, T, width)
        reward = self.reward(hidden).squeeze(-1).tanh()
        affinity = self.query(hidden) @ self.key(hidden).transpose(1, 2) / math.sqrt(hidden.shape[-1])  # (B, T, T)
        affinity = affinity.masked_fill(mask[:, None] == 0, -1e9)
        weight = (affinity.softmax(dim=-1) * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return reward * mask, weight * mask

    def encode(self, state: Tensor, action: Tensor, mask: Tensor) -> Tensor:
        """The token placed after each step's action, which has seen everything up to it: (B, T, width)."""
        batch, steps = mask.shape
        time = self.time((torch.arange(steps, device=mask.device) + 1)[None] * (mask > 0))  # (B, T, width)
        tokens = torch.stack([self.state(state) + time, self.action(action) + time], dim=2)  # (B, T, 2, width)
        hidden = self.norm(tokens.view(batch, 2 * steps, -1))
        # Padding follows the real steps, so the causal mask already hides it from them.
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.causal[: 2 * steps, : 2 * steps])
        return self.last(hidden[:, 1::2])
