"""What to ask next: identities of the scores, honest propensities, and fewer labels than random."""

import numpy as np
import pytest
from scipy.special import ndtr

from robopref.arrays import InputError
from robopref.labelling.posterior import WIDTH, Posterior
from robopref.labelling.queries import (
    CANDIDATES,
    RANDOM_SHARE,
    answer_probabilities,
    disagreement,
    entropy,
    epig,
    infogain,
    order,
    scores,
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


def test_epig_is_mutual_information_of_two_answers():
    """From a table of both answers, and none where the other question has nothing to do with the answer."""
    chances, after = np.array([[0.3], [0.7]]), np.array([[[0.9, 0.4]], [[0.2, 0.4]]])
    joint = np.array([[0.27, 0.03], [0.14, 0.56]])
    mutual = (joint * np.log2(joint / (joint.sum(1, keepdims=True) * joint.sum(0)))).sum()
    np.testing.assert_allclose(epig(chances, after), [mutual / 2], atol=1e-12)


def test_epig_asks_what_most_others_hang_on():
    """Two questions equally open: one about the way in which most others differ, one about a way of its own."""
    rng = np.random.default_rng(0)
    others = np.c_[rng.normal(size=300), 0.05 * rng.normal(size=300)]
    asked = np.array([[1.0, 0.0], [0.0, 1.0]])
    fitted = Posterior(0.05).fit(np.full((1, 2), 1e-6), np.ones(1))
    told = epig(*fitted.foresee(asked, others))
    assert told[0] > 3 * told[1] >= 0
    pool = rng.normal(size=(300, 2))
    value = scores("epig", fitted, pool, rng)
    first = np.argsort(-value)[:CANDIDATES]
    gain = scores("infogain", fitted, pool, rng)
    assert set(first) == set(np.argsort(-gain, kind="stable")[:CANDIDATES])
    with pytest.raises(InputError, match="epig"):
        scores("best", fitted, pool, rng)


@pytest.mark.parametrize("told", [1.0, 0.0])
def test_what_is_foreseen_is_what_the_answer_then_brings(told, monkeypatch):
    """Exactly, as long as the answers before are not looked at again."""
    rng = np.random.default_rng(1)
    x, truth = rng.normal(size=(11, 4)), rng.normal(size=4)
    said, others = (x @ truth > 0).astype(float), rng.normal(size=(20, 4))
    fitted = Posterior(lapse=0.1).fit(x[:10], said[:10])
    chances, after = fitted.foresee(x[10:], others)
    assert chances.sum() == pytest.approx(1)
    monkeypatch.setattr("robopref.labelling.posterior.SWEEPS", 0)
    mean, deviation = fitted.fit(x, np.r_[said[:10], told]).gaps(others)
    np.testing.assert_allclose(after[int(1 - told), 0], ndtr(mean / np.sqrt(WIDTH**2 + deviation**2)), atol=1e-9)
