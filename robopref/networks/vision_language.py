"""One transformer over what is said and seen, and over what is asked for: words, pictures, state, then actions all at once.

What is said and seen attends to itself only and is computed once; queries about actions attend to it and to each other, so that all
numbers of a chunk are answered in one pass (parallel decoding: Kim et al. 2025, OpenVLA-OFT; the split: Black et al. 2024, pi0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.eyes import Eyes
from robopref.networks.language import WordEmbedding
from robopref.networks.transformer import Block, Cache
from robopref.types import Observation


@dataclass(frozen=True)
class Context:
    """What B rows were told and saw, ready to be attended to."""

    cache: Cache
    live: Tensor
    """(B, S) bool, which of the S places hold something."""

    def __len__(self) -> int:
        return len(self.live)

    def repeated(self, times: int) -> Context:
        """Every row `times` times, one after the other: (B times)."""
        cache = [(k.repeat_interleave(times, dim=0), v.repeat_interleave(times, dim=0)) for k, v in self.cache]
        return Context(cache, self.live.repeat_interleave(times, dim=0))


class Senses(nn.Module):
    """A sentence, the pictures of K observations by every camera, and what may be read of K states, as S vectors of one width.

    eyes: arguments of `networks.eyes.Eyes`. words: longest sentence. Without readable numbers (`eyes.state: []`) the state has no place.
    """

    def __init__(
        self, observation: int, history: int, eyes: Mapping[str, Any], words: int, buckets: int, width: int
    ) -> None:
        super().__init__()
        self.language = WordEmbedding(words, width, buckets)
        self.eyes = Eyes(**eyes)
        self.numbers = self.eyes.numbers(observation)
        pictures = history * len(self.eyes.spec.cameras)
        self.seen = nn.Linear(self.eyes.width, width)
        self.seen_place = nn.Parameter(0.02 * torch.randn(pictures, width))
        self.felt = nn.Linear(self.numbers, width) if self.numbers else None
        self.felt_place = nn.Parameter(0.02 * torch.randn(history, width)) if self.numbers else None

    def forward(self, observation: Observation, state: Tensor) -> tuple[Tensor, Tensor]:
        """B rows and their normalised states (B, K, D) -> vectors (B, S, width) and which of them are live (B, S) bool.

        Raises `InputError` for a missing sentence, one that is too long, and pictures that are missing or of another size.
        """
        if not observation.sentence:
            raise InputError(
                "Observation: got no sentence, wanted one for every row: the policy reads what is asked of it."
            )
        said, live = self.language(observation.sentence)
        pictures = self.eyes(observation).unflatten(1, (-1, self.eyes.width))  # (B, K cameras, eyes.width)
        parts = [said, self.seen(pictures) + self.seen_place]
        if self.felt is not None:
            parts.append(self.felt(self.eyes.read(state)) + self.felt_place)
        vectors = torch.cat(parts, dim=1)
        always = live.new_ones(len(live), vectors.shape[1] - live.shape[1])
        return vectors, torch.cat([live, always], dim=1)


class AnsweringTransformer(nn.Module):
    """Blocks that read a context once and answer queries about it."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        if width < 2 or width % 2 or width % heads or depth < 1:
            raise InputError(
                f"AnsweringTransformer: got width={width}, depth={depth}, heads={heads}, wanted an even width that heads divides, depth >= 1."
            )
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def read(self, vectors: Tensor, live: Tensor) -> Context:
        """Vectors (B, S, width), those attended to where `live` (B, S) says so -> context."""
        cache: Cache = []
        x = vectors
        for block in self.blocks:
            x, kept = block(x, None, live)
            cache.append(kept)
        return Context(cache, live)

    def forward(self, queries: Tensor, context: Context) -> Tensor:
        """Queries (B, Q, width), which see the context and each other -> answers (B, Q, width)."""
        seen = torch.cat([context.live, context.live.new_ones(queries.shape[:2])], dim=1)
        x = queries
        for block, past in zip(self.blocks, context.cache, strict=True):
            x, _ = block(x, past, seen)
        return self.norm(x)
