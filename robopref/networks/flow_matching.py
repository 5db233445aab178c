"""Flow matching of action chunks (Lipman et al. 2023) for any velocity network: draws, errors, sampling.

**t = 1 is noise, t = 0 is the action**: x_t = t noise + (1 - t) action, velocity u = dx/dt = noise - action.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robopref.types import Chunks, Draws

Velocity = Callable[[Tensor, Tensor], Tensor]
"""dx/dt (B, H, A) at x_t (B, H, A) and t (B,) in [0, 1]."""
_LEAST_TIME = 1e-3


def stratified(chunks: Chunks, probes: int, power: float, generator: torch.Generator) -> Draws:
    """M probes per chunk; times ~ 0.001 + 0.999 Beta(power, 1) (Black et al. 2024, pi0), probe m in the m-th of M quantiles."""
    batch, device = len(chunks), chunks.action.device
    uniform = torch.rand(batch, probes, generator=generator)
    quantile = (torch.arange(probes) + uniform) / probes  # (B, M) in [0, 1)
    time = _LEAST_TIME + (1 - _LEAST_TIME) * quantile ** (1 / power)
    noise = torch.randn(batch, probes, *chunks.action.shape[1:], generator=generator)
    return Draws(time.to(device), noise.to(device))


def squared_errors(velocity: Velocity, clean: Tensor, draws: Draws) -> Tensor:
    """(u - v)^2 of normalised chunks (B, H, A), averaged over probes: (B, H, A). Rows of the network are (B M), probes inside."""
    batch, probes = draws.time.shape
    clean = clean[:, None].expand_as(draws.noise)  # (B, M, H, A)
    time = draws.time[..., None, None]
    noisy = (time * draws.noise + (1 - time) * clean).flatten(0, 1)
    predicted = velocity(noisy, draws.time.flatten()).unflatten(0, (batch, probes))
    return (draws.noise - clean - predicted).square().mean(dim=1)


def integrate(
    velocity: Velocity, shape: tuple[int, ...], steps: int, generator: torch.Generator | Sequence[torch.Generator],
    like: Tensor,
) -> Tensor:  # fmt: skip
    """Normalised chunks of a shape (B, H, A) by Euler steps from t = 1 to 0; the start noise decides all. Device and dtype of `like`."""
    from diffusers.utils.torch_utils import randn_tensor

    given = generator if isinstance(generator, torch.Generator) else list(generator)
    chunk = randn_tensor(shape, generator=given, device=like.device, dtype=like.dtype)
    for step in range(steps):
        time = chunk.new_full((len(chunk),), 1 - step / steps)
        chunk = chunk - velocity(chunk, time) / steps
    return chunk
