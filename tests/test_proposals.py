"""Pairs that a recording proposes: asked first, a fifth at random among them, each with the probability of having been chosen."""

import json
from dataclasses import replace

import numpy as np
import pytest
from robopref.benchmarks.labelling.server import answer

from robopref.arrays import InputError, Trajectory
from robopref.data.preferences import PreferenceStore
from robopref.data.proposals import FILE, RANDOM_SHARE, mixed, proposed
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.labelling.options import parse
from robopref.labelling.pool import PROPOSED, questions
from robopref.labelling.project import Project
from robopref.labelling.scorer import rescored
from robopref.run import compose
from robopref.stages.label import ask

PAIRS = [(4, 9), (0, 7), (2, 3), (8, 11), (5, 6)]


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for seed in range(12):
            observation, action = (rng.normal(size=(12, k)).clip(-1, 1).astype(np.float32) for k in (3, 2))
            reward = rng.random(12).astype(np.float32)
            one = Trajectory(observation, action, reward, np.arange(12) > seed, "point-mass", seed)
            writer.add(replace(one, images={"side": np.full((12, 32, 32, 3), 20 * seed, np.uint8)}))
    propose(tmp_path / "store", [{"first": a, "second": b, "distance": 0.1} for a, b in PAIRS])
    return TrajectoryStore(tmp_path / "store")


def propose(folder, rows):
    (folder / FILE).parent.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"pairs": rows}))


def test_the_probability_of_a_choice_is_how_often_it_is_made():
    first, told, random = {}, {}, 0
    for seed in range(4000):
        a, b, strategy, chance = mixed(PAIRS, 12, 3, np.random.default_rng(seed))[0]
        first[a, b], told[a, b] = first.get((a, b), 0) + 1, chance
        random += strategy == "random"
    assert random / 4000 == pytest.approx(RANDOM_SHARE, abs=0.02)
    assert first[4, 9] / 4000 == pytest.approx(told[4, 9], abs=0.02)
    assert all(chance == pytest.approx(0.2 / 66) for pair, chance in told.items() if pair != (4, 9))


def test_all_are_used_once_in_their_order_and_then_it_ends():
    for seed in range(50):
        chosen = mixed(PAIRS, 12, 66, np.random.default_rng(seed))
        pairs = [(a, b) for a, b, *_ in chosen]
        assert len(set(pairs)) == len(pairs) and set(PAIRS) <= set(pairs) and pairs[-1] in PAIRS
        ours = [(a, b) for a, b, strategy, _ in chosen if strategy == "proposed"]
        assert ours == [pair for pair in PAIRS if pair in ours]
    assert len(mixed([(0, 1), (1, 0)], 2, 9, np.random.default_rng(0))) == 1, "there is one pair of two episodes"
    assert mixed([], 12, 9, np.random.default_rng(0)) == []


def test_label_asks_them_first_and_stores_how_they_were_chosen(store):
    config = compose(["labeler=return"])
    assert ask(store, store.load(), config["labeler"], 20, 0, "return") == 20
    rows = PreferenceStore(store).pairs()
    ours = {tuple(sorted((r.first.episode, r.second.episode))): r for r in rows if r.strategy == "proposed"}
    asked = {tuple(sorted((r.first.episode, r.second.episode))) for r in rows}
    assert set(PAIRS) <= asked and len(ours) >= 3
    assert all(row.propensity > 1 - RANDOM_SHARE for row in ours.values())
    assert any(row.strategy == "same_reset" or row.strategy == "random" for row in rows)


def test_without_proposals_label_asks_what_it_always_did(store):
    from robopref.stages.label import choose_pairs

    seeds = list(range(12))
    plain = choose_pairs(seeds, 8, np.random.default_rng(5))
    assert {strategy for *_, strategy, _ in plain} == {"random"} and {chance for *_, chance in plain} == {1.0}
    (store.root / FILE).unlink()
    assert proposed(store) == []


def test_the_labelling_page_asks_them_first_and_no_scoring_moves_them(store):
    pool = questions(store.episodes, "pairs", 40, 0, target=40, proposals=proposed(store))
    ahead = sorted((one for one in pool if one.priority > PROPOSED), key=lambda one: -one.priority)
    assert {frozenset(w.episode for w in one.windows) for one in ahead} >= {frozenset(pair) for pair in PAIRS}
    assert {one.strategy for one in ahead} <= {"proposed", "random"} and all(0 < one.propensity <= 1 for one in pool)
    assert len({frozenset(w.episode for w in one.windows) for one in pool}) == len(pool)
    plain = questions(store.episodes, "pairs", 40, 0, target=40)
    assert all(one.priority <= 1 for one in plain), "without proposals nothing comes first"

    project = Project(parse([str(store.root), "pairs=30"]))
    try:
        rows = project.answers.log.db.execute(
            "SELECT c.windows, s.strategy, s.propensity, s.item FROM slot s JOIN comparison c ON c.id = s.item ORDER BY s.prio DESC"
        ).fetchall()
        pairs = [tuple(sorted(w[0] for w in json.loads(row["windows"]))) for row in rows]
        count = max(pairs.index(pair) for pair in PAIRS) + 1
        assert count <= 2 * len(PAIRS), "before all other questions"
        assert {row["strategy"] for row in rows[:count]} <= {"proposed", "random"}
        told = [row["propensity"] for row in rows[:count] if row["strategy"] == "proposed"]
        assert min(told) > 1 - RANDOM_SHARE
        project.answers.queue.release_waiting([rows[0]["item"]])
        (given,) = project.answers.queue.next("ann", "tab", 1)
        assert given["item"] == rows[0]["item"]
        project.answers.record("ann", answer(given, "left", "the-first"))
        moved = {item for item, *_ in rescored(str(store.root), "infogain", 0)}
        assert moved and not moved & {row["item"] for row in rows[1:count]}
    finally:
        project.close()


@pytest.mark.parametrize(
    "rows", ["no list", [3], [{"first": 0}], [{"first": 0, "second": 0}], [{"first": 0, "second": 99}], [{"first": "a", "second": 1}]]
)  # fmt: skip
def test_a_broken_list_is_told_by_its_path(store, rows):
    propose(store.root, rows)
    with pytest.raises(InputError, match=r"candidates\.json"):
        proposed(store)
