"""Two runs of a network and a step beyond: other + strength x (own - other), the arithmetic of every guidance."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from robopref.arrays import InputError
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


def one_network(owner: str, policy: nn.Module) -> str:
    """Name of the one network that a head learns. Raises `InputError` for a head that learns more than one, or none of a known name."""
    name = network_name(policy)
    others = [n for n, c in policy.named_children() if n not in (name, "eyes") and any(True for _ in c.parameters())]
    if name is None or others:
        raise InputError(
            f"{owner}: got a {type(policy).__name__} that learns {others or 'no network of a known name'}, wanted a head "
            f"with one network named {' or '.join(NETWORKS)}. Act with the policy as it was trained."
        )
    return name


def check_alike(owner: str, policy: nn.Module, reference: nn.Module) -> None:
    """Raise `InputError` unless two heads have the same class and settings."""
    if described(policy) != described(reference):
        raise InputError(
            f"{owner}: got a {type(policy).__name__} and a {type(reference).__name__} of other settings, wanted two alike.\n"
            "Take the policy that the alignment started from as reference."
        )


class Beyond(nn.Module):
    """A head's network and, while `guidance` is set, the same network of a reference that it is pushed away from."""

    def __init__(self, network: nn.Module, reference: nn.Module) -> None:
        super().__init__()
        self.network, self.reference = network, reference.requires_grad_(False)
        self.guidance = 0.0
        self.other_condition: Tensor | None = None
        """What the reference sees (B, C), where it looks with eyes of its own; None: the same as the policy."""

    def forward(self, *inputs: Any) -> Any:
        """The network's output for (..., condition (B, C)); guidance 0 is the network itself, -1 the reference, -w a share w of the way to it."""
        if self.guidance == 0:
            return self.network(*inputs)
        *before, condition = inputs
        other = condition if self.other_condition is None else self.other_condition
        return extrapolated(self.network, self.reference, 1 + self.guidance, before, condition, other)
