"""The one loop: every model of the package is trained by `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from robopref import processes

Step = Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]
"""Draws its own batch from the generator; gives the scalar loss and what to log. Where several processes train together, the loss is this
process's share, a mean as over the whole batch."""


def fit(
    modules: nn.Module | list[nn.Module], step: Step, *, steps: int, lr: float, generator: torch.Generator,
    weight_decay: float = 0.0, clip: float = 1.0, warmup: int = 0, decay: bool = True,
    autocast: bool = False, offload: bool = False,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Run AdamW for `steps` steps and yield the logs of each.

    lr: peak learning rate, reached after `warmup` steps, then (with `decay`) a cosine to 0. clip: bound of the gradient norm.
    autocast: compute products in bfloat16; weights and sums stay float32. offload: keep AdamW's state and float32 copies of the weights in
    the processor's memory, 12 bytes a weight less on the GPU for a copy of gradients and weights per step; pays where all weights learn.
    """
    from diffusers.optimization import get_scheduler

    parts = modules if isinstance(modules, list) else [modules]
    parameters = [p for p in chain.from_iterable(m.parameters() for m in parts) if p.requires_grad]
    stepped: list[Tensor] = (
        [p.detach().to("cpu", torch.float32, copy=True) for p in parameters] if offload else list(parameters)
    )
    optimizer = torch.optim.AdamW(stepped, lr=lr, weight_decay=weight_decay, fused=True)  # one kernel per step
    kind = parameters[0].device.type
    name = "cosine" if decay else "constant_with_warmup"
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    share_of_peak = schedule.lr_lambdas[0]  # its `step` does the same at many times the cost
    rounding = torch.autocast(kind, torch.bfloat16, enabled=autocast)
    for number in range(1, steps + 1):
        with rounding:
            loss, logs = step(generator)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        processes.average(parameters)
        nn.utils.clip_grad_norm_(parameters, clip)
        if offload:
            _hand_over(parameters, stepped)
        optimizer.step()
        if offload:
            _take_back(parameters, stepped)
        optimizer.param_groups[0]["lr"] = lr * share_of_peak(number)
        yield logs


@torch.no_grad()
def _hand_over(parameters: list[nn.Parameter], copies: list[Tensor]) -> None:
    """Move the gradients to the copies that the optimiser steps."""
    for parameter, copy in zip(parameters, copies, strict=True):
        copy.grad = None if parameter.grad is None else parameter.grad.to(copy)
        parameter.grad = None


@torch.no_grad()
def _take_back(parameters: list[nn.Parameter], copies: list[Tensor]) -> None:
    """Copy the stepped weights back."""
    for parameter, copy in zip(parameters, copies, strict=True):
        parameter.copy_(copy)
