"""Pairs from ranked rollouts, and which of them are held out."""

import math

import numpy as np
import pytest
import torch

from robopref.learners.align import PairTable
from robopref.stages.ranking import halves, opened, rank


def test_ranked_pairs_put_the_better_rollout_of_a_reset_first():
    predicted = np.array([0.0, 9.0, 1.0, -8.0, 5.0, 4.9, 9.5, 0.0])
    seeds = np.array([1, 1, 2, 2, 3, 3, 4, 4])
    ranking = rank(predicted, seeds, np.zeros(8, int), top=0.25, held_out=0.34, seed=0)
    watched = set(ranking.held_out.first.tolist()) | set(ranking.held_out.second.tolist())
    assert len(ranking.anchors) == 2 and not watched & set(ranking.anchors.tolist())
    assert set(ranking.anchors.tolist()) <= {1, 2, 4, 5, 6}
    found = [*zip(ranking.train.first.tolist(), ranking.train.second.tolist(), strict=True)]
    found += [*zip(ranking.held_out.first.tolist(), ranking.held_out.second.tolist(), strict=True)]
    assert set(found) == {(1, 0), (2, 3), (6, 7)} and len(found) == 3, "reset 3 differs by too little to be a pair"
    assert all(math.isclose(float(p), 1, abs_tol=0.01) for p in ranking.train.prob_first)


def test_rollouts_that_are_all_alike_still_give_something_to_learn_and_to_watch():
    ranking = rank(np.zeros(8), np.repeat([1, 2, 3, 4], 2), np.zeros(8, int), top=0.3, held_out=0.15, seed=0)
    assert len(ranking.train) == 1 and len(ranking.held_out) == 1
    assert ranking.train.prob_first.tolist() == [0.5]


def test_held_out_pairs_share_no_episode_with_training_pairs():
    rng = np.random.default_rng(0)
    first = torch.from_numpy(rng.integers(0, 30, 60))
    pairs = PairTable(first, first + torch.from_numpy(rng.integers(1, 30, 60)), torch.ones(60), torch.ones(60))
    train, held_out = halves(pairs, 0.15, 0)
    parts = [{*part.first.tolist(), *part.second.tolist()} for part in (train, held_out)]
    assert len(train) >= 3 and len(held_out) >= 9 and not parts[0] & parts[1]


@pytest.mark.parametrize("first", [[0, 0, 0, 0, 0, 0], [0, 2]])
def test_where_too_few_pairs_would_remain_none_is_held_out(first):
    count = len(first)
    pairs = PairTable(torch.tensor(first), torch.arange(10, 10 + count), torch.ones(count), torch.ones(count))
    train, held_out = halves(pairs, 0.15, 0)
    assert len(train) == count and len(held_out) == 0


def test_a_curriculum_opens_the_clearest_pairs_first_and_all_in_the_last_round():
    predicted = np.array([9.0, -9, 4, -4, 8, -8, 5, -5, 7, -7, 6, -6])
    seeds = np.repeat(np.arange(6), 2)
    ranking = rank(predicted, seeds, np.zeros(12, int), top=0.3, held_out=0.0, seed=0)
    gap = (ranking.train.prob_first - 0.5).abs()
    for progress in (1 / 3, 2 / 3, 1.0):
        found = opened(ranking, progress)
        count = math.ceil((0.3 + 0.7 * progress) * len(gap))
        kept = [*zip(found.train.first.tolist(), found.train.second.tolist(), strict=True)]
        assert len(kept) == count and found.held_out is ranking.held_out
        assert (found.train.prob_first - 0.5).abs().min() >= gap.sort(descending=True).values[count - 1]
    assert kept == [*zip(ranking.train.first.tolist(), ranking.train.second.tolist(), strict=True)]
