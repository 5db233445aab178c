"""A Gaussian policy, or its mean alone: one forward pass, an exact log-likelihood, no draws.

`std=learned`: one deviation per action element, shared by all states. `std=fixed`: log pi is taken to be -||a - mu||^2, as the deterministic
policies of contrastive preference learning have it (Hejna et al. 2024).
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.mlp import mlp
from robopref.networks.normalizer import Normalizer
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

LOG_STD = (-4.0, 0.5)


class Gaussian(nn.Module):
    """Predicts a chunk of H actions given the last K observations."""

    def __init__(
        self,
        dims: Dims,
        horizon: int = 1,
        execute: int = 1,
        history: int = 1,
        width: int = 256,
        depth: int = 2,
        std: Literal["learned", "fixed"] = "learned",
        deterministic: bool = False,
    ) -> None:
        """deterministic: `act` gives the mean; otherwise it samples (with `std=fixed`, deviation 0.1)."""
        super().__init__()
        if std not in ("learned", "fixed") or depth < 1:
            raise InputError(f"Gaussian: got std={std!r}, depth={depth}, wanted std learned or fixed, depth >= 1.")
        self._spec = PolicySpec(dims, horizon, execute, history)
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "horizon": horizon, "execute": execute, "history": history, "width": width,
            "depth": depth, "std": std, "deterministic": deterministic,
        }  # fmt: skip
        self.std, self.deterministic = std, deterministic
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.net = mlp((history * dims.observation, *[width] * depth, horizon * dims.action), nn.ReLU)
        self.log_std = nn.Parameter(torch.full((horizon, dims.action), -1.0), requires_grad=std == "learned")

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Chunks (B, H, A) in environment units: the mean, or a sample."""
        from diffusers.utils.torch_utils import randn_tensor

        mean = self.mean(observation)
        if not self.deterministic:
            given = generator if isinstance(generator, torch.Generator) else list(generator)
            noise = randn_tensor(mean.shape, generator=given, device=mean.device, dtype=mean.dtype)
            mean = mean + noise * (self._deviation() if self.std == "learned" else 0.1)
        return self.normalizer.unaction(mean.clamp(-1, 1))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing to draw: the log-likelihood is exact."""
        batch = len(chunks)
        return Draws(torch.zeros(batch, 1), torch.zeros(batch, 1, *chunks.action.shape[1:]))

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood of each chunk in normalised actions, executed elements summed: (B,)."""
        return self._elements(chunks).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Minus twice the log-likelihood per executed element, (B,)."""
        return -2 * self._elements(chunks).sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> Gaussian:
        """A frozen copy of this policy as it is now."""
        frozen = copy.deepcopy(self).eval()
        return frozen.requires_grad_(False)

    def mean(self, observation: Observation) -> Tensor:
        """Mean chunk (B, H, A) in normalised units."""
        wanted = (None, self._spec.history, self._spec.dims.observation)
        check_shape(
            "Gaussian", "observation", tuple(observation.state.shape), wanted, "Use the policy's own environment."
        )
        flat = self.net(self.normalizer.state(observation.state).flatten(1))
        return flat.unflatten(-1, (self._spec.horizon, self._spec.dims.action)).tanh()

    def _deviation(self) -> Tensor:
        return self.log_std.clamp(*LOG_STD).exp()

    def _elements(self, chunks: Chunks) -> Tensor:
        """Log-likelihood of each executed element, (B, H, A)."""
        # Actions at the very edge would ask the tanh for infinity.
        action = self.normalizer.action(chunks.action).clamp(-1 + 1e-5, 1 - 1e-5)
        error = action - self.mean(chunks.observation)
        if self.std == "fixed":
            return -error.square() * chunks.mask
        deviation = self._deviation()
        return (-0.5 * (error / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)) * chunks.mask
