"""Asking a labeler: what is stored, under which name, and what counts as the same answer."""

import numpy as np
import pytest
from hydra.utils import instantiate

from robopref.arrays import InputError, Trajectory
from robopref.data.feedback import read_feedback
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.run import compose
from robopref.stages import single
from robopref.stages.evidence import labelled_pairs, read_rounds
from robopref.stages.label import ask, ask_lists, name_of
from robopref.stages.reward import fit_reward, predicted_returns


@pytest.fixture
def store(tmp_path):
    rng = np.random.default_rng(0)
    with StoreWriter(tmp_path / "store") as writer:
        for seed in range(8):
            reward = rng.random(12).astype(np.float32)
            observation, action = (rng.normal(size=(12, k)).clip(-1, 1).astype(np.float32) for k in (3, 2))
            writer.add(Trajectory(observation, action, reward, np.arange(12) > seed, "point-mass", seed // 2))
    return TrajectoryStore(tmp_path / "store")


def answers(store, *overrides):
    """How many were new, after asking ten questions."""
    config = compose([*overrides])
    return ask(store, store.load(), config["labeler"], 10, 0, config["labeler_name"])


def test_the_same_questions_are_stored_once_and_another_noise_is_another_answer(store):
    assert [answers(store, "labeler=mistake") for _ in range(2)] == [10, 0]
    assert answers(store, "labeler=mistake", "labeler.noise.mistake=0.5") == 10
    assert answers(store, "labeler=mistake", "+labeler.seed=1") == 10, "its draws differ, though its name does not"
    assert len(PreferenceStore(store).pairs()) == 30


def test_the_message_says_what_was_stored_already(store):
    config = compose([f"dataset={store.root}", "pairs=10"]) | {"given": []}
    first, second = (single.label(config, store.root) for _ in range(2))
    assert first.startswith("10 answers stored") and "already" not in first
    assert second.startswith("0 answers stored") and "10 were stored already" in second


def test_lists_turn_few_questions_into_many_answers(store):
    config = compose([f"dataset={store.root}", "labeler=return", "pairs=12", "list_budget=12"]) | {"given": []}
    message = single.label(config, store.root)
    rows = PreferenceStore(store).pairs()
    assert f"{len(rows)} answers, implied by lists from 12 questions" in message
    returns = [float(t.reward.sum()) for t in store.load()]
    first = [p for p in rows if p.question_id.endswith("-0")]
    assert len(first) > 12 and {p.strategy for p in rows} == {"list"} and {p.criterion for p in rows} == {"return"}
    assert all(p.prob_first == (returns[p.first.episode] > returns[p.second.episode]) for p in rows)
    ranks = read_feedback(PreferenceStore(store).folder, "ranks")
    (best,) = [r["episode_index"] for r in ranks if r["preference_rank"] == 0 and r["question_id"].endswith("-0")]
    assert best == max((r["episode_index"] for r in ranks if r["question_id"].endswith("-0")), key=returns.__getitem__)
    assert "0 answers" in single.label(config, store.root), "the same lists again are the same answers"


def test_a_list_of_one_question_is_a_pair(store):
    asked, new = ask_lists(store, store.load(), compose(["labeler=return"])["labeler"], 4, 1, 0, "return")
    assert (asked, new) == (4, 4)
    with pytest.raises(InputError, match="at least 2"):
        ask_lists(store, store.load()[:1], compose(["labeler=return"])["labeler"], 4, 1, 0, "return")


@pytest.mark.parametrize(
    ("overrides", "name", "noise", "criterion"),
    [
        ([], "success", "oracle", "success"),
        (["labeler.criterion=return"], "return", "oracle", "return"),
        (["labeler=mistake", "labeler.noise.mistake=0.2"], "return+mistake=0.2", "mistake=0.2", "return"),
    ],
)
def test_an_answer_carries_the_name_of_the_labeler_that_gave_it(store, overrides, name, noise, criterion):
    answers(store, *overrides)
    for pair in PreferenceStore(store).pairs():
        assert (pair.teacher, pair.annotator, pair.label_model) == (name,) * 3
        assert (pair.noise_model, pair.criterion) == (noise, criterion)


def test_a_labeler_without_a_name_is_called_as_its_preset():
    config = compose(["labeler=stages_safety"])
    assert name_of(instantiate(config["labeler"]), config["labeler_name"]) == "stages_safety"
    assert name_of(object(), "transfer") == "transfer"


def said(store, *answers):
    """People's answers about the first two episodes: (prob_first, weight of the rater)."""
    rows = [
        Pair(Window(0, 0, 12), Window(1, 0, 12), prob, weight, f"rater-{n}", "human", uid=f"said-{n}")
        for n, (prob, weight) in enumerate(answers)
    ]
    PreferenceStore(store).append(rows)
    return store


def test_people_count_as_much_as_they_are_reliable_in_every_question_that_looks_them_up(store):
    said(store, (1.0, 0.9), (0.0, 0.3), (0.5, 0.0))
    people = instantiate(compose(["labeler=people", f"dataset={store.root}"])["labeler"])
    two = store.load()[:2]
    np.testing.assert_allclose(people.label(two, two[::-1]), [0.75, 0.25])
    np.testing.assert_allclose(people.weigh(two, two[::-1]), [1.2, 1.2])
    ask(store, store.load(), compose(["labeler=people", f"dataset={store.root}"])["labeler"], 28, 0, "people")
    (looked_up,) = [p for p in PreferenceStore(store).pairs() if p.teacher == "people" and p.answered]
    assert looked_up.weight == pytest.approx(1.2)


@pytest.mark.parametrize("trusted", [0, 1])
def test_the_reward_follows_the_rater_who_can_be_relied_on(store, trusted):
    said(store, (1.0, 1.0 if trusted == 0 else 0.05), (0.0, 0.05 if trusted == 0 else 1.0), (0.0, 0.0))
    trajectories, found, _ = read_rounds([store.root])
    assert sorted(a.weight for a in found) == [0.05, 1.0], "who counts nothing is left out"
    assert sorted(labelled_pairs(found, ties=True).weight.tolist()) == pytest.approx([0.05, 1.0])
    model, _ = fit_reward(compose([])["reward"], trajectories, found, steps=80, lr=1e-2, seed=0)
    first, second = predicted_returns(model, trajectories)[:2]
    assert (first > second) == (trusted == 0)
