"""What to ask next: identities of the scores, honest propensities, and fewer labels than random."""

import numpy as np
import pytest

from robopref.labelling.queries import (
    RANDOM_SHARE,
    Posterior,
    answer_probabilities,
    disagreement,
    entropy,
    infogain,
    order,
    volume,
)


def drawn(k=50, n=200, spread=2.0, tie=0.3, seed=0):
    return answer_probabilities(np.random.default_rng(seed).normal(size=(k, n)) * spread, tie)


def test_the_three_outcomes_sum_to_one_and_swap_with_the_pair():
    gap = np.linspace(-8, 8, 41)[None]
    for tie in (0.0, 0.4, 1.5):
        p = answer_probabilities(gap, tie)
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-12)
        np.testing.assert_allclose(answer_probabilities(-gap, tie), p[..., ::-1], atol=1e-12)
    assert answer_probabilities(gap, 0.0)[..., 1].max() == 0
    assert answer_probabilities(np.array([[50.0]]), lapse=0.2)[0, 0, 0] == pytest.approx(0.9)


def test_information_gain_is_mutual_information():
    p = drawn()
    gain = infogain(p)
    joint = p / len(p)  # (K, N, 3)
    mutual = (joint * np.log2(p / p.mean(0))).sum(axis=(0, 2))
    np.testing.assert_allclose(gain, mutual, atol=1e-9)
    assert (gain >= -1e-12).all() and (gain <= entropy(p.mean(0)) + 1e-12).all()
    sure = np.repeat(p[:1], 20, axis=0)
    np.testing.assert_allclose(infogain(sure), 0, atol=1e-12)
    np.testing.assert_allclose(disagreement(sure), 0, atol=1e-12)


def test_information_gain_prefers_what_people_can_answer_and_plain_entropy_does_not():
    gap = np.stack(
        [np.zeros(40), np.where(np.arange(40) % 2, 6.0, -6.0)], axis=1
    )  # nobody knows / models disagree clearly
    p = answer_probabilities(gap)
    assert infogain(p).argmax() == 1 and infogain(p)[0] < 1e-9
    assert entropy(p.mean(0))[0] == pytest.approx(1.0)


def test_volume_is_half_where_the_models_are_evenly_split():
    gap = np.stack([np.where(np.arange(40) % 2, 30.0, -30.0), np.full(40, 30.0)], axis=1)
    np.testing.assert_allclose(volume(answer_probabilities(gap)), [0.5, 0.0], atol=1e-9)


def test_a_fifth_is_random_and_the_propensities_are_those_of_the_draw():
    scores = np.arange(40.0)
    first = np.zeros(40)
    random = 0
    told = {}
    for seed in range(4000):
        index, chance, drawn_randomly = order(scores, 1, np.random.default_rng(seed))
        first[index[0]] += 1
        random += drawn_randomly[0]
        told[int(index[0])] = float(chance[0])
    assert abs(random / 4000 - RANDOM_SHARE) < 0.02
    assert first[39] / 4000 == pytest.approx(told[39], abs=0.02)
    others = [i for i in range(39) if first[i]]
    assert first[others].sum() / 4000 == pytest.approx(0.2 * 39 / 40, abs=0.02)
    assert all(told[i] == pytest.approx(0.2 / 40) for i in others)


def test_an_order_has_no_repeats_and_diversity_spreads_it():
    rng = np.random.default_rng(0)
    vectors = np.concatenate([np.tile([1.0, 0.0], (20, 1)), np.tile([0.0, 1.0], (20, 1))]) + 0.01 * rng.normal(
        size=(40, 2)
    )
    scores = np.r_[np.full(20, 1.0), np.full(20, 0.9)]
    index, _, random = order(scores, 40, np.random.default_rng(3), vectors)
    assert sorted(index) == list(range(40))
    kept = [i for i, r in zip(index, random, strict=True) if not r][:2]
    assert {k // 20 for k in kept} == {0, 1}


def test_the_posterior_is_the_mode_and_its_curvature():
    rng = np.random.default_rng(0)
    x, truth = rng.normal(size=(400, 4)), np.array([2.0, -1.0, 0.5, 0.0])
    said = (rng.random(400) < 1 / (1 + np.exp(-x @ truth))).astype(float)
    fitted = Posterior(precision=0.05).fit(x, said)
    p = 1 / (1 + np.exp(-x @ fitted.mean))
    np.testing.assert_allclose(x.T @ (said - p), 0.05 * fitted.mean, atol=1e-4)
    cov = np.cov(fitted.samples(4000, rng, sweeps=10).T)
    np.testing.assert_allclose(np.linalg.inv(cov), (x.T * (p * (1 - p))) @ x + 0.05 * np.eye(4), rtol=0.1, atol=1.5)
    assert np.abs(fitted.mean - truth).max() < 0.5


def test_samples_follow_the_posterior_where_no_normal_distribution_does():
    """One answer against a steep prior: mean and spread along it by quadrature, the prior's spread across it."""
    fitted = Posterior(precision=0.05, lapse=0.1).fit(np.array([[1.0, 0.0]]), np.ones(1))
    drawn = fitted.samples(4000, np.random.default_rng(2), sweeps=60)
    w = np.linspace(-30, 30, 6001)
    density = (0.9 / (1 + np.exp(-w)) + 0.05) * np.exp(-0.05 * w**2 / 2)
    density /= density.sum()
    mean = (w * density).sum()
    assert drawn[:, 0].mean() == pytest.approx(mean, abs=0.2)
    assert drawn[:, 0].std() == pytest.approx(np.sqrt((w**2 * density).sum() - mean**2), rel=0.05)
    assert drawn[:, 1].std() == pytest.approx(np.sqrt(20), rel=0.05)
    assert abs(np.median(drawn[:, 0]) - fitted.mean[0]) > 0.3
    ahead = fitted.samples(4000, np.random.default_rng(3), sweeps=20, start=drawn)
    assert ahead[:, 0].mean() == pytest.approx(mean, abs=0.2)


def test_a_tie_counts_half_for_either_side_and_weight_nothing_as_if_unasked():
    x, rng = np.array([[3.0, 0.0], [0.0, 3.0]]), np.random.default_rng(4)
    drawn = Posterior().fit(x, np.array([0.5, 1.0]), weight=np.array([1.0, 0.0])).samples(4000, rng, sweeps=60)
    assert np.abs(drawn.mean(axis=0)).max() < 0.3
    assert drawn[:, 0].std() < 1.5 and drawn[:, 1].std() == pytest.approx(np.sqrt(20), rel=0.05)


def test_swapped_questions_teach_the_same():
    rng = np.random.default_rng(1)
    x, said = rng.normal(size=(60, 3)), rng.integers(0, 2, 60).astype(float)
    np.testing.assert_allclose(Posterior().fit(x, said).mean, Posterior().fit(-x, 1 - said).mean, atol=1e-8)
