"""Flags and weights: careless raters are found, careful ones are left alone."""

import math
import time

import numpy as np
import pytest
from asked import event, opened, pairs

from robopref.data.question_queue import CheckPlan
from robopref.labelling.organiser import said
from robopref.labelling.quality import Said, alphas, check_evidence, flags, records, reliability, two_sided

CLIP = 2600.0


def rater(kind, rng, answers=30, checks=14, gold_share=0.85):
    """Answers of one person to `answers` questions, of which `checks` are gold or repeats."""
    found, seen = [], []
    at = set(rng.choice(np.arange(2, answers), checks, replace=False).tolist())
    for n in range(answers):
        gold = n in at and (rng.random() < gold_share or len(seen) < 8)
        repeat = n in at and not gold
        unit, truth = seen[n % max(1, len(seen) - 4)] if repeat else (f"u{n}", int(rng.integers(0, 2)) * 2)
        first_left = bool(rng.integers(0, 2))
        right = {"careful": rng.random() < 0.95, "hasty": rng.random() < 0.95}.get(kind, rng.random() < 0.5)
        value = truth if right else 2 - truth
        if kind == "left":
            value = 2 if first_left else 0
        left = (value == 2) == first_left
        time = 400 + 200 * rng.random() if kind == "hasty" else CLIP * rng.lognormal(0.4, 0.35)
        found.append(Said("x", unit, value, left, time, CLIP, repeat, truth if gold else None))
        if n not in at:
            seen.append((unit, truth))
    return found


@pytest.mark.parametrize(("kind", "flag"), [("random", "checks"), ("left", "side bias"), ("hasty", "speeding")])
def test_careless_raters_are_flagged_within_thirty_answers(kind, flag):
    found = [flags(rater(kind, np.random.default_rng(seed))) for seed in range(150)]
    assert np.mean([flag in f for f in found]) >= 0.95


def test_a_careful_rater_is_left_alone():
    assert np.mean([bool(flags(rater("careful", np.random.default_rng(1000 + seed)))) for seed in range(300)]) <= 0.03


def test_fifteen_of_fifteen_on_one_side_has_the_stated_chance():
    p = two_sided(np.array([15, 10, 0, 700]), np.array([15, 20, 15, 1200]))
    exact = 2 * sum(math.comb(1200, j) for j in range(700, 1201)) / 2**1200
    np.testing.assert_allclose(p, [2 / 2**15, 1.0, 2 / 2**15, exact], rtol=1e-9)


def test_thousands_of_answers_are_looked_at_in_a_moment():
    """The organiser's page asks every ten seconds; a chance of k of n from whole numbers overflows at 1030 answers."""
    rng = np.random.default_rng(3)
    for kind, found in (("careful", []), ("hasty", ["speeding"])):
        begin = time.perf_counter()
        assert flags(rater(kind, rng, answers=5000, checks=10)) == found
        assert time.perf_counter() - begin < 2


def test_checks_count_gold_and_repeats_but_not_first_answers():
    own = [
        Said("x", "a", 2, True, 3000, CLIP),
        Said("x", "g", 0, True, 3000, CLIP, gold=0),
        Said("x", "a", 0, True, 3000, CLIP, repeat=True),
    ]
    path = check_evidence(own)
    assert len(path) == 2 and path[0] > 0 > path[1]
    assert check_evidence([Said("x", "a", None, None, 3000, CLIP), Said("x", "a", 2, True, 1, CLIP, repeat=True)]) == []


def team(rng, units=80):
    truth = rng.integers(0, 2, units) * 2
    skill = {"careful": 0.97, "other": 0.95, "fair": 0.8, "random": 0.5}
    return [
        Said(
            name,
            f"u{u}",
            int(truth[u] if rng.random() < right else 2 - truth[u]),
            bool(rng.integers(0, 2)),
            4000,
            CLIP,
            items=(f"a{u}", f"b{u}"),
        )
        for name, right in skill.items()
        for u in range(units)
    ]


def test_weights_order_people_by_reliability():
    weights = reliability(team(np.random.default_rng(0)))
    assert weights["careful"] > 0.7 > weights["fair"] > 0.2 and weights["random"] < 0.1
    assert reliability([Said("new", "u", 2, True, 1, CLIP)])["new"] > 0.85


def test_the_organisers_table_has_one_row_per_person_and_alpha_of_the_overlap():
    own = team(np.random.default_rng(1))
    rows = {r.name: r for r in records(own)}
    assert set(rows) == {"careful", "other", "fair", "random"} and rows["careful"].answers == 80
    assert rows["careful"].ability > rows["random"].ability
    assert 0.1 < alphas(own)["nominal"] < 0.6


def test_answers_of_the_store_are_read_in_pair_coordinates(tmp_path):
    answers = opened(tmp_path, 60, plan=CheckPlan(0.0, screen=14))
    better = {c.id: c.windows[0] for c in pairs(60)}
    for _ in range(30):
        (given,) = answers.queue.next("ada", "t", 1)
        unit = (
            answers.log.db.execute("SELECT repeat_of FROM comparison WHERE id = ?", (given["item"],)).fetchone()[
                "repeat_of"
            ]
            or given["item"]
        )
        answers.record(
            "ada", event(given, "left" if given["windows"][0] == better[unit] else "right", response_ms=3000.0)
        )
    own = said(answers, CLIP / 10)
    assert (
        {a.clip_ms for a in own} == {CLIP}
        and {a.value for a in own} == {2}
        and sum(a.repeat for a in own) >= 12
        and flags(own) == []
    )
    (row,) = records(own)
    assert row.repeats[0] == row.repeats[1] >= 12 and row.weight > 0.9
