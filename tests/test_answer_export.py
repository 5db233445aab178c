"""Answers become rows of the sidecar in the right direction, once, and come back as the same answers."""

import math

import numpy as np
import pytest
from asked import event, undo
from episodes import episode

from robopref.arrays import InputError
from robopref.data.answer_rows import Comparison, comparisons_of, prob_first, unpaired_rows
from robopref.data.feedback import read_feedback
from robopref.data.pairs import Window
from robopref.data.preferences import PreferenceStore
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.data.validate import validate
from robopref.labelers.people import FILE, Answers, People
from robopref.labelling.export import export
from robopref.labelling.restore import import_answers

BETTER = 3
"""The episode that is better than all others in these tests."""


@pytest.fixture
def store(tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for i in range(6):
            writer.add(episode(i, 10 + i))
    return TrajectoryStore(tmp_path / "store")


def whole(store, number):
    return Window(number, 0, store.episodes[number].length)


def asking(store, comparisons, seed=0):
    answers = Answers(store.root, seed=seed)
    answers.queue.add(comparisons, lambda w: store.episode_hash(w.episode))
    return answers


def duels(store):
    """Every pair with the better episode, which is first in some and second in others."""
    return [
        Comparison((whole(store, a), whole(store, b))) for a in range(6) for b in range(a + 1, 6) if BETTER in (a, b)
    ]


def prefer(given, episode=BETTER):
    return "left" if given["windows"][0].episode == episode else "right"


def answered(store, seed=0, **body):
    answers = asking(store, duels(store), seed)
    for given in answers.queue.next("ada", "t", 9):
        answers.record("ada", event(given, prefer(given), **body))
    return answers


@pytest.mark.parametrize("seed", range(3))
def test_the_chosen_clip_is_preferred_in_every_row_whichever_side_showed_it(store, seed):
    answers = answered(store, seed)
    assert {e["body"]["client"]["choice"] for e in answers.current()} == {"left", "right"}
    assert export(store, answers) == 5
    rows = PreferenceStore(store).pairs()
    assert [(p.first.episode if p.prob_first == 1 else p.second.episode) for p in rows] == [BETTER] * 5
    assert {p.prob_first for p in rows} == {0.0, 1.0} and {p.choice for p in rows} == {"first", "second"}
    assert all(p.source == "human" and p.annotator == "ada" for p in rows)
    assert validate(store.root) == []


def test_every_choice_has_its_probability(store):
    assert prob_first("equal", [1, 0]) == 0.5 and prob_first("left", [1, 0]) == 0 and prob_first("right", [1, 0]) == 1
    assert math.isnan(prob_first("cant_tell", [0, 1])) and math.isnan(prob_first("both_bad", [0, 1]))


def test_exporting_again_adds_nothing_and_an_undo_takes_the_row_back(store):
    answers = answered(store, strength=3, reasons=["safety", "own"], note="名", response_ms=1500.0)
    assert export(store, answers) == 5 and export(store, answers) == 0
    first = answers.current()[0]
    back = answers.record("ada", undo(first["uid"])).assignment
    assert export(store, answers) == 1
    assert sum(not p.answered for p in PreferenceStore(store).pairs()) == 1
    answers.record("ada", event(back, "equal"))
    assert export(store, answers) == 1 and export(store, answers) == 0
    rows = PreferenceStore(store).pairs()
    assert len(rows) == 5 and sorted(p.choice for p in rows).count("tie") == 1
    told = next(p for p in rows if p.choice != "tie")
    assert (told.strength, told.reasons, told.notes, told.response_time_s) == (3.0, "safety,own", "名", 1.5)


def test_undone_before_the_first_export_and_answered_anew_ends_the_same(store):
    answers = answered(store)
    back = answers.record("ada", undo(answers.current()[0]["uid"])).assignment
    answers.record("ada", event(back, "equal"))
    export(store, answers)
    rows = PreferenceStore(store).pairs()
    assert len(rows) == 5 and sum(p.prob_first == 0.5 for p in rows) == 1


def test_a_changed_weight_supersedes_and_an_equal_one_does_not(store):
    answers = answered(store)
    export(store, answers, {"ada": 0.9})
    assert export(store, answers, {"ada": 0.9}) == 0
    assert export(store, answers, {"ada": 0.4}) == 5
    assert export(store, answers, {"ada": 0.7}) == 5 and export(store, answers, {"ada": 0.7}) == 0
    rows = PreferenceStore(store).pairs()
    assert [p.weight for p in rows] == [0.7] * 5


def test_export_and_import_give_the_same_answers(store):
    answers = answered(store, strength=2, reasons=["safety"], response_ms=900.0)
    export(store, answers)
    before = view(answers)
    answers.close()
    for path in (store.root / FILE).parent.glob("answers.sqlite*"):
        path.unlink()
    fresh = Answers(store.root)
    assert import_answers(store, fresh) == 5 and import_answers(store, fresh) == 0
    assert view(fresh) == before and fresh.problems() == []
    assert export(store, fresh) == 0


def view(answers):
    """Question, preferred window, and what else was said, in any order."""
    told = []
    for e in answers.current():
        client = e["body"]["client"]
        prob = prob_first(client["choice"], e["body"]["server"]["shown"])
        said = (client.get("strength"), tuple(client.get("reasons", ())), client.get("response_ms"))
        told.append((tuple(e["windows"]), prob, e["annotator"], e["uid"], said))
    return sorted(told, key=str)


def test_rankings_expand_to_pairs_that_weigh_as_much_as_their_information():
    tiers = {"choice": "ranked", "ranking": [[2], [0, 1], [3]]}
    rows = comparisons_of("ranking", [3, 1, 0, 2], tiers)  # positions show windows 3, 1, 0, 2
    assert sorted(rows) == [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0), (1, 2, 1.0), (1, 3, 0.5), (2, 3, 0.0)]
    best = comparisons_of("best_worst", [2, 0, 1], {"choice": "chosen", "best": 0, "worst": 1})
    assert sorted(best) == [(1, 0, 1.0), (2, 0, 1.0), (2, 1, 1.0)]


