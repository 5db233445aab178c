"""Diffusion policy over action chunks: DDPM training, DDIM sampling (Ho 2020; Song 2021; Chi et al. 2023).

Score: s = -1/2 sum over executed elements of (target - prediction)^2, averaged over the probes of the draws: the
evidence lower bound's surrogate log-likelihood with the number of diffusion steps folded into beta (Wallace et al. 2023, eq. 14).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.eyes import Eyes
from robopref.networks.history import build_denoiser, flat_history
from robopref.networks.normalizer import Normalizer
from robopref.pictures import PictureSpec
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Noised, Observation, PolicySpec

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

    def prepared(self, chunks: Chunks, draws: Draws) -> Draws:
        """The draws with their noise added to these chunks; as they are for a policy with eyes, whose condition follows its weights."""
        return draws if self.eyes is not None else replace(draws, noised=self._noised(chunks, draws))

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return -0.5 * self._squared_error(self._noised(chunks, draws), chunks.mask)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared denoising error per executed element, (B,)."""
        noised = self._noised(chunks, draws)
        return self._squared_error(noised, chunks.mask) / noised.elements

    def reference(self) -> Diffusion:
        """A frozen copy of this policy as it is now."""
        frozen = copy.deepcopy(self).eval()
        return frozen.requires_grad_(False)

    def encode(self, observation: Observation) -> Tensor:
        """History (B, K, D), with pictures where the policy has eyes, -> condition (B, C)."""
        return flat_history("Diffusion", self._spec, self.normalizer, observation, self.eyes)

    def _noised(self, chunks: Chunks, draws: Draws) -> Noised:
        """What the denoiser sees at the draws; made ahead by a policy of the same settings, it is taken from them."""
        if draws.noised is not None and draws.noised.made_by == self.config:
            return draws.noised
        probes, time = draws.time.shape[1], draws.time.flatten()
        clean = self.normalizer.action(chunks.action)[:, None].expand_as(draws.noise).flatten(0, 1)  # (B M, H, A)
        noise = draws.noise.flatten(0, 1)
        # What the scheduler's add_noise computes (Ho 2020, eq. 4), without reading its table anew: this runs in every training step.
        noisy = self.signal[time, None, None] * clean + self.spread[time, None, None] * noise
        condition = self.encode(chunks.observation).repeat_interleave(probes, dim=0)
        target = self._target(clean, noise, time).unflatten(0, draws.time.shape)
        return Noised(noisy, time, condition, target, chunks.mask.sum(dim=(1, 2)).clamp(min=1), self.config)

    def _target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        return self.scheduler.get_velocity(clean, noise, time)

    def _squared_error(self, noised: Noised, mask: Tensor) -> Tensor:
        """Squared errors (B,), executed elements summed, averaged over probes."""
        predicted = self.denoiser(noised.noisy, noised.time, noised.condition).view_as(noised.target)
        errors = F.mse_loss(predicted, noised.target, reduction="none").mean(dim=1) * mask  # (B, H, A)
        return errors.sum(dim=(1, 2))
