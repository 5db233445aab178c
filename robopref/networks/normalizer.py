"""Normalisation frozen into a policy: its numbers travel with the checkpoint, so data seen later cannot move them."""

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape

CLIP = 5.0
"""Normalised states are cut at this many standard deviations: an unseen dimension must not flood the network."""


def check_shared(owner: str, policy: nn.Module, reference: nn.Module) -> None:
    """Raise `InputError` unless two policies normalise alike: their scores would be of different things."""
    for name in ("mean", "std", "low", "high"):
        if not torch.equal(getattr(policy.normalizer, name), getattr(reference.normalizer, name)):
            raise InputError(
                f"{owner}: got a reference with another normaliser ({name} differs), wanted that of the policy.\n"
                "Take the policy that the alignment started from as reference."
            )


class Normalizer(nn.Module):
    """States to zero mean and unit deviation; actions from their range to [-1, 1]."""

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, observation: int, action: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(observation))
        self.register_buffer("std", torch.ones(observation))
        self.register_buffer("low", -torch.ones(action))
        self.register_buffer("high", torch.ones(action))

    @torch.no_grad()
    def fit(self, observation: Tensor, action: Tensor) -> None:
        """Set from data: observation (N, D), action (N, A). Constant dimensions keep the scale 1."""
        do = "Fit the normaliser on data of the policy's own dimensions."
        check_shape("Normalizer", "observation", tuple(observation.shape), (None, len(self.mean)), do)
        check_shape("Normalizer", "action", tuple(action.shape), (None, len(self.low)), do)
        std = observation.double().std(dim=0, correction=0).float()
        self.mean.copy_(observation.double().mean(dim=0))
        self.std.copy_(torch.where(std > 1e-5, std, torch.ones_like(std)))
        low, high = action.amin(dim=0), action.amax(dim=0)
        wide = high - low > 1e-5
        self.low.copy_(torch.where(wide, low, low - 1))
        self.high.copy_(torch.where(wide, high, high + 1))

    def state(self, observation: Tensor) -> Tensor:
        """Normalised states, any leading shape: (..., D) -> (..., D)."""
        return ((observation - self.mean) / self.std).clamp(-CLIP, CLIP)

    def action(self, action: Tensor) -> Tensor:
        """Environment actions to [-1, 1]: (..., A) -> (..., A)."""
        return 2 * (action - self.low) / (self.high - self.low) - 1

    def unaction(self, action: Tensor) -> Tensor:
        """The inverse of `action`: (..., A) -> (..., A)."""
        return (action + 1) / 2 * (self.high - self.low) + self.low