@pytest.mark.parametrize(("rating", "good"), [(1, [False]), (2, [False]), (3, []), (4, [True]), (5, [True])])
def test_the_middle_rating_says_neither_good_nor_bad(store, rating, good):
    rows = unpaired_rows((whole(store, 0),), "rating", [0], {"choice": "rated", "rating": rating})
    assert [row["label"] for row in rows] == good


def test_other_modes_leave_their_own_tables(store):
    windows = tuple(whole(store, i) for i in range(4))
    asked = [Comparison(windows, "ranking"), *(Comparison((w,), mode) for w, mode in zip(windows, ("rating", "flag", "flag", "rating"), strict=True))]  # fmt: skip
    asked.append(Comparison(windows[:2]))
    answers = asking(store, asked)
    for given in answers.queue.next("ada", "t", 9):
        body = {
            "ranking": {
                "choice": "ranked",
                "ranking": [[3], [0], [1], [2]],
                "keypoints": [[3, 2]],
                "spans": [[0, 1, 4]],
            },
            "rating": {"choice": "rated", "rating": 5},
            "flag": {"choice": "failure"},
            "pairs": {"choice": "both_bad"},
        }[given["mode"]]
        assert answers.record("ada", event(given) | {"body": body}).status == "counted"
    assert export(store, answers) == 7 and export(store, answers) == 0
    rows = PreferenceStore(store).pairs()
    ranked = [p for p in rows if p.choice == "ranking"]
    assert sum(p.weight for p in ranked) == pytest.approx(3) and {p.prob_first for p in ranked} <= {0.0, 1.0}
    folder = store.root / "meta/preferences"
    single = read_feedback(folder, "unpaired")
    assert sorted((r["label"], r["quality_label"]) for r in single) == [(False, "both_bad")] * 2 + [(False, "failure")] * 2 + [(True, "5/5")] * 2  # fmt: skip
    ranks = read_feedback(folder, "ranks")
    assert [r["preference_rank"] for r in ranks] == [0, 1, 2, 3]
    best = ranks[0]["episode_index"]
    assert all(
        (p.prob_first == 1) == (p.first.episode == best) for p in ranked if best in (p.first.episode, p.second.episode)
    )
    kinds = [(r["kind"], r["frame"]) for r in read_feedback(folder, "keypoints")]
    assert kinds == [("keypoint", 2), ("span_start", 1), ("span_end", 4)]


