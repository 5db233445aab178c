"""lerobot's ACT (Zhao et al. 2023) from its checkpoint folder, as a density: Laplace around the chunk it predicts.

ACT acts on one chunk, that of a latent of zeros, and is trained on its absolute error; a Laplace density of fixed spread has that error as
its log-likelihood, exact and without draws (the L1 head of OpenVLA-OFT, Kim et al. 2025). Its encoder of demonstrated chunks, which only
its own training uses, is kept as it is and does not learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robopref.networks.history import no_draws
from robopref.networks.lerobot import LeRobotPolicy
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation


class LeRobotACT(LeRobotPolicy):
    """A chunk by lerobot's own network and statistics. checkpoint: the content of its config.json; spread: of the density, normalised."""

    kind = "act"

    def __init__(self, checkpoint: Mapping[str, Any], spread: float = 0.3) -> None:
        super().__init__(checkpoint, spread=spread)
        self.spread = spread
        for name, parameter in self.body.policy.model.named_parameters():
            parameter.requires_grad_(not name.startswith("vae_encoder"))
        # On a transposed input torch multiplies in another order where the weights ask for a gradient: a frozen copy would differ in last bits.
        self.body.policy.model.action_head.register_forward_pre_hook(_in_order)

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """The predicted chunks (B, H, A) in environment units; nothing is drawn."""
        return self.normalizer.unaction(self.mean(observation))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the executed elements of normalised chunks."""
        away = (self.normalizer.action(chunks.action) - self.mean(chunks.observation)).abs()
        return ((-away / self.spread - math.log(2 * self.spread)) * chunks.mask).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed element, -2 log-likelihood / elements, (B,): the absolute error, scaled, and a constant."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def mean(self, observation: Observation) -> Tensor:
        """The predicted chunks, normalised, (B, H, A)."""
        batch = {key: value[:, -1] for key, value in self.body.batch(observation, self._spec).items()}
        inputs: dict[str, Any] = dict(batch)
        if self.body.cameras:
            inputs["observation.images"] = [batch[key] for key in self.body.cameras.values()]
        return self.body.policy.model(inputs)[0].float()


def _in_order(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(one.contiguous() for one in inputs)
