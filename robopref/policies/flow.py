"""Flow matching policy over action chunks (Lipman et al. 2023; time and its density as in pi0, Black et al. 2024).

**t = 1 is noise, t = 0 is the action**: x_t = t noise + (1 - t) action, velocity u = dx/dt = noise - action; sampling goes from 1 to 0.
Score: s = -1/2 sum over executed elements of (u - v(x_t, t))^2, averaged over the probes of the draws: a surrogate log-likelihood with
a constant weight over time, which aligns better than the weight of theory (Liu et al. 2025, VideoAlign, table 3).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.eyes import Eyes
from robopref.networks.flow_matching import integrate, squared_errors, stratified
from robopref.networks.history import build_denoiser, flat_history
from robopref.networks.normalizer import Normalizer
from robopref.pictures import PictureSpec
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

_TIME_SCALE = 50.0  # the time embedding's fastest wave then turns 8 times between action and noise


class Flow(nn.Module):
    """Carries noise to a chunk of H actions along a learned velocity; E of them run before the next chunk.

    eyes: arguments of `networks.eyes.Eyes`, for a policy that sees pictures.
    """

    def __init__(
        self,
        dims: Dims,
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        backbone: Literal["mlp", "unet"] = "mlp",
        width: int = 256,
        depth: int = 3,
        sample_steps: int = 8,
        probes: int = 4,
        time_power: float = 1.5,
        eyes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if sample_steps < 1 or probes < 1 or time_power <= 0:
            raise InputError(
                f"Flow: got sample_steps={sample_steps}, probes={probes}, time_power={time_power}, "
                "wanted sample_steps and probes >= 1, time_power > 0."
            )
        self.eyes = Eyes(**eyes) if eyes else None
        self._spec = PolicySpec(dims, horizon, execute, history, self.eyes.spec if self.eyes else PictureSpec())
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "horizon": horizon, "execute": execute, "history": history, "backbone": backbone,
            "width": width, "depth": depth, "sample_steps": sample_steps, "probes": probes, "time_power": time_power,
        }  # fmt: skip
        if self.eyes is not None:
            self.config["eyes"] = self.eyes.config
        self.probes, self.sample_steps, self.time_power = probes, sample_steps, time_power
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.denoiser = build_denoiser("Flow", backbone, self._spec, width, depth, self.eyes)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units: Euler steps from t = 1 to 0; the start noise decides all."""
        condition = self.encode(observation)
        shape = (len(observation), self._spec.horizon, self._spec.dims.action)
        chunk = integrate(
            lambda noisy, time: self.velocity(noisy, time, condition), shape, self.sample_steps, generator, condition
        )
        return self.normalizer.unaction(chunk.clamp(-1, 1))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """M probes per chunk; times ~ 0.001 + 0.999 Beta(time_power, 1), stratified: probe m falls into the m-th of M quantiles."""
        return stratified(chunks, self.probes, self.time_power, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return -0.5 * self._errors(chunks, draws).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared velocity error per executed element, (B,)."""
        return self._errors(chunks, draws).sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> Flow:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def encode(self, observation: Observation) -> Tensor:
        """History (B, K, D), with pictures where the policy has eyes, -> condition (B, C)."""
        return flat_history("Flow", self._spec, self.normalizer, observation, self.eyes)

    def velocity(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """dx/dt (B, H, A) at x_t (B, H, A), t (B,) in [0, 1] and condition (B, C)."""
        return self.denoiser(noisy, time * _TIME_SCALE, condition)

    def _errors(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        condition = self.encode(chunks.observation).repeat_interleave(draws.time.shape[1], dim=0)  # (B M, C)
        clean = self.normalizer.action(chunks.action)
        return squared_errors(lambda noisy, time: self.velocity(noisy, time, condition), clean, draws) * chunks.mask
