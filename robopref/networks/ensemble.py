"""What all reward learners share: ensembles of step networks, reductions over time, calibrated probabilities.

An ensemble is an `nn.ModuleList` with one entry per member, so that a trainer can keep each member's own best weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robopref.networks.mlp import mlp
from robopref.types import Segments


class Calibration(nn.Module):
    """Turns logits of members into P(first preferred) of a rater who does not slip; set from held-out pairs by the trainer."""

    scale: Tensor
    """Inverse temperature of the logits, > 0."""
    flip: Tensor
    """Share of the training labels that say the opposite of what the rater means, in [0, 0.5)."""

    def __init__(self, learn_flip: bool = False) -> None:
        """learn_flip: whether the trainer may set `flip`; otherwise labels are taken at their word."""
        super().__init__()
        self.learn_flip = learn_flip
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("flip", torch.zeros(()))

    def forward(self, logit: Tensor) -> Tensor:
        """(K, B) logits of members -> (B,) float64 probability, averaged over members; exactly 1 - p for the negative logits."""
        return (self.scale * logit).double().sigmoid().mean(dim=0)


class Compared(nn.Module):
    """A reward learner that prefers the segment of the higher return. It has `calibration` and `returns`, segments -> (K, B) of its members."""

    calibration: Calibration

    def returns(self, segments: Segments) -> Tensor:
        """Return of segments for every member, (K, B), in logits."""
        raise NotImplementedError

    def logits(self, first: Segments, second: Segments) -> Tensor:
        """Logit of P(first preferred) for every member, (K, B)."""
        one, other = self.returns(both(first, second)).chunk(2, dim=1)
        return one - other

    def prob_first(self, first: Segments, second: Segments) -> Tensor:
        """Calibrated P(first preferred), (B,)."""
        return self.calibration(self.logits(first, second))


def step_networks(inputs: int, width: int, members: int, outputs: int = 1, depth: int = 2) -> nn.ModuleList:
    """`members` multilayer perceptrons (..., inputs) -> (..., outputs)."""
    return nn.ModuleList(mlp((inputs, *[width] * depth, outputs)) for _ in range(members))


def both(first: Segments, second: Segments) -> Segments:
    """First and second segments in one batch (2B, T), padded to the longer: one forward pass instead of two."""
    longest = max(first.mask.shape[1], second.mask.shape[1])
    a, b = _padded(first, longest), _padded(second, longest)
    return Segments(
        torch.cat([a.observation, b.observation]), torch.cat([a.action, b.action]), torch.cat([a.mask, b.mask])
    )


def _padded(segments: Segments, steps: int) -> Segments:
    missing = steps - segments.mask.shape[1]
    if missing == 0:
        return segments
    pad = torch.nn.functional.pad
    return Segments(
        pad(segments.observation, (0, 0, 0, missing)),
        pad(segments.action, (0, 0, 0, missing)),
        pad(segments.mask, (0, missing)),
    )


def reduce_steps(values: Tensor, mask: Tensor, how: str) -> Tensor:
    """Sum or mean over real steps: (K, B, T), (B, T) -> (K, B)."""
    summed = (values * mask).sum(dim=-1)
    return summed / mask.sum(dim=-1).clamp(min=1) if how == "mean" else summed
