"""From a few answers to many pairs: a reward model ranks free rollouts; best against worst of each reset become pairs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch

from robopref.learners.align import PairTable


@dataclass(frozen=True)
class Ranking:
    """What ranked rollouts teach: winners to anchor on, and pairs in two disjoint parts."""

    anchors: torch.Tensor
    """(W,) int64, the best trajectories so far, without those of held-out resets."""
    train: PairTable
    held_out: PairTable


def rank(
    predicted: np.ndarray, seeds: np.ndarray, rounds: np.ndarray, top: float, held_out: float, seed: int
) -> Ranking:
    """Winners and pairs from predicted returns.

    predicted (N,): logits of the reward model; seeds (N,), rounds (N,): reset and round of each trajectory. Winners: the
    `top` share of all rounds together, so that better rounds give more. Pairs: best against worst of a reset, where the
    gap is at least one standard deviation of all predictions (two successes that differ by a little are style, not
    preference); prob_first is what the reward model says. Some resets are held out for the guard: none of their rollouts
    is an anchor or in a training pair.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(rounds.tolist(), seeds.tolist(), strict=True)):
        groups[key].append(index)
    members = list(groups.values())
    ends = [(max(g, key=lambda i: predicted[i]), min(g, key=lambda i: predicted[i])) for g in members]
    first, second = np.array([a for a, _ in ends]), np.array([b for _, b in ends])
    gap = predicted[first] - predicted[second]
    kept = np.flatnonzero(gap >= max(float(predicted.std()), 1e-6))
    if len(kept) < 2:  # nearly equal rollouts: the two clearest resets, one to learn from and one to watch
        kept = np.argsort(-gap, kind="stable")[:2]
    order = np.random.default_rng([seed, 5]).permutation(kept)
    cut = max(1, round(held_out * len(order)))
    watched = [index for reset in order[:cut] for index in members[reset]]
    free = np.setdiff1d(np.arange(len(predicted)), watched)
    best = free[np.argsort(-predicted[free], kind="stable")]
    anchors = best[: max(1, round(top * len(predicted)))]

    def table(rows: np.ndarray) -> PairTable:
        prob = 1 / (1 + np.exp(-gap[rows]))
        return PairTable(
            torch.from_numpy(first[rows]), torch.from_numpy(second[rows]),
            torch.from_numpy(prob.astype(np.float32)), torch.ones(len(rows)),
        )  # fmt: skip

    return Ranking(torch.from_numpy(np.sort(anchors)), table(order[cut:]), table(order[:cut]))


def halves(pairs: PairTable, held_out: float, seed: int) -> tuple[PairTable, PairTable]:
    """Pairs in two parts (training, held out) that share no episode; nothing is held out where too few would remain.

    Pairs between two held-out episodes watch too; pairs with one of them are in neither part.
    """
    order = np.random.default_rng([seed, 5]).permutation(len(pairs))
    cut = max(1, round(held_out * len(pairs)))
    sides = np.stack([pairs.first.numpy(), pairs.second.numpy()])  # (2, N)
    watched = np.isin(sides, sides[:, order[:cut]]).sum(axis=0)[order]  # (N,) how many of the two are held out

    def part(rows: np.ndarray) -> PairTable:
        at = torch.from_numpy(rows)
        return PairTable(pairs.first[at], pairs.second[at], pairs.prob_first[at], pairs.weight[at])

    kept, decided = order[watched == 0], pairs.prob_first.numpy() != 0.5
    if len(kept) < 3 or not decided[kept].any():
        return pairs, part(order[:0])
    return part(kept), part(order[watched == 2])
