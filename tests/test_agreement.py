"""Agreement and reliability against a peer, against identities, and against raters whose truth is known."""

import math

import krippendorff
import numpy as np
import pytest

from robopref.agreement import bradley_terry, bradley_terry_ability, dawid_skene, krippendorff_alpha
from robopref.arrays import InputError


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_equals_the_peers(level, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 40)
    table = np.where(rng.random((5, 40)) < 0.7, truth, rng.integers(0, 3, (5, 40))).astype(float)
    table[rng.random(table.shape) < 0.4] = np.nan
    wanted = krippendorff.alpha(reliability_data=table, level_of_measurement=level)
    assert krippendorff_alpha(table, level) == pytest.approx(wanted, abs=1e-9)


def test_alpha_is_one_for_agreement_and_near_zero_for_chance():
    rng = np.random.default_rng(0)
    same = np.tile(rng.integers(0, 3, 200).astype(float), (3, 1))
    assert krippendorff_alpha(same) == 1.0
    assert abs(krippendorff_alpha(rng.integers(0, 3, (3, 3000)).astype(float))) < 0.05
    assert math.isnan(krippendorff_alpha(np.full((2, 4), np.nan)))
    with pytest.raises(InputError, match="level"):
        krippendorff_alpha(same, "interval")


def raters(skill, units=300, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, units)
    answers = []
    for rater, right in enumerate(skill):
        said = np.where(rng.random(units) < right, truth, rng.integers(0, classes, units))
        answers += [(u, rater, int(said[u])) for u in range(units) if rng.random() < 0.6]
    return truth, answers


def test_dawid_skene_finds_truth_and_skill():
    truth, answers = raters([0.95, 0.9, 0.8, 0.0])
    found = dawid_skene(answers)
    asked = sorted({u for u, _, _ in answers})
    assert (found.posterior.argmax(1) == truth)[asked].mean() > 0.89
    np.testing.assert_allclose(found.accuracy, [0.967, 0.933, 0.867, 0.333], atol=0.08)
    np.testing.assert_allclose(found.confusion.sum(axis=2), 1.0)


def test_gold_helps_where_most_raters_are_wrong():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 2, 200)
    answers = [(u, r, int(truth[u] if r == 0 else 1 - truth[u])) for u in range(200) for r in range(3)]
    assert (dawid_skene(answers, 2).posterior.argmax(1) == truth).mean() < 0.1
    known = {u: int(truth[u]) for u in range(40)}
    assert (dawid_skene(answers, 2, known).posterior.argmax(1) == truth).mean() > 0.95


def test_a_rater_without_an_answer_has_a_row():
    assert dawid_skene([(0, 0, 1)], raters=3).confusion.shape == (3, 3, 3)


def test_ability_orders_raters_who_share_no_question():
    rng = np.random.default_rng(0)
    score = rng.normal(size=30) * 2
    first, second, prob, rater = [], [], [], []
    for n in range(900):
        a, b = rng.choice(30, 2, replace=False)
        who = n % 3  # careful, random, sides confused
        truth = rng.random() < 1 / (1 + np.exp(-(score[a] - score[b])))
        said = {0: truth, 1: rng.random() < 0.5, 2: not truth}[who]
        first.append(a), second.append(b), prob.append(float(said)), rater.append(who)
    found, ability = bradley_terry_ability(*map(np.array, (first, second, prob, rater)))
    assert ability[0] > 0.7 and abs(ability[1]) < 0.3 and ability[2] < -0.4
    assert np.corrcoef(found, score)[0, 1] > 0.9


def test_bradley_terry_solves_its_equations_and_is_finite_for_any_graph():
    wins = np.array([[0, 3, 1], [1, 0, 4], [2, 1, 0]], float)
    p = bradley_terry(wins, prior=0.0)
    games = wins + wins.T
    expected = games * p[:, None] / (p[:, None] + p[None])
    np.testing.assert_allclose(expected.sum(1), wins.sum(1), atol=1e-9)
    assert np.isfinite(bradley_terry(np.array([[0, 5], [0, 0]], float))).all()
