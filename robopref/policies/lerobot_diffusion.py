"""lerobot's Diffusion Policy (Chi et al. 2023) from its checkpoint folder, with the surrogate score of `policies/diffusion.py`.

lerobot's horizon begins at the oldest observation. A chunk here begins now, so the K - 1 steps before it are filled with its first action
and never count; for K = 1 nothing is filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robopref.networks.lerobot import LeRobotPolicy
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation


class LeRobotDiffusion(LeRobotPolicy):
    """Denoises chunks with lerobot's own network, schedule and statistics. checkpoint: the content of its config.json."""

    kind = "diffusion"

    def __init__(self, checkpoint: Mapping[str, Any], probes: int = 4) -> None:
        super().__init__(checkpoint, probes=probes)
        self.probes = probes
        self.before = self.body.policy.config.n_obs_steps - 1

    @staticmethod
    def horizon(told: Any) -> int:
        """H: what of lerobot's horizon begins now."""
        return int(told.horizon) - told.n_obs_steps + 1

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units."""
        from diffusers.utils.torch_utils import randn_tensor

        condition = self.encode(observation)
        given: Any = generator if isinstance(generator, torch.Generator) else list(generator)
        shape = (len(observation), self._spec.horizon + self.before, self._spec.dims.action)
        noise = randn_tensor(shape, generator=given, device=condition.device, dtype=condition.dtype)
        model = self.body.policy.diffusion
        found = model.conditional_sample(len(observation), condition, generator=given, noise=noise)
        return self.normalizer.unaction(found[:, self.before :])

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """M probes per chunk, times stratified over the schedule; noise (B, M, K - 1 + H, A) has lerobot's horizon."""
        batch, steps = len(chunks), self.body.policy.config.num_train_timesteps
        uniform = torch.rand(batch, self.probes, generator=generator)
        strata = (torch.arange(self.probes) + uniform) / self.probes  # (B, M) in [0, 1)
        shape = (batch, self.probes, self._spec.horizon + self.before, self._spec.dims.action)
        noise, device = torch.randn(shape, generator=generator), chunks.action.device
        return Draws((strata * steps).long().clamp(max=steps - 1).to(device), noise.to(device))

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return -0.5 * self._errors(chunks, draws).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared denoising error per executed element, (B,)."""
        return self._errors(chunks, draws).sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def encode(self, observation: Observation) -> Tensor:
        """What is seen -> condition (B, C)."""
        batch = self.body.batch(observation, self._spec)
        if self.body.cameras:
            batch["observation.images"] = torch.stack([batch[key] for key in self.body.cameras.values()], dim=-4)
        return self.body.policy.diffusion._prepare_global_conditioning(batch)

    def _errors(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        model, (batch, probes) = self.body.policy.diffusion, draws.time.shape
        action = self.normalizer.action(chunks.action)
        action = torch.cat([action[:, :1].expand(-1, self.before, -1), action], dim=1)  # (B, K - 1 + H, A)
        clean = action[:, None].expand_as(draws.noise).flatten(0, 1)
        noise, time = draws.noise.flatten(0, 1), draws.time.flatten()
        condition = self.encode(chunks.observation).repeat_interleave(probes, dim=0)  # (B M, C)
        predicted = model.unet(model.noise_scheduler.add_noise(clean, noise, time), time, global_cond=condition)
        target = noise if self.body.policy.config.prediction_type == "epsilon" else clean
        errors = (predicted.float() - target).square().unflatten(0, (batch, probes)).mean(dim=1)
        return errors[:, self.before :] * chunks.mask
