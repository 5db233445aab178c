"""Gradient checkpointing (Chen et al. 2016): blocks keep their inputs alone and are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from robopref.arrays import InputError
from robopref.networks.transformer import Block


def recompute(root: nn.Module, on: bool = True) -> int:
    """Switch it for all transformer blocks of `root`, ours and those of transformers and lerobot; returns how many there are.

    Raises `InputError` for a model without blocks. Scores do not change by it.
    """
    found = 0
    for module in root.modules():
        if isinstance(module, Block):
            module.recompute, found = on, found + 1
        elif _is_foreign(module):
            # transformers asks for training mode; only the layer itself is told so, its dropout stays as it is.
            module.training, found = on, found + 1
            layer: Any = module
            layer.gradient_checkpointing, layer._gradient_checkpointing_func = on, _checkpointed
        elif hasattr(module, "gradient_checkpointing_enabled"):
            _switch_lerobot(module, on)
    if found == 0:
        raise InputError(
            "recompute: got a model without transformer blocks, wanted one with: there is nothing to save."
        )
    return found


@contextmanager
def paused(root: nn.Module) -> Iterator[None]:
    """Within, blocks of transformers keep what they have seen: those that are computed again would silently forget the cache of a decoder."""
    layers = [module for module in root.modules() if _is_foreign(module) and module.training]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer in layers:
            layer.training = True


def _switch_lerobot(model: Any, on: bool) -> None:
    """pi0's two transformers run side by side, layer by layer, past the layers' own call; lerobot asks the whole for training mode."""
    pair = model.paligemma_with_expert
    model.gradient_checkpointing_enabled = model.training = pair.training = on
    if hasattr(pair, "gemma_expert"):
        pair.gemma_expert.model.gradient_checkpointing = on


def _checkpointed(function: Callable[..., Any], *arguments: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    return checkpoint(function, *arguments, use_reentrant=False)


def _is_foreign(module: nn.Module) -> bool:
    return any(base.__name__ == "GradientCheckpointingLayer" for base in type(module).__mro__)
