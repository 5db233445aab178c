"""`robopref reward`: episodes on one side only, flips in training labels only, clean held-out questions, and what it writes."""

import json

import numpy as np
import pytest
from episodes import episode

from robopref.arrays import InputError
from robopref.data.preferences import Pair, Window
from robopref.data.store import StoreWriter
from robopref.run import main
from robopref.stages.reward_quality import batch_of, flip_labels, more_questions, questions, split_pairs, thinning


def pairs(count=40, episodes=20, seed=0, **more):
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(episodes, 2, replace=False) for _ in range(count)]
    return [Pair(Window(int(a), 0, 12), Window(int(b), 0, 12), float(rng.integers(2)), **more) for a, b in drawn]


def test_no_episode_is_on_both_sides_and_unlabelled_ones_are_held_out_first():
    rows = pairs()
    split = split_pairs(rows, 30, 0.5, seed=1)  # ten episodes are in no pair
    train = {w.episode for p in split.train for w in (p.first, p.second)}
    held = {w.episode for p in split.held_out for w in (p.first, p.second)}
    assert not train & held and not train & set(split.episodes)
    assert set(range(20, 30)) <= set(split.episodes) and len(split.episodes) == 15
    assert split.train and len(split.train) + len(split.held_out) < len(rows)


def test_where_answers_are_scarce_episodes_of_few_answers_are_held_out():
    rows = pairs(count=60, episodes=40, criterion="return")
    usual, scarce = (split_pairs(rows, 40, 0.33, seed=1, scarce=s) for s in (False, True))
    assert len(scarce.episodes) == len(usual.episodes) == 13 and len(scarce.train) > len(usual.train)
    touched = {w.episode for p in scarce.train for w in (p.first, p.second)}
    assert not touched & set(scarce.episodes)
    settings = {"seed": 1, "held_out": {"episodes": 0.33, "pairs": 30}}
    trajectories = [episode(i) for i in range(40)]
    for most, wanted in ((None, scarce), (1000, scarce), (3, usual)):
        train, judged = questions(settings, trajectories, rows, most)
        assert len(train) == min(len(wanted.train), most or 1000)
        assert {w.episode for p in judged for w in (p.first, p.second)} <= set(wanted.episodes)
    people = pairs(count=60, episodes=40, source="human")
    assert questions(settings, trajectories, people, None)[0] == split_pairs(people, 40, 0.33, 1).train


def test_long_and_short_windows_are_thinned_alike():
    trajectories = [episode(i, steps=120) for i in range(3)]
    short, long = (Pair(Window(0, 0, n), Window(1, 0, n), 1.0) for n in (12, 120))
    assert (thinning([short]), thinning([short, long]), thinning([])) == (1, 4, 1)
    assert batch_of(trajectories, [short], stride=4).first.mask.shape[1] == 3
    assert batch_of(trajectories, [short]).first.mask.shape[1] == 12


def test_rows_that_carry_a_split_keep_it():
    rows = [*pairs(5, split="train"), *pairs(3, seed=1, split="test")]
    split = split_pairs(rows, 20, 0.5, seed=0)
    assert (len(split.train), len(split.held_out)) == (5, 3)


def test_flips_turn_the_wanted_share_round_and_ties_stay():
    labels = np.array([1.0] * 4000 + [0.5] * 10)
    turned = flip_labels(labels, 0.3, seed=0)
    assert (turned[:4000] == 0).mean() == pytest.approx(0.3, abs=0.03) and (turned[4000:] == 0.5).all()
    np.testing.assert_array_equal(flip_labels(labels, 0.0, 0), labels)
    with pytest.raises(InputError, match="label_flips"):
        flip_labels(labels, 0.5, 0)


def test_only_a_scripted_teacher_is_asked_more_and_only_about_held_out_episodes():
    trajectories = [episode(i) for i in range(20)]
    split = split_pairs(pairs(criterion="return"), 20, 0.5, seed=0)
    made = more_questions(trajectories, split, 30, seed=0)
    assert len(made) == 30
    for p in made:
        a, b = (trajectories[w.episode].window(w.start, w.end).reward.sum() for w in (p.first, p.second))
        assert {p.first.episode, p.second.episode} <= set(split.episodes)
        assert p.prob_first == 0.5 + 0.5 * np.sign(a - b)
    people = split_pairs(pairs(source="human", criterion="return"), 20, 0.5, seed=0)
    assert more_questions(trajectories, people, 30, seed=0) == []


def test_the_verb_writes_a_model_with_held_out_measures(tmp_path, capsys):
    with StoreWriter(tmp_path / "store") as writer:
        for i in range(24):
            writer.add(episode(i, chunk=False, task="made-up"))
    store = f"dataset={tmp_path / 'store'}"
    main("label", [store, "labeler=return", "pairs=120"])
    out = tmp_path / "reward"
    main("reward", [store, "reward=gaussian", "label_flips=0.2", "pairs=40", f"out={out}", "reward_protocol.steps=20"])
    held = json.loads((out / "metrics.json").read_text())["held_out"]
    assert {"accuracy", "ece", "brier"} <= set(held) and 0 <= held["ece"] <= 1 and held["pairs"] > 20
    assert json.loads((out / "metrics.json").read_text())["train"]["pairs"] <= 40
    assert (out / "calibration.png").exists() and (out / "model.safetensors").exists()
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64") == 1 and f"{held['ece']:.3f}" in page
    assert "held-out" in capsys.readouterr().out
