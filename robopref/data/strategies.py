"""Which pairs to learn from, as pure functions: curriculum, rejection sampling, reward-augmented relabelling, semi-policy pairs.

Trajectories are indices (N,); rewards are numbers that rank them, from a reward learner, stage costs or labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError, check_shape


@dataclass(frozen=True)
class SampledPairs:
    """Index pairs with a direction and a weight."""

    first: np.ndarray
    """(P,) int64."""
    second: np.ndarray
    """(P,) int64."""
    prob_first: np.ndarray
    """(P,) float64 in [0, 1]."""
    weight: np.ndarray
    """(P,) float64."""

    def __len__(self) -> int:
        return len(self.first)


def curriculum(gap: np.ndarray, progress: float, start: float = 0.3) -> np.ndarray:
    """Which pairs are open at a point of training, (P,) bool: clear ones first (Curry-DPO, Pattnaik et al. 2024).

    gap (P,): how far winner and loser lie apart. progress: 0 to 1. The share of pairs that is open grows from `start` to all, linearly.
    """
    if not (0 <= progress <= 1 and 0 < start <= 1):
        raise InputError(
            f"curriculum: got progress={progress}, start={start}, wanted 0 <= progress <= 1 and 0 < start <= 1."
        )
    count = int(np.ceil((start + (1 - start) * progress) * len(gap)))
    open_now = np.zeros(len(gap), dtype=bool)
    open_now[np.argsort(-np.abs(gap), kind="stable")[:count]] = True
    return open_now


def rejection_sample(reward: np.ndarray, count: int, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Indices (count,) of candidates, accepted as if drawn from policy x e^{reward / beta} (RSO, Liu et al. 2024, algorithm 1).

    Candidates are visited in random order and accepted with probability e^{(r - r_max) / beta}, r_max over those still left; none is taken
    twice. beta -> 0 takes the best, beta -> infinity any.
    """
    if not 1 <= count <= len(reward) or beta <= 0:
        raise InputError(
            f"rejection_sample: got count={count} of {len(reward)} candidates, beta={beta}, wanted at most all, beta > 0."
        )
    left = list(range(len(reward)))
    taken: list[int] = []
    while len(taken) < count:
        highest = max(reward[i] for i in left)
        for i in [left[k] for k in rng.permutation(len(left))]:
            if len(taken) < count and rng.uniform() < np.exp((reward[i] - highest) / beta):
                taken.append(i)
        left = [i for i in left if i not in set(taken)]
    return np.array(taken, dtype=np.int64)


def rejection_pairs(
    reward: np.ndarray, group: np.ndarray, per_group: int, beta: float, rng: np.random.Generator, scale: float = 1.0
) -> SampledPairs:
    """RSO's pairs: in each group (one reset), `per_group` accepted candidates, all their pairs labelled by sigmoid(reward gap / scale)."""
    check_shape("rejection_pairs", "group", group.shape, reward.shape, "One group per trajectory.")
    if per_group < 2 or scale <= 0:
        raise InputError(
            f"rejection_pairs: got per_group={per_group}, scale={scale}, wanted per_group >= 2 and scale > 0."
        )
    first, second = [], []
    for one in np.unique(group):
        members = np.flatnonzero(group == one)
        if len(members) < 2:
            continue
        kept = members[rejection_sample(reward[members], min(per_group, len(members)), beta, rng)]
        i, j = np.triu_indices(len(kept), 1)
        first.append(kept[i])
        second.append(kept[j])
    if not first:
        raise InputError(
            "rejection_pairs: got no group of two, wanted several rollouts of a reset. Raise rounds.replicas."
        )
    a, b = np.concatenate(first), np.concatenate(second)
    prob = 0.5 * (1 + np.tanh((reward[a] - reward[b]) / (2 * scale)))
    return SampledPairs(a, b, prob, np.ones(len(a)))


def relabelled(first: np.ndarray, second: np.ndarray, reward: np.ndarray) -> tuple[SampledPairs, np.ndarray]:
    """Each pair twice, under the goal of either side's reward; returns the pairs and the goal to condition on, (2 P,).

    Under the goal g a trajectory is worth -(r - g)^2, so the side whose reward *is* the goal wins: the loser teaches what its own reward
    looks like instead of only what to avoid (reward-augmented data, Zhang et al. 2024).
    """
    goal = np.concatenate([reward[first], reward[second]])
    a, b = np.concatenate([first, first]), np.concatenate([second, second])
    lead = (reward[b] - goal) ** 2 - (reward[a] - goal) ** 2
    prob = np.where(lead == 0, 0.5, (lead > 0).astype(np.float64))
    return SampledPairs(a, b, prob, np.ones(len(a))), goal


def semi_policy_pairs(
    winners: np.ndarray, winner_group: np.ndarray, own: np.ndarray, own_group: np.ndarray, own_checkpoint: np.ndarray,
    rng: np.random.Generator,
) -> SampledPairs:  # fmt: skip
    """SePPO's pairs: each winner against the policy's own rollout of the same group, by a checkpoint drawn at random from all earlier ones
    (Zhang et al. 2024); with `losses.triple.seppo` the loser turns into a teacher where it is the better one.

    winners, own: trajectory indices; a winner whose group has no own rollout gives no pair. Raises `InputError` if none is left.
    """
    first, second = [], []
    for index, group in zip(winners, winner_group, strict=True):
        there = np.flatnonzero((own_group == group) & (own != index))
        if len(there) == 0:
            continue
        checkpoint = rng.choice(np.unique(own_checkpoint[there]))
        first.append(index)
        second.append(rng.choice(own[there[own_checkpoint[there] == checkpoint]]))
    if not first:
        raise InputError(
            "semi_policy_pairs: got no own rollout that starts like a winner, wanted some. Roll out from the winners' resets."
        )
    ones = np.ones(len(first))
    return SampledPairs(np.array(first, dtype=np.int64), np.array(second, dtype=np.int64), ones, ones)
