"""Where policies learn and act: on the machine's GPU, or on its CPU where there is none or `CUDA_VISIBLE_DEVICES=` hides it.

Random numbers are drawn on the CPU and what is compared comes back to it, so that a GPU changes the speed and, beyond the last bits
of sums, nothing else.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def accelerator() -> torch.device:
    """The first GPU that this process may use (where several train together, its own), else the CPU."""
    return (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )


def placed(model: Model) -> Model:
    """The same model, its weights moved to `accelerator()`."""
    return model.to(accelerator())


def device_of(model: object) -> torch.device:
    """Where a model computes; what has no weights computes on the CPU."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device
