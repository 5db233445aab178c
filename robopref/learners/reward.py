"""Fit a reward model to compared pairs: cross-fitted members, early stopping and calibration on pairs a member did not see.

Member k leaves a k-th part of the pairs out. Those pairs stop its training, and all left-out pairs together set the inverse
temperature and, where the model asks for it, the share of flipped labels (both by maximum likelihood). No pair is lost: each is
training data of every other member.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopref import statistics
from robopref.arrays import InputError
from robopref.losses.pairwise import flipped
from robopref.networks.ensemble import both
from robopref.protocols import Prepared, Sampled, Solved
from robopref.train import fit
from robopref.types import PreferenceBatch, Segments

FLIPS = torch.linspace(0, 0.45, 46)
SCALES = torch.logspace(-1.5, 1, 41)
WORTH = 2.0
"""Log-likelihood a share of flipped labels must gain over none: below it (AIC, rounded up) the labels are taken at their word."""


@dataclass(frozen=True)
class FitSettings:
    """How a reward model is fitted."""

    steps: int = 600
    lr: float = 2e-3
    batch: int = 32
    """Pairs per step."""
    weight_decay: float = 1e-2
    every: int = 25
    """Steps between two looks at the left-out pairs."""
    patience: int = 8
    """Looks without a better member after which training ends."""
    least: int = 16
    """With fewer pairs than this nothing is left out: all are needed for learning."""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.every, self.patience) < 1 or self.lr <= 0:
            raise InputError(f"FitSettings: got {self}, wanted steps, batch, every and patience >= 1 and lr > 0.")


def fit_reward(
    model: Any, pairs: PreferenceBatch, settings: FitSettings, generator: torch.Generator, groups: Tensor | None = None
) -> Iterator[dict[str, float]]:
    """Train `model` in place on pairs; yields logs of each step. Sets its normaliser, calibration and centre.

    groups (N,) int64: pairs of one group are left out together, so that a member is judged on nothing it has seen.
    Raises `InputError` when there is no pair, or no pair with a weight.
    """
    if len(pairs) == 0 or float(pairs.weight.sum()) == 0:
        raise InputError(f"reward: got {len(pairs)} pairs that count, wanted at least one. Label more pairs.")
    for side in (pairs.first, pairs.second):
        if not bool(side.observation.isfinite().all() and side.action.isfinite().all()):
            raise InputError("reward: got NaN or infinity in a segment, wanted numbers. Drop those pairs.")
    _standardise(model, pairs)
    if isinstance(model, Sampled):
        yield model.sample(pairs, generator)
        _centre(model, pairs)
        return
    members = len(model.nets)
    fold = _folds(len(pairs), members, groups, generator) if len(pairs) >= settings.least else None
    if isinstance(model, Solved):
        yield model.solve(pairs, None if fold is None else _share(fold, members))
        if fold is not None:
            calibrate(model, *left_out(model, pairs, fold))
        _centre(model, pairs)
        return
    best = _Best(model)

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(pairs), (min(settings.batch, len(pairs)),), generator=gen)
        part = pairs[rows]
        return model.loss(part, None if fold is None else _share(fold[rows], members))

    model.train()
    stale = 0
    logs = fit(
        model, step, steps=settings.steps, lr=settings.lr, generator=generator, weight_decay=settings.weight_decay
    )
    for number, row in enumerate(logs, start=1):
        if fold is not None and (number % settings.every == 0 or number == settings.steps):
            row = {**row, **_look(model, pairs, fold, best)}
            stale = 0 if row["reward/better"] else stale + 1
        yield row
        if stale >= settings.patience:
            break
    model.eval()
    if fold is not None:
        best.restore()
        calibrate(model, *left_out(model, pairs, fold))
    _centre(model, pairs)


def calibrate(model: Any, logit: Tensor, prob_first: Tensor, weight: Tensor) -> float:
    """Set the model's inverse temperature (and share of flips) from logits (N,) of unseen pairs; returns their mean loss.

    Grid search of the likelihood. A share of flips must gain two nats over none, or it is noise.
    """
    flips = FLIPS if model.calibration.learn_flip else FLIPS[:1]
    scaled = SCALES[:, None] * logit  # (S, N)
    prob = prob_first.expand_as(scaled)
    totals = torch.stack([(flipped(scaled, torch.zeros_like(scaled), prob, flip=f) * weight).sum(1) for f in flips])
    # A weak prior keeps the scale near 1 where a handful of pairs says nothing about it.
    totals = totals + 0.5 * SCALES.log().square()  # (F, S)
    flip = int(totals.amin(dim=1).argmin())
    if float(totals[0].min() - totals[flip].min()) < WORTH:
        flip = 0
    scale = int(totals[flip].argmin())
    model.calibration.flip.fill_(flips[flip])
    model.calibration.scale.fill_(SCALES[scale])
    return float(totals[flip, scale] / weight.sum().clamp(min=1e-8))


@torch.no_grad()
def left_out(model: Any, pairs: PreferenceBatch, fold: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logit of each pair by the member that has not seen it, its label and weight; pairs that all members saw are left away."""
    members = len(model.nets)
    rows = torch.nonzero(fold < members).squeeze(-1)
    logit = torch.cat([model.logits(pairs.first[r], pairs.second[r]) for r in rows.split(256)], dim=1)  # (K, n)
    own = logit.gather(0, fold[rows][None]).squeeze(0)
    return own, pairs.prob_first[rows], pairs.weight[rows]


