"""One policy with a weight that is chosen when it runs: how far it acts from its base towards what people did not mark as bad.

At every call of the head's network the output is base + w (steered - base): w = 0 is the base bit for bit, w = 1 what was steered, above 1
what lies beyond it. This is decoding-time realignment (Liu et al. 2024, eq. 8) seen from the base: for tokens the logits are mixed, for a
Gaussian head the mean, for diffusion and flow the denoiser's output at every step of sampling. Wrappers offer `act` alone.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.guidance import Beyond, check_alike, described, one_network
from robopref.networks.normalizer import check_shared
from robopref.protocols import Generators
from robopref.types import Observation, PolicySpec


class Dial(nn.Module):
    """A base head and the network of a steered one; `weight` >= 0 says how far to go, and may be turned between any two calls.

    Takes both heads over. Raises `InputError` for a weight below 0, heads of two kinds or with other normalisers, heads with eyes, and
    heads that learn more than one network.
    """

    def __init__(self, base: nn.Module, steered: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        check_alike("Dial", base, steered)
        check_shared("Dial", base, steered)
        self._arguments = {"base": described(base), "steered": described(steered)}
        self._network = one_network("Dial", base)
        self.policy: Any = base
        if self.spec.pictures.cameras:
            raise InputError(
                "Dial: got a head with eyes, wanted one that reads states: two networks would have to look."
            )
        setattr(base, self._network, Beyond(getattr(base, self._network), getattr(steered, self._network)))
        self.set_weight(weight)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self.policy.spec

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        return {**self._arguments, "weight": self.weight}

    def set_weight(self, weight: float) -> None:
        """Turn the dial. Raises `InputError` for a weight below 0 or that is no number."""
        if not math.isfinite(weight) or weight < 0:
            raise InputError(
                f"Dial.weight: got {weight}, wanted a number >= 0 (0 is the base, 1 what was learned from the marks).\n"
                "Take 0 for the base: below it the policy would seek what was marked."
            )
        self.weight = float(weight)

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units, at the dial's weight."""
        beyond = getattr(self.policy, self._network)
        beyond.guidance = -self.weight  # base + (1 - w - 1) (base - steered), see `networks.guidance.extrapolated`
        try:
            return self.policy.act(observation, generator)
        finally:
            beyond.guidance = 0.0
