"""Training by several processes (`accelerate launch` or `torchrun`): each computes its share of every batch, and gradients are averaged.

Every process draws the same random numbers for the whole batch and takes its rows afterwards, so that what is learned is what one process
learns from that batch, up to the order of sums. A learner that takes no share computes the whole batch in every process: right, no faster.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from robopref.arrays import InputError


def count() -> int:
    """How many processes train together; 1 unless a launcher says more."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is. The first leads: it alone writes and prints."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def share(rows: int, owner: str) -> slice:
    """The rows of a batch that this process computes, all for one that is alone. Raises `InputError` for a batch that cannot be shared evenly."""
    if rows % count():
        raise InputError(
            f"{owner}: got {rows} with {count()} processes, wanted a multiple: every process computes as many rows of a batch."
        )
    if count() == 1:
        return slice(None)
    each = rows // count()
    return slice(rank() * each, (rank() + 1) * each)


@torch.no_grad()
def average(parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their mean over all processes; alone, nothing happens."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    mean = _state().reduce(nn.utils.parameters_to_vector(gradients), "mean")  # one message for all
    nn.utils.vector_to_parameters(mean, gradients)


def agreed(flag: bool) -> bool:
    """Whether the first process says so: one decision for all, whatever the last bits of a sum are."""
    if count() == 1:
        return flag
    said = torch.tensor([float(flag and rank() == 0)], device=_state().device)
    return bool(_state().reduce(said, "sum").item())


@lru_cache(maxsize=1)
def _state() -> Any:
    """The group of all processes: NCCL on GPUs, gloo on CPUs. Raises `InputError` without accelerate."""
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise InputError(
            f"processes: got {count()} without accelerate, wanted it: pip install 'robopref[vla]'."
        ) from error
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    # Threads of a group that still stands when the interpreter ends may abort the process after its work is done.
    atexit.register(accelerator.end_training)
    return accelerator
