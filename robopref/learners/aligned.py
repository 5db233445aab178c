"""How rewards that look learn: from the order of time alone first, then from answers about triplets of films.

Time contrast needs no label: pictures near in time in one film are alike, those far apart are not (Sermanet et al. 2018, single view, in
the softmax form of van den Oord et al. 2018). Answers then train the head on frozen features, or the whole encoder on request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.train import fit
from robopref.types import Segments

SHARPNESS = 0.1
"""Temperature of the time contrast's softmax over cosines."""


@dataclass(frozen=True)
class Triplets:
    """N answered questions "which is more like the anchor?", as places in a list of films."""

    films: Tensor
    """(3, N) int64: anchor, first, second."""
    prob_first: Tensor
    """(N,) float32, P(first is closer to the anchor), 0.5 a tie."""

    def __post_init__(self) -> None:
        check_shape("Triplets", "films", tuple(self.films.shape), (3, len(self.prob_first)), "One column per question.")

    def __len__(self) -> int:
        return len(self.prob_first)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same answers as pairs of a preferred anchor's world: first, second, prob_first, each (3 N,).

        With an anchor that is a preferred film, "closer to it" is "better", and the anchor is better than both.
        """
        anchor, first, second = self.films
        sure = torch.ones_like(self.prob_first)
        return (
            torch.cat([first, anchor, anchor]), torch.cat([second, first, second]), torch.cat([self.prob_first, sure, sure]),
        )  # fmt: skip


def time_contrast(
    model: Any, segments: Segments, *, steps: int, lr: float, generator: torch.Generator, films: int = 8, moments: int = 8, near: int = 1
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train the encoder of an `Aligned` on unlabelled films (N, T): a picture must find its neighbour among its film's other moments."""
    count, length = segments.mask.shape
    if length < 2 * near + 2:
        raise InputError(f"time_contrast: got films of {length} pictures, wanted at least {2 * near + 2}.")
    moments = min(moments, length // (2 * near))

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(count, (films,), generator=gen)
        last = segments.mask[rows].sum(dim=1).long()[:, None] - 1 - near  # (films, 1)
        shift = torch.rand(films, 1, generator=gen)
        at = (
            (torch.arange(moments)[None] + shift) / moments * last.clamp(min=1)
        ).long()  # (films, moments), one a stratum
        beside = at + torch.randint(1, near + 1, at.shape, generator=gen)
        chosen = torch.cat([at, beside], dim=1)
        part = segments[rows]
        images = {k: torch.as_tensor(v)[torch.arange(films)[:, None], chosen] for k, v in part.images.items()}
        cut = Segments(
            part.observation[:, : 2 * moments], part.action[:, : 2 * moments], part.mask[:, : 2 * moments], images
        )
        one, other = model.embed(model.eyes.features(cut)).chunk(2, dim=1)  # (films, moments, F)
        logits = (one @ other.transpose(1, 2)).flatten(0, 1) / SHARPNESS  # (films moments, moments)
        target = torch.arange(moments).repeat(films)
        loss = F.cross_entropy(logits, target)
        found = float((logits.argmax(dim=1) == target).float().mean())
        return loss, {"contrast/loss": float(loss.detach()), "contrast/found": found}

    model.eyes.standardise(features_of(model, segments))
    model.eyes.head.apply(_fresh)  # as if it had been made for standardised features
    yield from fit(model, step, steps=steps, lr=lr, generator=generator)
    model.eyes.standardise(features_of(model, segments))


def _fresh(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        layer.reset_parameters()


def borrow(model: Any, source: Any, segments: Segments) -> None:
    """Give a reward that looks the encoder of another, and standardise its features by films."""
    model.eyes.encoder.load_state_dict(source.eyes.encoder.state_dict())
    model.eyes.standardise(features_of(model, segments))
    model.eyes.head.apply(_fresh)


def features_of(model: Any, segments: Segments, block: int = 16) -> Tensor:
    """Features of all films without gradient, (N, T, width)."""
    with torch.no_grad():
        return torch.cat([model.eyes.features(segments[rows]) for rows in torch.arange(len(segments)).split(block)])


def learn_triplets(
    model: Any, features: Tensor, mask: Tensor, answers: Triplets, *, steps: int, lr: float, batch: int, generator: torch.Generator,
    weight_decay: float = 0.0, stay: float = 0.0, every: int = 1,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train the head of an `Aligned` on answers; features (N, T, W) and mask (N, T) of all films.

    stay: what it costs to leave the weights of the start, squared (Li et al. 2018, L2-SP): a few answers should bend what time taught, not
    replace it. every: each how many pictures the answers are learned from.
    """
    thinned, live = features[:, ::every], mask[:, ::every]

    def loss(rows: Tensor) -> Tensor:
        films = answers.films[:, rows]
        return model.triplet_loss(model.embed(thinned[films]), live[films], answers.prob_first[rows])

    yield from _fit_head(model, len(answers), loss, steps, lr, batch, generator, weight_decay, stay)


def learn_pairs(
    model: Any, features: Tensor, mask: Tensor, answers: Triplets, *, steps: int, lr: float, batch: int, generator: torch.Generator,
    weight_decay: float = 0.0, stay: float = 0.0,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train the head of a `Pictured` on the same answers, read as pairs."""
    first, second, prob = answers.pairs()

    def loss(rows: Tensor) -> Tensor:
        one, other = (model.value(features[side[rows]], mask[side[rows]]) for side in (first, second))
        return F.binary_cross_entropy_with_logits(one - other, prob[rows], reduction="none")

    yield from _fit_head(model, len(prob), loss, steps, lr, batch, generator, weight_decay, stay)


def _fit_head(
    model: Any, count: int, loss: Callable[[Tensor], Tensor], steps: int, lr: float, batch: int, generator: torch.Generator,
    weight_decay: float, stay: float,
) -> Iterator[dict[str, float]]:  # fmt: skip
    if count == 0:
        raise InputError("reward: got no answered triplet, wanted at least one. Ask more.")
    head: nn.Module = model.eyes.head
    start = [p.detach().clone() for p in head.parameters()]

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        mean = loss(torch.randperm(count, generator=gen)[:batch]).mean()
        gone = torch.stack([(p - q).square().sum() for p, q in zip(head.parameters(), start, strict=True)]).sum()
        return mean + stay * gone, {"reward/loss": float(mean.detach()), "reward/gone": float(gone.detach())}

    yield from fit(head, step, steps=steps, lr=lr, generator=generator, weight_decay=weight_decay)
