"""Two runs of a network and a step beyond: other + strength x (own - other), the arithmetic of every guidance."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from robopref.networks.transformer import TokenTransformer

NETWORKS = ("denoiser", "network")
"""Names under which a head keeps the one network that it calls with the condition last."""


def described(model: Any) -> dict[str, Any]:
    """Class path and constructor arguments of a model that another one wraps, as `checkpoint.load` builds it again."""
    return {"class": f"{type(model).__module__}.{type(model).__qualname__}", "arguments": model.config}


def network_name(head: nn.Module) -> str | None:
    """Under which of `NETWORKS` a head keeps its network, if any."""
    return next((name for name in NETWORKS if name in dict(head.named_children())), None)


def extrapolated(
    own: nn.Module, other: nn.Module, strength: float, before: list[Any], condition: Tensor, other_condition: Tensor
) -> Any:
    """Output for (*before, condition): strength 0 gives the other's run, 1 the own, above 1 what lies beyond it.

    A token network's output comes with a cache of both runs.
    """
    if isinstance(own, TokenTransformer):
        tokens, cache = before
        ours, kept = own(tokens, cache and cache[0], condition)
        theirs, left = other(tokens, cache and cache[1], other_condition)
        return theirs + strength * (ours - theirs), (kept, left)
    ours, theirs = own(*before, condition), other(*before, other_condition)
    return theirs + strength * (ours - theirs)
