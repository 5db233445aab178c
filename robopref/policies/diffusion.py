"""Diffusion policy over action chunks: DDPM training, DDIM sampling (Ho 2020; Song 2021; Chi et al. 2023).

Score: s = -1/2 sum over executed elements of (target - prediction)^2, averaged over the probes of the draws: the
evidence lower bound's surrogate log-likelihood with the number of diffusion steps folded into beta (Wallace et al. 2023, eq. 14).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.eyes import Eyes
from robopref.networks.history import build_denoiser, flat_history
from robopref.networks.normalizer import Normalizer
from robopref.pictures import PictureSpec
from robopref.protocols import Generators, Policy
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

Prediction = Literal["epsilon", "sample", "v_prediction"]


class Diffusion(nn.Module):
    """Denoises a chunk of H actions given the last K observations; E of them run before the next chunk.

    eyes: arguments of `networks.eyes.Eyes`, for a policy that sees pictures.
    """

    signal: Tensor
    """(diffusion_steps,), how much of the clean chunk is left at each time."""
    spread: Tensor
    """(diffusion_steps,), standard deviation of the noise at each time."""

    def __init__(
        self,
        dims: Dims,
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        prediction: Prediction = "sample",
        backbone: Literal["mlp", "unet"] = "mlp",
        width: int = 256,
        depth: int = 3,
        diffusion_steps: int = 50,
        sample_steps: int = 8,
        probes: int = 4,
        eyes: Mapping[str, Any] | None = None,
    ) -> None:
        from diffusers import DDIMScheduler  # slow to import

        super().__init__()
        if not 1 <= sample_steps <= diffusion_steps or probes < 1:
            raise InputError(
                f"Diffusion: got sample_steps={sample_steps}, diffusion_steps={diffusion_steps}, probes={probes}, "
                "wanted 1 <= sample_steps <= diffusion_steps and probes >= 1."
            )
        self.eyes = Eyes(**eyes) if eyes else None
        self._spec = PolicySpec(dims, horizon, execute, history, self.eyes.spec if self.eyes else PictureSpec())
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "horizon": horizon, "execute": execute, "history": history, "prediction": prediction,
            "backbone": backbone, "width": width, "depth": depth, "diffusion_steps": diffusion_steps,
            "sample_steps": sample_steps, "probes": probes,
        }  # fmt: skip
        if self.eyes is not None:
            self.config["eyes"] = self.eyes.config
        self.probes, self.sample_steps, self.prediction = probes, sample_steps, prediction
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.denoiser = build_denoiser("Diffusion", backbone, self._spec, width, depth, self.eyes)
        self.scheduler = DDIMScheduler(
            num_train_timesteps=diffusion_steps, beta_schedule="squaredcos_cap_v2", prediction_type=prediction,
            clip_sample=True, set_alpha_to_one=True, timestep_spacing="trailing",
        )  # fmt: skip
        left = self.scheduler.alphas_cumprod
        self.register_buffer("signal", left**0.5, persistent=False)
        self.register_buffer("spread", (1 - left) ** 0.5, persistent=False)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units. DDIM without added noise: the start noise decides all."""
        from diffusers.utils.torch_utils import randn_tensor

        condition = self.encode(observation)
        shape = (len(observation), self._spec.horizon, self._spec.dims.action)
        given = generator if isinstance(generator, torch.Generator) else list(generator)
        chunk = randn_tensor(shape, generator=given, device=condition.device, dtype=condition.dtype)
        self.scheduler.set_timesteps(self.sample_steps, device=condition.device)
        for time in self.scheduler.timesteps:
            predicted = self.denoiser(chunk, time.expand(len(chunk)), condition)
            chunk = self.scheduler.step(predicted, time, chunk, eta=0.0).prev_sample
        return self.normalizer.unaction(chunk.clamp(-1, 1))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """M probes per chunk; times are stratified: probe m falls into the m-th of M equal parts of the schedule."""
        batch, device = len(chunks), chunks.action.device
        uniform = torch.rand(batch, self.probes, generator=generator)
        steps = len(self.scheduler.alphas_cumprod)
        time = ((torch.arange(self.probes) + uniform) * (steps / self.probes)).long().clamp(max=steps - 1)  # (B, M)
        noise = torch.randn(batch, self.probes, *chunks.action.shape[1:], generator=generator)
        return Draws(time.to(device), noise.to(device))

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return self._score(*self._noised(chunks, draws), chunks.mask)

    def score_beside(self, reference: Policy, chunks: Chunks, draws: Draws) -> tuple[Tensor, Tensor]:
        """Scores (B,) of this policy and, without gradient, of a reference that normalises alike: one noising serves both."""
        seen, target = self._noised(chunks, draws)
        with torch.no_grad():
            if isinstance(reference, Diffusion) and reference.config == self.config and self.eyes is None:
                theirs = reference._score(seen, target, chunks.mask)
            else:
                theirs = reference.score(chunks, draws)
        return self._score(seen, target, chunks.mask), theirs

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared denoising error per executed element, (B,)."""
        errors = self._errors(*self._noised(chunks, draws), chunks.mask)
        return errors.sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> Diffusion:
        """A frozen copy of this policy as it is now."""
        frozen = copy.deepcopy(self).eval()
        return frozen.requires_grad_(False)

    def encode(self, observation: Observation) -> Tensor:
        """History (B, K, D), with pictures where the policy has eyes, -> condition (B, C)."""
        return flat_history("Diffusion", self._spec, self.normalizer, observation, self.eyes)

    def _noised(self, chunks: Chunks, draws: Draws) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """What the denoiser sees at the draws (noisy (B M, H, A), time (B M,), condition (B M, C)), and its target (B, M, H, A)."""
        clean = self.normalizer.action(chunks.action)[:, None].expand_as(draws.noise)  # (B, M, H, A)
        batch, probes = draws.time.shape
        flat_clean, flat_noise, time = clean.flatten(0, 1), draws.noise.flatten(0, 1), draws.time.flatten()
        # What the scheduler's add_noise computes (Ho 2020, eq. 4), without reading its table anew: this runs in every training step.
        noisy = self.signal[time, None, None] * flat_clean + self.spread[time, None, None] * flat_noise
        condition = self.encode(chunks.observation).repeat_interleave(probes, dim=0)
        return (noisy, time, condition), self._target(flat_clean, flat_noise, time).unflatten(0, (batch, probes))

    def _target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        return self.scheduler.get_velocity(clean, noise, time)

    def _errors(self, seen: tuple[Tensor, Tensor, Tensor], target: Tensor, mask: Tensor) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        predicted = self.denoiser(*seen).unflatten(0, target.shape[:2])
        return F.mse_loss(predicted, target, reduction="none").mean(dim=1) * mask

    def _score(self, seen: tuple[Tensor, Tensor, Tensor], target: Tensor, mask: Tensor) -> Tensor:
        return -0.5 * self._errors(seen, target, mask).sum(dim=(1, 2))
