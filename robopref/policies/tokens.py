"""Autoregressive action tokens with an exact score (RT-2, Brohan et al. 2023; OpenVLA, Kim et al. 2024).

Each number of a chunk is one of `bins` equal bins of its normalised range, predicted in the order step by step, dimension by dimension.
s = sum over executed elements of log softmax(logits)[token], over these bins only. Actions are decoded to bin centres, so that a
chunk that this policy predicted turns into the very same tokens again.
"""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.bins import chosen, to_bins, to_centres, uniforms
from robopref.networks.history import flat_history, no_draws
from robopref.networks.normalizer import Normalizer
from robopref.networks.transformer import Cache, TokenTransformer
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec


class Tokens(nn.Module):
    """Predicts the H x A tokens of a chunk one after the other from the last K observations."""

    def __init__(
        self,
        dims: Dims,
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        bins: int = 64,
        temperature: float = 1.0,
        width: int = 96,
        depth: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if bins < 2 or temperature < 0 or width % heads:
            raise InputError(
                f"Tokens: got bins={bins}, temperature={temperature}, width={width}, heads={heads}, "
                "wanted bins >= 2, temperature >= 0, a width that heads divides."
            )
        self._spec = PolicySpec(dims, horizon, execute, history)
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "horizon": horizon, "execute": execute, "history": history, "bins": bins,
            "temperature": temperature, "width": width, "depth": depth, "heads": heads,
        }  # fmt: skip
        self.bins, self.temperature = bins, temperature
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.network = TokenTransformer(horizon * dims.action, bins, history * dims.observation, width, depth, heads)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units; temperature 0 takes the likeliest token each time."""
        condition = self.encode(observation)
        batch, count = len(observation), self._spec.horizon * self._spec.dims.action
        uniform = uniforms(count, batch, generator).to(condition.device)
        token = torch.full((batch, 1), self.bins, device=condition.device)
        cache: Cache | None = None
        taken = []
        for place in range(count):
            logits, cache = self.network(token, cache, condition)
            token = chosen(logits[:, 0], uniform[:, place], self.temperature)[:, None]  # (B, 1)
            taken.append(token)
        tokens = torch.cat(taken, dim=1).unflatten(1, (self._spec.horizon, self._spec.dims.action))
        return self.detokenize(tokens)

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the executed tokens."""
        tokens = self.tokenize(chunks.action).flatten(1)  # (B, H A)
        start = torch.full_like(tokens[:, :1], self.bins)
        logits, _ = self.network(torch.cat([start, tokens[:, :-1]], dim=1), None, self.encode(chunks.observation))
        each = logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)  # (B, H A)
        return (each * chunks.mask.flatten(1)).sum(dim=1)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed element, -2 log-likelihood / elements, (B,)."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> Tokens:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def encode(self, observation: Observation) -> Tensor:
        """History (B, K, D) -> condition (B, K D)."""
        return flat_history("Tokens", self._spec, self.normalizer, observation)

    def tokenize(self, action: Tensor) -> Tensor:
        """Actions (B, H, A) in environment units -> bins (B, H, A) int64; beyond the range, the outermost bin."""
        return to_bins(self.normalizer.action(action), self.bins)

    def detokenize(self, tokens: Tensor) -> Tensor:
        """Bins (B, H, A) -> their centres as actions in environment units."""
        return self.normalizer.unaction(to_centres(tokens, self.bins, self.normalizer.low.dtype))