def test_the_labeler_answers_what_people_answered_and_nothing_else(store):
    export(store, answered(store))
    people = People(str(store.root))
    episodes = store.load(sim_state=True)
    first, second = (
        [episodes[BETTER], episodes[0], episodes[1], episodes[2]],
        [episodes[0], episodes[BETTER], episodes[2], episodes[2]],
    )
    np.testing.assert_array_equal(people.label(first, second), [1, 0, np.nan, 0.5])
    np.testing.assert_array_equal(people.weigh(first, second), [1, 1, 0, 1])
    with pytest.raises(InputError, match="dataset=DIR"):
        People().label(first, second)


BODIES = {
    "ranking": (
        {"choice": "ranked", "ranking": [[2], [0, 1], [3]]},
        {"choice": "ranked", "ranking": [[3], [2], [1], [0]]},
    ),
    "best_worst": ({"choice": "chosen", "best": 0, "worst": 2}, {"choice": "chosen", "best": 3, "worst": 0}),
    "rating": ({"choice": "rated", "rating": 2}, {"choice": "rated", "rating": 5}),
    "flag": ({"choice": "success"}, {"choice": "failure"}),
    "pairs": ({"choice": "both_bad"}, {"choice": "left"}),
}
SIZES = {"ranking": 4, "best_worst": 4, "rating": 1, "flag": 1, "pairs": 2}


def standing(store):
    """What the sidecar holds now, without names and times."""
    folder = store.root / "meta/preferences"
    rows = [
        (p.first.episode, p.second.episode, p.prob_first, round(p.weight, 6))
        for p in PreferenceStore(store).pairs()
        if p.answered
    ]
    ranks = [(r["episode_index"], r["preference_rank"]) for r in read_feedback(folder, "ranks")]
    single = [(r["episode_index"], r["label"], r["quality_label"]) for r in read_feedback(folder, "unpaired")]
    marks = [(r["episode_index"], r["frame"], r["kind"]) for r in read_feedback(folder, "keypoints")]
    return tuple(sorted(found, key=str) for found in (rows, ranks, single, marks))


@pytest.mark.parametrize("mode", BODIES)
def test_an_undo_takes_back_what_was_exported_in_every_mode(store, mode):
    first, second = (body | {"keypoints": [[0, 1]]} if n == 0 else body for n, body in enumerate(BODIES[mode]))
    answers = asking(store, [Comparison(tuple(whole(store, i) for i in range(SIZES[mode])), mode)])
    (given,) = answers.queue.next("ada", "t", 1)
    told = event(given) | {"body": first}
    answers.record("ada", told)
    export(store, answers)
    assert any(standing(store))
    back = answers.record("ada", undo(told["uid"])).assignment
    export(store, answers)
    assert not any(standing(store))
    answers.record("ada", event(back) | {"body": second})
    export(store, answers)
    ended = standing(store)
    assert any(ended) and export(store, answers) == 0 and standing(store) == ended
    for path in (store.root / "meta/preferences").glob("*.parquet"):
        path.unlink()
    (store.root / "meta/preferences/info.json").unlink(missing_ok=True)
    export(store, answers)  # at once, from the same log
    assert standing(store) == ended


@pytest.mark.parametrize("mode", BODIES)
def test_answers_of_every_mode_come_back_from_the_sidecar(store, mode):
    asked = [Comparison(tuple(whole(store, i) for i in range(SIZES[mode])), mode)]
    answers = asking(store, asked)
    (given,) = answers.queue.next("ada", "t", 1)
    answers.record("ada", event(given) | {"body": BODIES[mode][0]})
    export(store, answers)
    before = standing(store)
    answers.close()
    for path in (store.root / FILE).parent.glob("answers.sqlite*"):
        path.unlink()
    fresh = Answers(store.root)
    assert import_answers(store, fresh) == 1 and import_answers(store, fresh) == 0
    (one,) = fresh.current()
    assert (one["item"], one["annotator"], one["mode"]) == (asked[0].id, "ada", mode) and fresh.problems() == []
    assert export(store, fresh) == 0 and standing(store) == before
    fresh.queue.add(asked, lambda w: store.episode_hash(w.episode))
    assert fresh.queue.next("bob", "t", 1) == []  # it is answered
