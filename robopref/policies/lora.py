"""Any policy with low-rank adapters, whose reference is the same policy with its adapters off: alignment without a second copy.

Only the adapters learn, so policy and reference agree exactly before the first step, and the optimiser's memory is that of the adapters.
A policy that was itself tuned by LoRA must be merged first (`merged`): off means the weights below, whatever made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robopref.networks import lora
from robopref.networks.guidance import described
from robopref.protocols import Generators, Policy
from robopref.types import Chunks, Draws, Observation, PolicySpec


class LoRA(nn.Module):
    """A policy of which only adapters learn. It is changed in place and must not be used beside this wrapper.

    rank, alpha: of the update (alpha / rank) B A. targets: ends of the names of the layers that get adapters; all linear ones without.
    root: the part of the policy that is adapted, and where the names of an adapter folder begin ("network"); all of it without.
    """

    def __init__(
        self, policy: nn.Module, rank: int = 32, alpha: float = 32.0, targets: Sequence[str] = (), root: str = ""
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "policy": described(policy), "rank": rank, "alpha": alpha, "targets": list(targets), "root": root,
        }  # fmt: skip
        self.policy: Any = policy.requires_grad_(False)
        self._root = root
        self.layers = lora.attach(self.body, rank, alpha, targets)

    @property
    def body(self) -> nn.Module:
        """The part that has the adapters."""
        return self.policy.get_submodule(self._root)

    @property
    def normalizer(self) -> nn.Module:
        """The policy's own."""
        return self.policy.normalizer

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self.policy.spec

    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units."""
        return self.policy.act(observation, generator)

    def draw(self, chunks: Chunks, generator: Any) -> Draws:
        """The policy's draws."""
        return self.policy.draw(chunks, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The policy's score of chunks (B,)."""
        return self.policy.score(chunks, draws)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """The policy's cloning loss (B,)."""
        return self.policy.loss(chunks, draws)

    def reference(self) -> AdaptersOff:
        """This policy with its adapters off, sharing all weights. Raises `InputError` when anything but adapters would learn."""
        return AdaptersOff(self)

    def merged(self) -> Any:
        """The policy with what the adapters learned added to its weights, in place; this wrapper is of no use afterwards.

        For the next round, whose reference is the policy of this one.
        """
        lora.merge(self.body)
        return self.policy

    def save_adapter(self, folder: Path) -> Path:
        """Write the adapters alone, as a folder that peft loads too; a hash of the base goes with them."""
        lora.write_adapter(self.body, lora.fingerprint(self.policy), folder)
        return folder

    @classmethod
    def with_adapter(cls, policy: nn.Module, folder: Path, root: str = "") -> LoRA:
        """A policy with the adapters of a folder. Raises `InputError` for a missing or foreign folder and for adapters of another base."""
        told = lora.read_adapter_config(folder)
        adapted = cls(policy, root=root, **told)
        lora.read_adapter(adapted.body, lora.fingerprint(adapted.policy), folder)
        return adapted


class AdaptersOff:
    """The reference of a `LoRA` policy: its weights without the adapters. Holds no weights and learns nothing."""

    def __init__(self, adapted: LoRA) -> None:
        lora.check_frozen(adapted.policy)
        self._adapted = adapted

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._adapted.spec

    @property
    def normalizer(self) -> nn.Module:
        """The policy's own."""
        return self._adapted.normalizer

    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Chunks (B, H, A) that the policy would sample without adapters."""
        with lora.switched_off(self._adapted.body):
            return self._adapted.act(observation, generator)

    def draw(self, chunks: Chunks, generator: Any) -> Draws:
        """The policy's draws."""
        return self._adapted.draw(chunks, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Score without adapters (B,)."""
        with lora.switched_off(self._adapted.body):
            return self._adapted.score(chunks, draws)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Cloning loss without adapters (B,)."""
        with lora.switched_off(self._adapted.body):
            return self._adapted.loss(chunks, draws)

    def reference(self) -> Policy:
        """Itself: it does not change."""
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """State of the adapted policy as it was before it learned: a second factor of 0 adds nothing."""
        state = self._adapted.state_dict()
        return {k: torch.zeros_like(v) if ".lora_B." in k else v for k, v in state.items()}
