"""A head that is told how good its actions should be, with classifier-free guidance (RECAP, Physical Intelligence 2025; Ho and Salimans 2022).

An indicator I stands beside the observation: +1 preferred, -1 not, 0 not said; real numbers between are advantages. The policy acts with
I = 1. With guidance g, the head's network output is v(0) + g (v(1) - v(0)): g = 1 is the condition itself, g > 1 goes beyond it. This
needs no likelihood and works for every head, because all of them call one network with the condition as its last argument.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.guidance import NETWORKS, extrapolated, network_name
from robopref.networks.normalizer import Normalizer
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec


class Guided(nn.Module):
    """A head's network, extrapolated from "not said" to "preferred" while `strength` is set; otherwise the network itself."""

    columns: Tensor

    def __init__(self, network: nn.Module, columns: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("columns", columns, persistent=False)
        self.strength: float | None = None

    def forward(self, *inputs: Any) -> Any:
        """The network's output for (..., condition (B, C)); `columns` (C,) bool marks the indicator in the condition."""
        *rest, condition = inputs
        if self.strength is None or self.strength == 1:
            return self.network(*rest, condition)
        bare = condition.masked_fill(self.columns, 0.0)
        return extrapolated(self.network, self.network, self.strength, rest, condition, bare)


class Conditioned(nn.Module):
    """Any head of this package with an indicator of preference. head: its class path; arguments: its constructor's, without dims."""

    def __init__(
        self, dims: Dims, head: str, arguments: Mapping[str, Any] | None = None, guidance: float = 1.5
    ) -> None:
        super().__init__()
        given = dict(arguments or {})
        self.config: dict[str, Any] = {"dims": asdict(dims), "head": head, "arguments": given}
        self.set_guidance(guidance)
        self._dims = dims
        self.normalizer = Normalizer(dims.observation, dims.action)
        # The head sees and gives normalised numbers: its own normaliser stays the identity, and the indicator is not rescaled.
        self.head = _head_class(head)(dims=Dims(dims.observation + 1, dims.action), **given)
        if self.head.spec.pictures.cameras:
            raise InputError(
                "Conditioned.head: got a head with eyes, wanted one that reads states: the indicator has no place beside pictures yet."
            )
        spec = self.head.spec
        columns = torch.zeros(spec.history, dims.observation + 1, dtype=torch.bool)
        columns[:, -1] = True
        name = network_name(self.head)
        if name is None:
            raise InputError(
                f"Conditioned.head: got {head}, wanted a head with a network named {' or '.join(NETWORKS)}."
            )
        self._guided = name
        setattr(self.head, name, Guided(getattr(self.head, name), columns.flatten()))

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy: those of the head, without the indicator."""
        head = self.head.spec
        return PolicySpec(self._dims, head.horizon, head.execute, head.history, head.pictures)

    def set_guidance(self, guidance: float) -> None:
        """How strongly to act as preferred: a base that was cloned under I = 1 alone needs 1, the condition itself."""
        if guidance < 0:
            raise InputError(
                f"Conditioned.guidance: got {guidance}, wanted a scale >= 0 (0 ignores preferences, 1 follows them)."
            )
        self.guidance = self.config["guidance"] = guidance

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units that should be preferred."""
        guided = getattr(self.head, self._guided)
        guided.strength = self.guidance
        try:
            chunk = self.head.act(self._told(observation, torch.ones(len(observation))), generator)
        finally:
            guided.strength = None
        return self.normalizer.unaction(chunk)

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """The head's draws."""
        return self.head.draw(chunks, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The head's score of chunks (B,) given that they are preferred, without guidance."""
        return self.head.score(self._conditioned(chunks, torch.ones(len(chunks))), draws)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The head's cloning loss (B,) given that the chunks are preferred."""
        return self.head.loss(self._conditioned(chunks, torch.ones(len(chunks))), draws)

    def told_loss(self, chunks: Chunks, draws: Draws, indicator: Tensor) -> Tensor:
        """The head's cloning loss (B,) given an indicator (B,) in [-1, 1], 0 where nothing is said."""
        check_shape("Conditioned", "indicator", tuple(indicator.shape), (len(chunks),), "One indicator per chunk.")
        return self.head.loss(self._conditioned(chunks, indicator), draws)

    def reference(self) -> Conditioned:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def _conditioned(self, chunks: Chunks, indicator: Tensor) -> Chunks:
        told = self._told(chunks.observation, indicator)
        return Chunks(told, self.normalizer.action(chunks.action), chunks.mask)

    def _told(self, observation: Observation, indicator: Tensor) -> Observation:
        """Normalised history with the indicator as one more column, (B, K, D + 1)."""
        wanted = (None, self.spec.history, self._dims.observation)
        check_shape(
            "Conditioned", "observation", tuple(observation.state.shape), wanted, "Use the policy's own environment."
        )
        state = self.normalizer.state(observation.state)
        column = indicator.to(state)[:, None, None].expand(-1, state.shape[1], 1)
        return replace(observation, state=torch.cat([state, column], dim=-1))


def _head_class(path: str) -> Any:
    """The class of a path inside robopref.policies."""
    module, _, name = path.rpartition(".")
    if not module.startswith("robopref.policies."):
        raise InputError(
            f"Conditioned.head: got {path!r}, wanted a class of robopref.policies, such as robopref.policies.flow.Flow."
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"Conditioned.head: {path!r} does not exist. Look into robopref/policies/.") from error
