"""Real-time chunking: a new chunk that continues the one still being executed (Black, Galliker, Levine 2025).

While a chunk is computed, `delay` actions of the old one run anyway. The new chunk is sampled so that it agrees with the old one
there (weight 1), bends towards it over the next rows (weights falling to 0), and is free beyond. The pull is the gradient
of 1/2 ||W^(1/2) (Y - x0(x))||^2 through the denoiser, the true vector-Jacobian product; with an identity in its place the pull is wrong
(the test on a Gaussian prior says so). `mode="prefix"` only overwrites the frozen rows at every step (inpainting), without gradient.

A policy that is nearly deterministic has a Jacobian near 0: nothing can be pulled, and the new chunk jumps away from the old one. So the
chunk is blended with the old one after sampling, W Y + (1 - W) x: where the pull could reach Y it has, and the blend changes little;
where it could not, the blend spreads the jump over the overlap. On a Gaussian prior the unclipped pull ends at that very mean.

The paper bends towards the old chunk over the whole overlap, H - s rows. With a delay near s, the rows that run before the next chunk
comes are the first of these, held with weights near 1: what was seen hardly reaches what is done, and chunks that are asked for early
make the policy blind. `fade` therefore ends the overlap that many rows behind the frozen ones; None keeps all of it.

| paper | here |
|---|---|
| H, d, s | horizon, delay, executed |
| Y, W | previous, weights |
| - | fade: rows over which W falls, all H - s - d of them in the paper |
| beta | beta: largest guidance weight; at least the number of denoising steps, or frozen rows are missed |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from robopref.arrays import InputError, check_shape
from robopref.protocols import Generators
from robopref.types import Observation, PolicySpec

Mode = Literal["guidance", "prefix"]
Schedule = Literal["exp", "linear", "cosine"]


def prefix_weights(
    horizon: int, delay: int, executed: int, schedule: Schedule = "exp", fade: int | None = None
) -> Tensor:
    """How firmly each row holds to the previous chunk, (H,): 1 for rows < delay, falling to 0 at row min(H - executed, delay + fade).

    exp: equation 5 of the paper. cosine: level at both ends, so that no row of a blend stands out, least of all the first. fade: rows
    over which they fall; None: all there are. Raises `InputError` unless 0 <= delay <= executed <= horizon - delay and fade >= 0.
    """
    if fade is not None and fade < 0:
        raise InputError(f"prefix_weights: got fade={fade}, wanted at least 0 rows, or None for the whole overlap.")
    if not 0 <= delay <= executed <= horizon - delay:
        raise InputError(
            f"prefix_weights: got horizon={horizon}, delay={delay}, executed={executed}, "
            "wanted 0 <= delay <= executed <= horizon - delay. Predict longer chunks or infer faster."
        )
    end = horizon - executed if fade is None else min(horizon - executed, delay + fade)
    weights = []
    for row in range(horizon):
        c = (end - row) / (end - delay + 1)
        if schedule == "exp":
            falling = c * math.expm1(c) / math.expm1(1.0)
        else:
            falling = c if schedule == "linear" else (1 - math.cos(math.pi * c)) / 2
        weights.append(1.0 if row < delay else falling if row < end else 0.0)
    return torch.tensor(weights)


def pulled(estimate: Callable[[Tensor], Tensor], x: Tensor, previous: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(x0, J^T W (Y - x0)) with x0 = estimate(x) and J = dx0/dx, all (B, H, A); weights (B, H, 1) or (H, 1)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)  # before the forward pass, or J would be missing
        x0 = estimate(x)
        error = (weights * (previous - x0)).detach()
        (pull,) = torch.autograd.grad(x0, x, error)
    return x0.detach(), pull


def flow_weight(tau: float, beta: float, sigma: float = 1.0) -> float:
    """Guidance weight of a flow at time tau (0 noise, 1 data): min(beta, (1 - tau) / (tau r^2)), sigma the prior's spread."""
    rest = 1.0 - tau
    if tau <= 0.0 or rest <= 0.0:
        return beta
    r2 = (sigma * rest) ** 2 / ((sigma * tau) ** 2 + rest**2)
    return min(beta, rest / (tau * r2))


def guided_flow(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    steps: int,
    previous: Tensor,
    weights: Tensor,
    beta: float,
) -> Tensor:
    """Euler sampling of dx/dtau = velocity(x, tau) from noise (B, H, A), pulled towards `previous` (equations 2 to 4)."""
    x = noise
    for step in range(steps):
        tau = step / steps

        def estimate(x: Tensor, tau: float = tau) -> Tensor:
            return x + (1.0 - tau) * velocity(x, tau)

        x0, pull = pulled(estimate, x, previous, weights)
        v = (x0 - x) / (1.0 - tau) + flow_weight(tau, beta) * pull
        x = x + v / steps
    return x


def continues(policy: Any) -> bool:
    """Whether a policy's chunks can be continued: a diffusion head (`denoiser`, `scheduler`) or a flow (`velocity`)."""
    return all(hasattr(policy, name) for name in ("encode", "normalizer", "sample_steps")) and (
        hasattr(policy, "velocity") or all(hasattr(policy, name) for name in ("denoiser", "scheduler"))
    )


