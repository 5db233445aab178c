"""Gaussian or Laplace policy over action chunks, with an exact score; acting on its mean alone it is the deterministic policy.

Densities are of *normalised* actions: the change to environment units is a constant that cancels against any reference with the same
normaliser. A deterministic policy's score is the density of a fixed spread around its mean (CPL's choice, Hejna et al. 2024; with the
Laplace density it is the L1 head of OpenVLA-OFT, Kim et al. 2025). Samples are cut to the range of actions, the density is not.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.history import flat_history, no_draws
from robopref.networks.mlp import ResidualMLP
from robopref.networks.normalizer import Normalizer
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

_LOG_SPREAD = (-5.0, 2.0)


class Gaussian(nn.Module):
    """A mean chunk of H actions from the last K observations and one learned spread per step and dimension."""

    def __init__(
        self,
        dims: Dims,
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        density: Literal["gaussian", "laplace"] = "gaussian",
        spread: float = 0.3,
        learn_spread: bool = True,
        deterministic: bool = False,
        width: int = 256,
        depth: int = 3,
        constant: bool = True,
    ) -> None:
        """constant: whether a score holds the density's own constant. Without it, and with a spread of 1 / sqrt(2), a score is minus the
        squared distance to the mean, which CPL's code takes for log pi; where two scores weigh differently, as there, it matters."""
        super().__init__()
        if not constant and learn_spread:
            raise InputError(
                "Gaussian: got constant=False with a learned spread, which would grow for ever, wanted learn_spread=False."
            )
        if density not in ("gaussian", "laplace") or not math.exp(_LOG_SPREAD[0]) <= spread <= math.exp(_LOG_SPREAD[1]):
            raise InputError(
                f"Gaussian: got density={density!r}, spread={spread}, wanted gaussian or laplace and a spread (in normalised units) "
                f"from {math.exp(_LOG_SPREAD[0]):.4f} to {math.exp(_LOG_SPREAD[1]):.2f}."
            )
        self._spec = PolicySpec(dims, horizon, execute, history)
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "horizon": horizon, "execute": execute, "history": history, "density": density,
            "spread": spread, "learn_spread": learn_spread, "deterministic": deterministic, "width": width, "depth": depth,
            "constant": constant,
        }  # fmt: skip
        self.density, self.deterministic, self.constant = density, deterministic, constant
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.network = ResidualMLP(history * dims.observation, horizon * dims.action, width, depth)
        start = torch.full((horizon, dims.action), math.log(spread))
        self.log_spread = nn.Parameter(start, requires_grad=learn_spread)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units; the mean itself if `deterministic`."""
        from diffusers.utils.torch_utils import randn_tensor

        mean = self.mean(observation)
        if not self.deterministic:
            given = generator if isinstance(generator, torch.Generator) else list(generator)
            noise = randn_tensor(tuple(mean.shape), generator=given, device=mean.device, dtype=mean.dtype)
            if self.density == "laplace":  # by its quantile function
                share = torch.special.ndtr(noise).clamp(1e-6, 1 - 1e-6) - 0.5
                noise = -share.sign() * torch.log1p(-2 * share.abs())
            mean = mean + self._log_spread().exp() * noise
        return self.normalizer.unaction(mean.clamp(-1, 1))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the executed elements of normalised chunks."""
        return (self._log_density(chunks) * chunks.mask).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed element, -2 log-likelihood / elements, (B,): with unit spread the squared error and a constant."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> Gaussian:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def mean(self, observation: Observation) -> Tensor:
        """Mean of normalised chunks, (B, H, A)."""
        condition = flat_history("Gaussian", self._spec, self.normalizer, observation)
        return self.network(condition).unflatten(-1, (self._spec.horizon, self._spec.dims.action))

    def _log_spread(self) -> Tensor:
        return self.log_spread.clamp(*_LOG_SPREAD)

    def _log_density(self, chunks: Chunks) -> Tensor:
        """Log-density of each element, (B, H, A), up to its constant where that is not wanted."""
        log_spread = self._log_spread()
        z = (self.normalizer.action(chunks.action) - self.mean(chunks.observation)) / log_spread.exp()
        laplace = self.density == "laplace"
        shape = -z.abs() if laplace else -0.5 * z.square()
        if not self.constant:
            return shape
        return shape - log_spread - (math.log(2) if laplace else 0.5 * math.log(2 * math.pi))
