"""The one loop: every model of the package is trained by `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

Step = Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]
"""Draws its own batch from the generator; gives the scalar loss and what to log."""


def fit(
    modules: nn.Module | list[nn.Module], step: Step, *, steps: int, lr: float, generator: torch.Generator,
    weight_decay: float = 0.0, clip: float = 1.0, warmup: int = 0, decay: bool = True,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Run AdamW for `steps` steps and yield the logs of each.

    lr: peak learning rate, reached after `warmup` steps, then (with `decay`) a cosine to 0. clip: bound of the gradient norm.
    """
    from diffusers.optimization import get_scheduler

    parts = modules if isinstance(modules, list) else [modules]
    parameters = [p for p in chain.from_iterable(m.parameters() for m in parts) if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=True)  # one kernel per step
    name = "cosine" if decay else "constant_with_warmup"
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    for _ in range(steps):
        loss, logs = step(generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        schedule.step()
        yield logs