@torch.no_grad()
def probabilities(model: Any, pairs: PreferenceBatch) -> np.ndarray:
    """Calibrated P(first preferred) of every pair, (N,) float64."""
    parts = torch.arange(len(pairs)).split(256)
    made = [model.prob_first(pairs.first[r], pairs.second[r]) for r in parts]
    return torch.cat(made).numpy()


def correct(prob: np.ndarray, prob_first: np.ndarray) -> np.ndarray:
    """1 where a prediction is on the label's side, 0 where it is on the other, 0.5 where either is undecided: (..., N), (N,) -> (..., N)."""
    return 0.5 + 0.5 * np.sign(prob - 0.5) * np.sign(prob_first - 0.5)


def quality(prob: np.ndarray, prob_first: np.ndarray) -> dict[str, Any]:
    """accuracy (of decided pairs, with its 95% interval; None where there is none), ece in ten bins, brier, nll, and how many pairs these are.

    A prediction of exactly 0.5 is half right, whichever side was preferred.
    """
    decided = prob_first != 0.5
    hits, count = float(correct(prob, prob_first)[decided].sum()), int(decided.sum())
    low, high = statistics.wilson(hits, count)
    clipped = prob.clip(1e-6, 1 - 1e-6)
    nll = -(prob_first * np.log(clipped) + (1 - prob_first) * np.log(1 - clipped))
    return {
        "accuracy": hits / count if count else None, "ci95": [low, high],
        "ece": statistics.calibration_error(prob, prob_first), "brier": float(np.mean((prob - prob_first) ** 2)),
        "nll": float(nll.mean()), "pairs": len(prob), "decided": count,
    }  # fmt: skip


def _standardise(model: Any, pairs: PreferenceBatch) -> None:
    live = [side.mask.bool() for side in (pairs.first, pairs.second)]
    sides = (pairs.first, pairs.second)
    observation = torch.cat([s.observation[m] for s, m in zip(sides, live, strict=True)])
    action = torch.cat([s.action[m] for s, m in zip(sides, live, strict=True)])
    model.normalizer.fit(observation, action)
    if isinstance(model, Prepared):
        model.prepare(both(pairs.first, pairs.second))


def _folds(pairs: int, members: int, groups: Tensor | None, generator: torch.Generator) -> Tensor:
    """Which part each pair belongs to, (N,); member k leaves out part k. With one or two members, most parts are nobody's.

    Where one group holds more than half of all pairs, pairs are left out one by one: a member that left that group out would have next to
    nothing to learn from, and the others nothing to be stopped by.
    """
    parts = max(members, 4)
    names = torch.arange(pairs) if groups is None else torch.unique(groups, return_inverse=True)[1]
    if int(torch.bincount(names).max()) > pairs / 2:
        names = torch.arange(pairs)
    order = torch.randperm(int(names.max()) + 1, generator=generator)
    return order[names] % parts


def _share(fold: Tensor, members: int) -> Tensor:
    """(K, B): 0 where member k leaves a pair out, else 1."""
    return (torch.arange(members)[:, None] != fold[None]).float()


class _Best:
    """The best weights of each member so far, by its loss on the pairs it left out."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.loss = [float("inf")] * len(model.nets)
        self.state: list[dict[str, Tensor] | None] = [None] * len(model.nets)

    def offer(self, member: int, loss: float) -> bool:
        """Keep the member's weights of now if its loss is better; says whether it was."""
        if loss >= self.loss[member] - 1e-4:
            return False
        self.loss[member] = loss
        self.state[member] = deepcopy(self.model.nets[member].state_dict())
        return True

    def restore(self) -> None:
        """Give every member its best weights."""
        for net, state in zip(self.model.nets, self.state, strict=True):
            if state is not None:
                net.load_state_dict(state)


def _look(model: Any, pairs: PreferenceBatch, fold: Tensor, best: _Best) -> dict[str, float]:
    """Calibrate on the left-out pairs and offer each member's weights; logs."""
    model.eval()
    logit, prob_first, weight = left_out(model, pairs, fold)
    loss = calibrate(model, logit, prob_first, weight)
    scaled = model.calibration.scale * logit
    each = flipped(scaled, torch.zeros_like(scaled), prob_first, flip=model.calibration.flip)
    owner = fold[fold < len(model.nets)]
    better = False
    for member in range(len(model.nets)):
        mine = owner == member
        total = float(weight[mine].sum())
        if total > 0:
            better |= best.offer(member, float((each[mine] * weight[mine]).sum()) / total)
    model.train()
    return {"reward/left_out": loss, "reward/better": float(better), "reward/flip": float(model.calibration.flip)}


@torch.no_grad()
def _centre(model: Any, pairs: PreferenceBatch) -> None:
    """Take the mean step reward of the training data off every score: a constant carries no preference."""
    model.centre.zero_()
    total, count = 0.0, 0.0
    for side in (pairs.first, pairs.second):
        for rows in torch.arange(len(pairs)).split(256):
            part: Segments = side[rows]
            total += float(model.score(part).double().sum())
            count += float(part.mask.sum())
    model.centre.fill_(total / max(count, 1.0))
