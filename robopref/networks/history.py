"""What every head does with what it sees: check it, normalise it, lay the history flat."""

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.eyes import Eyes
from robopref.networks.mlp import MLPDenoiser
from robopref.networks.normalizer import Normalizer
from robopref.networks.unet import UNetDenoiser
from robopref.types import Chunks, Draws, Observation, PolicySpec


def flat_history(
    owner: str, spec: PolicySpec, normalizer: Normalizer, observation: Observation, eyes: Eyes | None = None
) -> Tensor:
    """History (B, K, D) -> condition (B, C): C = K D, or with eyes the numbers they leave and their features.

    Raises `InputError` for another K or D, and for pictures that are missing or of another size.
    """
    wanted = (None, spec.history, spec.dims.observation)
    check_shape(owner, "observation", tuple(observation.state.shape), wanted, "Use the policy's own environment.")
    state = normalizer.state(observation.state)
    if eyes is None:
        return state.flatten(1)
    return torch.cat([eyes.read(state).flatten(1), eyes(observation)], dim=-1)


def build_denoiser(
    owner: str, backbone: str, spec: PolicySpec, width: int, depth: int, eyes: Eyes | None = None
) -> nn.Module:
    """The network (noisy (B, H, A), time (B,), condition (B, C)) -> (B, H, A) of a name: mlp or unet."""
    condition = spec.history * spec.dims.observation
    if eyes is not None:
        condition = spec.history * eyes.numbers(spec.dims.observation) + eyes.features(spec.history)
    if backbone == "mlp":
        return MLPDenoiser(spec.horizon, spec.dims.action, condition, width, depth)
    if backbone == "unet":
        return UNetDenoiser(spec.horizon, spec.dims.action, condition, width)
    raise InputError(f"{owner}.backbone: got {backbone!r}, wanted mlp or unet.")


def no_draws(chunks: Chunks) -> Draws:
    """Draws of a head whose score is exact: one probe that nothing depends on."""
    zeros = torch.zeros_like(chunks.action)[:, None]  # (B, 1, H, A)
    return Draws(zeros[:, :, 0, 0], zeros)
