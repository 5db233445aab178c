"""Expectation propagation: mean and spread against quadrature, invariances, and what a next answer would change."""

import numpy as np
import pytest
from scipy.special import ndtr

from robopref.labelling.posterior import LEVELS, WIDTH, Posterior


def answered(n=60, d=4, seed=0):
    rng = np.random.default_rng(seed)
    x, truth = rng.normal(size=(n, d)), rng.normal(size=d)
    return x, (x @ truth > 0).astype(float), truth


@pytest.mark.parametrize("lapse", [0.0, 0.1])
def test_one_answer_has_the_mean_and_spread_of_quadrature(lapse):
    """Along it by quadrature, across it the prior's."""
    fitted = Posterior(precision=0.05, lapse=lapse).fit(np.array([[1.0, 0.0]]), np.ones(1))
    w = np.linspace(-40, 40, 16001)
    density = ((1 - lapse) * ndtr(w / WIDTH) + lapse / 2) * np.exp(-0.05 * w**2 / 2)
    density /= density.sum()
    mean = (w * density).sum()
    assert fitted.mean == pytest.approx([mean, 0], abs=1e-4)
    assert fitted.spread[0, 0] == pytest.approx((w**2 * density).sum() - mean**2, rel=1e-4)
    assert fitted.spread[1, 1] == pytest.approx(20) and fitted.spread[0, 1] == pytest.approx(0)


def test_consistent_answers_have_the_mean_of_their_cone_by_quadrature():
    """Two weights, eight noise-free answers, the posterior summed over a grid: mean within a tenth of the spread, which is a little too small (Minka 2001)."""
    x, said, _ = answered(8, 2, seed=3)
    fitted = Posterior().fit(x, said)
    axis = np.linspace(-25, 25, 501)
    w = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    weight = np.exp(-0.025 * (w**2).sum(1)) * ndtr(w @ (x * (2 * said - 1)[:, None]).T / WIDTH).prod(1)
    mean = weight @ w / weight.sum()
    spread = ((w - mean).T * weight) @ (w - mean) / weight.sum()
    assert np.abs(fitted.mean - mean).max() < 0.1 * np.sqrt(np.trace(spread))
    assert 0.8 < np.trace(fitted.spread) / np.trace(spread) < 1.05


def test_answers_one_by_one_teach_what_they_teach_together():
    x, said, _ = answered()
    together, grown = Posterior().fit(x, said), Posterior()
    for n in range(1, len(x) + 1):
        grown.fit(x[:n], said[:n])
    np.testing.assert_allclose(grown.mean, together.mean, rtol=0.02, atol=0.02)
    assert np.mean((x @ together.mean > 0) == said) > 0.97
    fresh = together.fit(x[::-1], said[::-1]).mean
    np.testing.assert_allclose(fresh, grown.mean, rtol=0.02, atol=0.02)


def test_swapped_questions_teach_the_same_and_a_tie_that_there_is_no_gap():
    x, said, _ = answered(30)
    np.testing.assert_allclose(Posterior().fit(x, said).mean, Posterior().fit(-x, 1 - said).mean, atol=1e-8)
    tied = Posterior().fit(np.array([[3.0, 0.0]]), np.array([0.5]))
    assert np.abs(tied.mean).max() == 0 and tied.gaps(np.array([[3.0, 0.0]]))[1][0] == pytest.approx(WIDTH, rel=0.01)


def test_spread_stays_a_spread_whatever_is_answered():
    rng = np.random.default_rng(2)
    x, said = rng.normal(size=(150, 6)), rng.choice([0.0, 0.5, 1.0], size=150)
    for lapse in (0.0, 0.2):
        fitted = Posterior(lapse=lapse).fit(x, said)
        assert np.isfinite(fitted.mean).all() and np.linalg.eigvalsh(fitted.spread).min() > 0


def test_likely_gaps_have_the_mean_and_spread_of_their_question():
    x, said, _ = answered(20)
    fitted = Posterior().fit(x, said)
    mean, deviation = fitted.gaps(x)
    levels = fitted.likely_gaps(x)
    assert levels.shape == (LEVELS, 20)
    np.testing.assert_allclose(levels.mean(0), mean, atol=1e-6)
    np.testing.assert_allclose(levels.std(0), deviation, rtol=0.05)


def test_the_scale_of_rewards_is_learned_from_noisy_answers_and_stays_wide_for_consistent_ones():
    rng = np.random.default_rng(4)
    x, held = rng.normal(size=(600, 30)), rng.normal(size=(2000, 30))
    for precision in (1.0, 4.0):
        truth = rng.normal(size=30) / np.sqrt(precision)
        noisy = (rng.random(600) < 1 / (1 + np.exp(-x @ truth))).astype(float)
        learned, fixed = Posterior(learn=True), Posterior().fit(x, noisy)
        for n in range(50, 601, 50):
            learned.fit(x[:n], noisy[:n])
        assert 0.5 < learned.alpha / precision < 2 and fixed.alpha == 0.05
        right = [np.mean((held @ fitted.mean > 0) == (held @ truth > 0)) for fitted in (learned, fixed)]
        assert right[0] > right[1] - 0.005
    assert Posterior(learn=True).fit(x, (x @ truth > 0).astype(float)).alpha < 0.2
