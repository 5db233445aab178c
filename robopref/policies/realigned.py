"""A policy that acts a step further from its reference than it was trained to (decoding-time realignment, Liu et al. 2024, eq. 8).

Alignment at strength beta ends near pi_reference exp(r / beta), so log pi - log pi_reference is the preference that was learned, and
pi (pi / pi_reference)^g is what a weaker tie to the reference would have given. For a Gaussian head the mean moves by g (mean -
reference mean), for tokens the logits do, for diffusion and flow the denoiser's output does at every step of sampling (as in
classifier-free guidance). Scores and training are those of the policy alone; only `act` looks at the reference.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.guidance import Beyond, check_alike, described, one_network
from robopref.networks.history import flat_history
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation, PolicySpec


class Realigned(nn.Module):
    """A head of this package beside its reference; guidance >= 0 says how far beyond its training it acts (0: as trained).

    Raises `InputError` for a negative guidance, heads of two kinds or with other normalisers, and heads that learn more than one network.
    """

    def __init__(self, policy: nn.Module, reference: nn.Module, guidance: float = 1.0) -> None:
        super().__init__()
        if guidance < 0:
            raise InputError(f"Realigned.guidance: got {guidance}, wanted a scale >= 0 (0 acts as it was trained).")
        self.config: dict[str, Any] = {
            "policy": described(policy), "reference": described(reference), "guidance": guidance,
        }  # fmt: skip
        check_alike("Realigned", policy, reference)
        self.policy: Any = policy
        self.guidance = guidance
        self._network = one_network("Realigned", policy)
        self.reference_eyes = _eyes_of(reference)
        if self.reference_eyes is not None:
            self.reference_eyes.requires_grad_(False)
        setattr(policy, self._network, Beyond(getattr(policy, self._network), getattr(reference, self._network)))

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self.policy.spec

    @property
    def normalizer(self) -> Any:
        """The policy's normaliser, which the reference shares."""
        return self.policy.normalizer

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units, `guidance` beyond the policy."""
        beyond = getattr(self.policy, self._network)
        beyond.guidance = self.guidance
        if self.reference_eyes is not None:
            beyond.other_condition = flat_history(
                "Realigned", self.spec, self.normalizer, observation, self.reference_eyes
            )
        try:
            return self.policy.act(observation, generator)
        finally:
            beyond.guidance, beyond.other_condition = 0.0, None

    def acting(self) -> Any:
        """The head alone with its guidance always on, for samplers that drive its network themselves; its scores mean nothing."""
        if self.reference_eyes is not None:
            raise InputError(
                "Realigned.acting: got a policy with eyes, wanted one that reads states. Act through it, or use guidance 0."
            )
        head = copy.deepcopy(self.policy).eval().requires_grad_(False)
        getattr(head, self._network).guidance = self.guidance
        return head

    def trained(self) -> Any:
        """A copy of the head that acts as it was trained, without its reference."""
        head = copy.deepcopy(self.policy)
        setattr(head, self._network, getattr(head, self._network).network)
        return head

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """The policy's draws."""
        return self.policy.draw(chunks, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The policy's own score of chunks (B,), without guidance."""
        return self.policy.score(chunks, draws)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The policy's own cloning loss (B,)."""
        return self.policy.loss(chunks, draws)

    def reference(self) -> Realigned:
        """A frozen copy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)


def realign(policy: Any, guidance: float) -> Any:
    """A policy beside a copy of itself as it is now; one that has a reference already keeps it, and guidance 0 changes nothing."""
    if guidance == 0 or isinstance(policy, Realigned):
        return policy
    return Realigned(policy, policy.reference(), guidance)


def _eyes_of(policy: nn.Module) -> Any:
    """What a head looks with, if it does."""
    return dict(policy.named_children()).get("eyes")
