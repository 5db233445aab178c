"""Transformer blocks with a cache, and a causal transformer over a fixed number of discrete tokens, given a condition (Vaswani et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Cache = list[tuple[Tensor, Tensor]]
"""Keys and values (B, heads, positions so far, width / heads) of every block."""


class Block(nn.Module):
    """Self-attention to earlier positions (or to all that are named), then an MLP; both residual, normalised first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.recompute = False  # see `networks.recompute`
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, seen: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, L, width) and what came before -> (B, L, width) and keys and values up to here.

        seen: (B, positions up to here) bool, what every position attends to, earlier or later; without it, all up to itself.
        """
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(self._compute, x, past, seen, use_reentrant=False)
        return self._compute(x, past, seen)

    def _compute(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, seen: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, heads, L, width / heads) each
        if past is not None:
            key, value = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        causal = seen is None and past is None and length > 1
        mask = None if seen is None else seen[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x)), (key, value)


class TokenTransformer(nn.Module):
    """Logits of token k from tokens before k and the condition, which is added at every position."""

    def __init__(self, tokens: int, bins: int, condition: int, width: int = 96, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(bins + 1, width)  # the last one says "nothing yet"
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.enter = nn.Linear(condition, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, bins)

    def forward(self, before: Tensor, cache: Cache | None, condition: Tensor) -> tuple[Tensor, Cache]:
        """before (B, L): the tokens in front of the L positions that are asked (the first one `bins`, nothing yet); cache: of earlier positions.

        Returns logits (B, L, bins) and the cache up to here.
        """
        begin = cache[0][0].shape[2] if cache else 0
        place = self.position[begin : begin + before.shape[1]]
        x = self.embed(before) + place + self.enter(condition)[:, None]  # (B, L, width)
        kept: Cache = []
        for number, block in enumerate(self.blocks):
            x, here = block(x, cache[number] if cache else None)
            kept.append(here)
        return self.leave(self.norm(x)), kept
