"""Sampling strategies: what they promise, on numbers where it can be counted."""

import numpy as np
import pytest

from robopref.arrays import InputError
from robopref.data.strategies import curriculum, rejection_pairs, rejection_sample, relabelled, semi_policy_pairs


def test_a_curriculum_opens_clear_pairs_first_and_all_at_the_end():
    gap = np.array([0.1, -3.0, 2.0, 0.5, -0.2])
    assert curriculum(gap, 0.0, start=0.4).tolist() == [False, True, True, False, False]
    assert curriculum(gap, 1.0).all()
    sizes = [curriculum(gap, p).sum() for p in np.linspace(0, 1, 9)]
    assert sizes == sorted(sizes) and sizes[0] == 2
    before, after = curriculum(gap, 0.2), curriculum(gap, 0.8)
    assert (after | ~before).all(), "an open pair stays open"
    for wrong in ({"progress": 1.2}, {"progress": 0.5, "start": 0.0}):
        with pytest.raises(InputError, match="progress"):
            curriculum(gap, **wrong)


def test_the_first_accepted_candidate_follows_the_tilted_distribution():
    reward, beta, rng = np.array([0.0, 1.0, 2.0]), 1.0, np.random.default_rng(0)
    counts = np.bincount([rejection_sample(reward, 1, beta, rng)[0] for _ in range(6000)], minlength=3) / 6000
    # One candidate of a pool visited in random order: near e^{r / beta}, and always in its order.
    assert counts[0] < counts[1] < counts[2] and counts[2] > 0.5


def test_beta_goes_from_the_best_to_any():
    reward, rng = np.arange(10.0), np.random.default_rng(0)
    assert sorted(rejection_sample(reward, 3, 1e-3, rng)) == [7, 8, 9]
    means = [
        np.mean([reward[rejection_sample(reward, 3, beta, rng)].mean() for _ in range(200)]) for beta in (0.5, 3.0, 1e6)
    ]
    assert means[0] > means[1] > means[2] and means[2] == pytest.approx(4.5, abs=0.4)
    assert sorted(rejection_sample(reward, 10, 1.0, rng)) == list(range(10))
    with pytest.raises(InputError, match="count"):
        rejection_sample(reward, 11, 1.0, rng)


def test_rejection_pairs_stay_inside_a_reset_and_carry_the_reward_model_s_probability():
    rng = np.random.default_rng(0)
    reward, group = rng.normal(size=20), np.repeat(np.arange(5), 4)
    pairs = rejection_pairs(reward, group, 3, 1.0, rng, scale=0.5)
    assert (
        len(pairs) == 5 * 3
        and (group[pairs.first] == group[pairs.second]).all()
        and (pairs.first != pairs.second).all()
    )
    np.testing.assert_allclose(pairs.prob_first, 1 / (1 + np.exp(-(reward[pairs.first] - reward[pairs.second]) / 0.5)))
    with pytest.raises(InputError, match="no group of two"):
        rejection_pairs(reward, np.arange(20), 3, 1.0, rng)


def test_relabelling_uses_each_pair_both_ways():
    reward = np.array([1.0, 5.0, 2.0, 2.0])
    pairs, goal = relabelled(np.array([1, 2]), np.array([0, 3]), reward)
    assert pairs.first.tolist() == [1, 2, 1, 2] and pairs.second.tolist() == [0, 3, 0, 3]
    assert goal.tolist() == [5, 2, 1, 2]
    assert pairs.prob_first.tolist() == [1, 0.5, 0, 0.5], "under the loser's own reward the loser is what was asked for"


def test_semi_policy_pairs_start_alike_and_take_every_checkpoint():
    rng = np.random.default_rng(0)
    winners, winner_group = np.array([0, 1, 2]), np.array([10, 11, 99])
    own, own_group = np.arange(3, 11), np.array([10, 10, 10, 10, 11, 11, 11, 12])
    checkpoint = np.array([0, 0, 0, 1, 0, 1, 1, 1])
    seen = set()
    for _ in range(60):
        pairs = semi_policy_pairs(winners, winner_group, own, own_group, checkpoint, rng)
        assert pairs.first.tolist() == [0, 1] and (pairs.prob_first == 1).all()
        assert [int(own_group[s - 3]) for s in pairs.second] == [10, 11]
        seen.add(int(checkpoint[pairs.second[0] - 3]))
    assert seen == {0, 1}
    with pytest.raises(InputError, match="winners' resets"):
        semi_policy_pairs(winners[2:], winner_group[2:], own, own_group, checkpoint, rng)
