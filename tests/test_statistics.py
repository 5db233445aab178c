"""Intervals and tests against scipy, against their identities, and against simulated truth."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from robopref.arrays import InputError
from robopref.statistics import (
    clustered_bootstrap,
    interquartile_mean,
    paired_bootstrap,
    paired_nodes_bootstrap,
    paired_test,
    sequential_fall,
    sign_flip_test,
    stratified_bootstrap_iqm,
    wilson,
)


@pytest.fixture(scope="module")
def outcomes():
    generator = np.random.default_rng(3)
    return (generator.random(100) < 0.7).astype(float), (generator.random(100) < 0.4).astype(float)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (3, 10), (41, 100), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_wilson_equals_scipy(successes, n, level):
    from scipy.stats import binomtest

    there = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert_allclose(wilson(successes, n, level), (there.low, there.high), atol=1e-12)


def test_wilson_of_nothing_knows_nothing_and_of_nonsense_is_refused():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(InputError, match="wanted 0 <= successes <= n"):
        wilson(11, 10)


def test_wilson_mirrors_when_successes_and_failures_swap():
    lo, hi = wilson(13, 50)
    assert_allclose(wilson(37, 50), (1 - hi, 1 - lo))


def test_swapping_the_policies_negates_the_difference_and_keeps_the_p_value(outcomes):
    a, b = outcomes
    difference, lo, hi = paired_bootstrap(a, b)
    assert_allclose(paired_bootstrap(b, a), (-difference, -hi, -lo), atol=1e-12)
    assert paired_test(a, b) == paired_test(b, a)
    assert paired_test(3 * a, 3 * b) == paired_test(3 * b, 3 * a)


def test_equal_policies_differ_by_zero_with_p_one(outcomes):
    a, _ = outcomes
    assert paired_bootstrap(a, a) == (0.0, 0.0, 0.0)
    assert paired_test(a, a) == 1.0
    assert paired_test(a + 0.5, a + 0.5) == 1.0


def test_binary_outcomes_give_mcnemars_exact_test(outcomes):
    from scipy.stats import binomtest

    a, b = outcomes
    wins, losses = int(((a == 1) & (b == 0)).sum()), int(((a == 0) & (b == 1)).sum())
    assert_allclose(paired_test(a, b), binomtest(wins, wins + losses).pvalue)


def test_exact_test_survives_thousands_of_resets():
    a, b = np.ones(5000), np.zeros(5000)
    assert 0.0 <= paired_test(a, b) < 1e-300


def test_sign_flips_equal_scipy_when_every_flip_is_tried():
    from scipy.stats import permutation_test

    a, b = np.random.default_rng(0).normal(size=(2, 9))
    there = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert_allclose(paired_test(a, b), there.pvalue)


def test_random_sign_flips_come_close_to_all_of_them():
    difference = np.random.default_rng(1).normal(0.4, 1, 14)
    exact = sign_flip_test(difference)
    many = sign_flip_test(np.concatenate([difference, [1e-12]]), resamples=40_000)  # 15 values: sampled
    assert abs(exact - many) < 0.01


def test_bootstrap_equals_scipy_within_its_own_noise(outcomes):
    from scipy.stats import bootstrap

    a, b = outcomes
    there = bootstrap((a - b,), np.mean, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    assert_allclose(paired_bootstrap(a, b)[1:], (there.low, there.high), atol=0.015)


def test_the_same_seed_gives_the_same_interval(outcomes):
    assert paired_bootstrap(*outcomes, seed=4) == paired_bootstrap(*outcomes, seed=4)


def test_paired_bootstrap_covers_the_truth_at_its_level():
    generator = np.random.default_rng(0)
    base = generator.random((400, 80))
    a, b = base < 0.6, (0.5 * base + 0.5 * generator.random((400, 80))) < 0.5  # correlated, as shared resets are
    truth = 0.6 - 0.5
    inside = [lo <= truth <= hi for _, lo, hi in (paired_bootstrap(x, y, 1000) for x, y in zip(a, b, strict=True))]
    assert 0.91 < np.mean(inside) < 0.985


def test_paired_test_rejects_a_true_null_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 1000, 60)) < 0.5
    rejected = np.mean([paired_test(x, y) < 0.05 for x, y in zip(a, b, strict=True)])
    assert rejected <= 0.05  # exact tests are conservative


def test_interquartile_mean_equals_scipys_trimmed_mean():
    from scipy.stats import trim_mean

    for n in (1, 3, 4, 7, 18):
        values = np.random.default_rng(n).normal(size=n)
        assert_allclose(interquartile_mean(values), trim_mean(values, 0.25))


def test_interquartile_mean_ignores_an_outlier_and_keeps_a_constant():
    assert interquartile_mean([1, 1, 1, 1, 1, 1, 1, 1000]) == 1.0
    estimate, lo, hi = stratified_bootstrap_iqm([[0.5, 0.5], [0.5]])
    assert (estimate, lo, hi) == (0.5, 0.5, 0.5)


def test_stratified_bootstrap_resamples_inside_tasks_only():
    scores = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]  # no task varies, so nothing can vary
    assert stratified_bootstrap_iqm(scores)[1:] == (0.5, 0.5)


def test_one_cluster_is_the_plain_bootstrap(outcomes):
    a, b = outcomes
    assert_allclose(clustered_bootstrap([a - b])[1:], paired_bootstrap(a, b)[1:], atol=0.015)


def test_seeds_that_disagree_widen_the_interval(outcomes):
    a, b = outcomes
    same = clustered_bootstrap([a - b, a - b, a - b])
    apart = clustered_bootstrap([a - b + shift for shift in (-0.3, 0.0, 0.3)])
    assert_allclose(same[0], apart[0])
    assert apart[2] - apart[1] > 1.5 * (same[2] - same[1])


def test_clusters_cover_the_mean_over_seeds():
    generator = np.random.default_rng(0)
    inside = []
    for _ in range(200):
        rates = np.clip(0.5 + 0.15 * generator.normal(size=12), 0, 1)
        _, lo, hi = clustered_bootstrap([generator.random(40) < rate for rate in rates], resamples=500)
        inside.append(lo <= 0.5 <= hi)
    assert np.mean(inside) > 0.9


def test_each_stratum_counts_once_however_many_runs_it_has():
    clusters = [[1.0, 1.0], [0.0], [0.0], [0.0]]
    assert clustered_bootstrap(clusters, strata=["a", "b", "b", "b"]) == (0.5, 0.5, 0.5)
    assert clustered_bootstrap(clusters)[0] == 0.25


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([[1, 0]], [[1, 0]])])
def test_outcomes_that_do_not_belong_together_are_refused(a, b):
    with pytest.raises(InputError, match="same resets"):
        paired_bootstrap(a, b)
    with pytest.raises(InputError, match="same resets"):
        paired_test(a, b)


def test_pairs_that_share_episodes_give_a_wider_interval_than_pairs_that_do_not():
    generator = np.random.default_rng(0)
    effect = generator.normal(size=20)
    first, second = np.triu_indices(20, 1)
    values = effect[first] + effect[second]
    mean, low, high = paired_nodes_bootstrap(values, first, second)
    assert mean == pytest.approx(values.mean()) and low < mean < high
    _, alone_low, alone_high = paired_nodes_bootstrap(values, np.arange(190), np.arange(190, 380))
    assert high - low > 2 * (alone_high - alone_low)
    assert paired_nodes_bootstrap(np.full(190, 0.3), first, second) == pytest.approx((0.3, 0.3, 0.3))
    with pytest.raises(InputError, match="wanted"):
        paired_nodes_bootstrap([1.0], [0, 1], [1, 2])


def outcomes_of(before, after, resets, generator, shared=0.5):
    """Differences (resets,) of two policies of known success; a share of the resets is as hard for one as for the other."""
    luck = generator.random(resets)
    other = np.where(generator.random(resets) < shared, luck, generator.random(resets))
    return (other < after).astype(float) - (luck < before)


def decisions(before, after, resets, runs=600, tolerance=0.05):
    generator = np.random.default_rng(5)
    made = [sequential_fall(outcomes_of(before, after, resets, generator), tolerance) for _ in range(runs)]
    return {kind: sum(one.decision == kind for one in made) / runs for kind in ("fell", "held", "open")}, made


@pytest.mark.parametrize("rate", [0.1, 0.45, 0.9])
def test_a_policy_that_is_no_worse_is_called_fallen_at_most_as_often_as_said(rate):
    found, _ = decisions(rate, rate, resets=400)  # eight times as many looks as a gate takes
    assert found["fell"] <= 0.05


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.85), (0.45, 0.4), (0.45, 0.2)])
def test_a_policy_that_fell_by_the_tolerance_is_held_at_most_as_often_as_said(before, after):
    found, _ = decisions(before, after, resets=400)
    assert found["held"] <= 0.05


def test_clear_cases_are_decided_early():
    gained, made = decisions(0.45, 0.95, resets=50)
    assert gained["held"] == 1 and np.mean([one.seen for one in made]) < 20
    lost, made = decisions(0.45, 0.0, resets=50)
    assert lost["fell"] > 0.99 and np.mean([one.seen for one in made]) < 20


def test_the_evidence_is_that_of_the_reset_at_which_it_was_decided():
    verdict = sequential_fall([-1.0] * 40, 0.05)
    assert verdict.decision == "fell" and verdict.seen < 10 and verdict.evidence_fell >= 20 > verdict.evidence_held
    cut = sequential_fall([-1.0] * verdict.seen + [1.0] * 100, 0.05)
    assert cut == verdict, "what comes after a decision changes nothing"
    assert sequential_fall([0.0], 0.05).decision == "open"


@pytest.mark.parametrize(
    ("values", "tolerance", "error"), [([], 0.05, 0.05), ([2.0], 0.05, 0.05), ([0.0], 0.05, 1.0), ([0.0], -1, 0.1)]
)
def test_a_sequential_test_refuses_what_it_cannot_bet_on(values, tolerance, error):
    with pytest.raises(InputError, match="sequential_fall"):
        sequential_fall(values, tolerance, error)
