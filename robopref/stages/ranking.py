"""From a few answers to many pairs: a reward model ranks free rollouts; best against worst of each reset become pairs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from robopref.arrays import InputError
from robopref.data.strategies import SampledPairs, curriculum, rejection_pairs, semi_policy_pairs
from robopref.learners.align import PairTable
from robopref.learners.conditioned import indicators_from_pairs

_BEST = 5
"""The highest grade: some losses on lists take grades as powers of two."""


@dataclass(frozen=True)
class Ranking:
    """What ranked rollouts teach: winners to anchor on, and pairs in two disjoint parts."""

    anchors: torch.Tensor
    """(W,) int64, the best trajectories so far, without those of held-out resets."""
    train: PairTable
    held_out: PairTable
    indicator: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    """(N,) float32: 1 preferred, -1 not, 0 held out or never judged; what a conditioned policy is told."""
    group: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    """(N,) int64, which rollouts stand in one list, -1 none: those of a reset and round, without held-out resets."""
    grade: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    """(N,) float32, how far a rollout lies above the worst of its list, in whole deviations of all predictions, 0 to `_BEST`."""


def rank(
    predicted: np.ndarray, seeds: np.ndarray, rounds: np.ndarray, top: float, held_out: float, seed: int, hard: bool = False
) -> Ranking:  # fmt: skip
    """Winners and pairs from predicted returns.

    predicted (N,): logits of the reward model; seeds (N,), rounds (N,): reset and round of each trajectory. Winners: the
    `top` share of all rounds together, so that better rounds give more. Pairs: best against worst of a reset, where the
    gap is at least one standard deviation of all predictions (two successes that differ by a little are style, not
    preference); prob_first is what the reward model says, or 1 where scores are `hard`, in units that are no logits. Some resets are held out for the guard: none of their rollouts
    is an anchor or in a training pair.
    """
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, key in enumerate(zip(rounds.tolist(), seeds.tolist(), strict=True)):
        groups[key].append(index)
    members = [sorted(g, key=lambda i: predicted[i]) for g in groups.values() if len(g) > 1]
    if not members:
        raise InputError(
            "ranking: got no reset with two rollouts, wanted several of each (a winner needs a loser). Raise rounds.replicas."
        )
    ends = [(g[-1], g[0]) for g in members]
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
        prob = np.ones(len(rows)) if hard else 1 / (1 + np.exp(-gap[rows]))
        return PairTable(
            torch.from_numpy(first[rows]), torch.from_numpy(second[rows]),
            torch.from_numpy(prob.astype(np.float32)), torch.ones(len(rows)),
        )  # fmt: skip

    indicator = torch.full((len(predicted),), -1.0)
    indicator[watched], indicator[anchors] = 0.0, 1.0
    group, grade = _graded(predicted, members, set(order[:cut].tolist()))
    return Ranking(torch.from_numpy(np.sort(anchors)), table(order[cut:]), table(order[:cut]), indicator, group, grade)


def _graded(predicted: np.ndarray, members: list[list[int]], watched: set[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """`Ranking.group` and `Ranking.grade` of resets given as rollouts from worst to best, without those that are watched.

    Where no reset has rollouts a whole deviation apart, the places in its list are the grades: as with pairs, the little that is known is used.
    """
    group, grade = np.full(len(predicted), -1), np.zeros(len(predicted), np.float32)
    unit = max(float(predicted.std()), 1e-6)
    for number, rollouts in enumerate(members):
        if number not in watched:
            group[rollouts] = number
            grade[rollouts] = np.minimum(np.floor((predicted[rollouts] - predicted[rollouts[0]]) / unit), _BEST)
    if not grade.any():
        for number, rollouts in enumerate(members):
            grade[rollouts] = 0 if number in watched else np.minimum(np.arange(len(rollouts)), _BEST)
    return torch.from_numpy(group), torch.from_numpy(grade)


def from_answers(pairs: PairTable, trajectories: int, held_out: float, seed: int) -> Ranking:
    """The answered pairs as they are: some watch, the winners of the others are the anchors."""
    train, watch = halves(pairs, held_out, seed)
    watched = {*watch.first.tolist(), *watch.second.tolist()}
    decided = train.prob_first != 0.5
    best = torch.where(train.prob_first > 0.5, train.first, train.second)[decided].unique()
    anchors = torch.tensor([one for one in best.tolist() if one not in watched], dtype=torch.int64)
    if len(anchors) == 0:
        raise InputError(
            f"answers: got {len(pairs)} without a decided one to learn from, wanted more. Label more pairs."
        )
    return Ranking(anchors, train, watch, indicators_from_pairs(train, trajectories))


def opened(ranking: Ranking, progress: float) -> Ranking:
    """The clearest training pairs alone, more of them as rounds go by (Curry-DPO); progress: share of the rounds that have begun."""
    pairs = ranking.train
    now = torch.from_numpy(curriculum((pairs.prob_first - 0.5).numpy(), progress))
    return replace(
        ranking, train=PairTable(pairs.first[now], pairs.second[now], pairs.prob_first[now], pairs.weight[now])
    )


def semi_policy(ranking: Ranking, seeds: np.ndarray, rounds: np.ndarray, seed: int) -> Ranking:
    """The same winners, each against a rollout of its reset by an earlier checkpoint or the present one (SePPO)."""
    own = np.flatnonzero(ranking.indicator.numpy() != 0)
    best = ranking.anchors.numpy()
    made = semi_policy_pairs(best, seeds[best], own, seeds[own], rounds[own], np.random.default_rng([seed, 6]))
    return replace(ranking, train=_table(made))


def rejection(ranking: Ranking, predicted: np.ndarray, seeds: np.ndarray, rounds: np.ndarray, seed: int) -> Ranking:
    """Pairs of rollouts of a reset accepted as if drawn from the better policy (RSO), in units of the predictions' deviation."""
    free = np.flatnonzero(ranking.indicator.numpy() != 0)
    unit = max(float(predicted.std()), 1e-6)
    _, group = np.unique(np.stack([rounds, seeds]), axis=1, return_inverse=True)
    made = rejection_pairs(predicted[free] / unit, group[free], 3, 1.0, np.random.default_rng([seed, 7]))
    at = SampledPairs(free[made.first], free[made.second], made.prob_first, made.weight)
    return replace(ranking, train=_table(at))


def _table(pairs: SampledPairs) -> PairTable:
    first, second = (torch.from_numpy(side.astype(np.int64)) for side in (pairs.first, pairs.second))
    prob, weight = (torch.from_numpy(x.astype(np.float32)) for x in (pairs.prob_first, pairs.weight))
    return PairTable(first, second, prob, weight)


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
