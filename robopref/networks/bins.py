"""Numbers as one of `bins` equal bins of [-1, 1]: what token heads predict instead of actions (RT-2, Brohan et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_bins(normalised: Tensor, bins: int) -> Tensor:
    """Numbers in [-1, 1], any shape -> bins int64 of the same shape; beyond the range, the outermost bin."""
    return ((normalised + 1) / 2 * bins).floor().long().clamp(0, bins - 1)


def to_centres(tokens: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    """Bins, any shape -> their centres in [-1, 1], so that a predicted number turns into the very same bin again."""
    return (tokens.to(dtype) + 0.5) / bins * 2 - 1


def uniforms(count: int, batch: int, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
    """Numbers in [0, 1], (batch, count) float64: one per token and row, whatever the neighbours draw."""
    from diffusers.utils.torch_utils import randn_tensor

    given = generator if isinstance(generator, torch.Generator) else list(generator)
    return torch.special.ndtr(randn_tensor((batch, count), generator=given, dtype=torch.float64))


def chosen(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """A bin for each row, (...), from logits (..., bins) and numbers in [0, 1] (...), by the inverse of the distribution function.

    Temperature 0 takes the likeliest.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    reached = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    return (reached < uniform[..., None]).sum(dim=-1).clamp(max=logits.shape[-1] - 1)