@dataclass(frozen=True)
class RealTimeChunking:
    """A diffusion or flow policy that can continue a chunk; see `continues` for what it must offer.

    mode: the pull of the paper, or frozen rows overwritten at every step, without gradient: with a fade of 2 rows and a delay of 4 it
    cost 4 points of success on door-open where the pull cost 10. beta: largest guidance weight. schedule: of the weights. blend: whether
    the overlap is averaged with the old chunk after sampling.
    fade: rows behind those that run anyway over which the old chunk still counts; None: the whole overlap, as published.
    """

    policy: Any
    mode: Mode = "prefix"
    beta: float = 10.0
    schedule: Schedule = "cosine"
    blend: bool = True
    fade: int | None = 2

    def __post_init__(self) -> None:
        if not continues(self.policy):
            raise InputError(
                f"RealTimeChunking: got a {type(self.policy).__name__} without denoiser and scheduler, or velocity, "
                "wanted a diffusion policy or a flow."
            )
        if self.mode not in ("guidance", "prefix") or self.beta <= 0:
            raise InputError(
                f"RealTimeChunking: got mode={self.mode!r}, beta={self.beta}, wanted guidance or prefix, > 0."
            )
        prefix_weights(self.policy.spec.horizon, 0, self.policy.spec.horizon, self.schedule, self.fade)  # refuses

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self.policy.spec

    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """A chunk that continues nothing: (B, H, A)."""
        return self.policy.act(observation, generator)

    @torch.no_grad()
    def resume(
        self, observation: Observation, previous: Tensor, delay: Tensor, executed: Tensor, generator: Generators
    ) -> Tensor:
        """Chunks (B, H, A) in environment units that continue `previous`.

        previous: (B, H, A), the actions not yet executed at the observation, first row first, anything where there are none.
        delay, executed: (B,) whole numbers, see `prefix_weights`; a row with executed = H is free.
        """
        from diffusers.utils.torch_utils import randn_tensor

        spec, policy = self.policy.spec, self.policy
        shape = (len(observation), spec.horizon, spec.dims.action)
        check_shape(
            "RealTimeChunking", "previous", tuple(previous.shape), shape, "Pad the remaining actions to H rows."
        )
        condition, like = policy.encode(observation), policy.normalizer.low
        rows = [
            prefix_weights(spec.horizon, d, s, self.schedule, self.fade)
            for d, s in zip(delay.tolist(), executed.tolist(), strict=True)
        ]
        weights = torch.stack(rows)[..., None].to(like)  # (B, H, 1)
        previous = previous.to(like)
        wanted = policy.normalizer.action(previous)
        given = generator if isinstance(generator, torch.Generator) else list(generator)
        noise = randn_tensor(shape, generator=given, device=like.device, dtype=like.dtype)
        sample = self._flow if hasattr(policy, "velocity") else self._diffusion
        chunk = policy.normalizer.unaction(sample(noise, condition, wanted, weights).clamp(-1, 1).to(like))
        # What runs anyway (weight 1) is part of the answer exactly, whatever the sampler made of it.
        held = weights if self.blend else (weights == 1.0).to(like)
        return torch.where(held == 1.0, previous, torch.lerp(chunk, previous, held))

    def _flow(self, noise: Tensor, condition: Any, wanted: Tensor, weights: Tensor) -> Tensor:
        """Euler steps whose estimate of the end is pulled, or whose frozen rows are overwritten: (B, H, A)."""
        frozen, steps = weights == 1.0, self.policy.sample_steps

        def velocity(x: Tensor, tau: float) -> Tensor:
            return -self.policy.velocity(x, x.new_full((len(x),), 1 - tau), condition)  # the head's time runs backwards

        if self.mode == "guidance":
            return guided_flow(velocity, noise, steps, wanted, weights, self.beta)
        x = noise
        for step in range(steps):
            tau = step / steps
            x = torch.where(frozen, tau * wanted + (1 - tau) * noise, x)
            x = x + velocity(x, tau) / steps
        return x

    def _diffusion(self, noise: Tensor, condition: Any, wanted: Tensor, weights: Tensor) -> Tensor:
        """DDIM (eta = 0) whose estimate x0 is pulled, or whose frozen rows are overwritten, at every step: (B, H, A)."""
        scheduler = self.policy.scheduler
        scheduler.set_timesteps(self.policy.sample_steps, device=noise.device)
        stride = scheduler.config.num_train_timesteps // self.policy.sample_steps
        frozen, x = weights == 1.0, noise
        for time in scheduler.timesteps:
            now = scheduler.alphas_cumprod[time].to(x)
            before = time - stride
            then = (scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod).to(x)
            if self.mode == "prefix":
                x = torch.where(frozen, now.sqrt() * wanted + (1 - now).sqrt() * noise, x)
                x0 = self._estimate(x, time, now, condition)
            else:
                estimate = partial(self._estimate, time=time, alpha=now, condition=condition)
                x0, pull = pulled(estimate, x, wanted, weights)
                x0 = x0 + min(self.beta, float(now.rsqrt())) * pull
            # As diffusers' DDIM has it: the noise follows from the estimate before it is clipped.
            epsilon = (x - now.sqrt() * x0) / (1 - now).sqrt()
            if scheduler.config.clip_sample:
                x0 = x0.clamp(-1, 1)
            x = then.sqrt() * x0 + (1 - then).sqrt() * epsilon
        return x

    def _estimate(self, x: Tensor, time: Tensor, alpha: Tensor, condition: Any) -> Tensor:
        """The clean chunk that the denoiser expects behind x, (B, H, A)."""
        said = self.policy.denoiser(x, time.expand(len(x)), condition)
        kind = self.policy.scheduler.config.prediction_type
        if kind == "sample":
            return said
        if kind == "epsilon":
            return (x - (1 - alpha).sqrt() * said) / alpha.sqrt()
        return alpha.sqrt() * x - (1 - alpha).sqrt() * said  # v-prediction (Salimans and Ho 2022)
