"""Cross-validation on human comparisons: no demonstration on both sides, every pair judged once, and the files it leaves."""

import json

import numpy as np
import pytest

from robopref.arrays import InputError
from robopref.data.comparisons import Comparisons
from robopref.run import main
from robopref.stages import human_labels
from robopref.stages.human_labels import baselines, partition, summary


def made(pairs=24, steps=10, linked=False, seed=0):
    """Segments of demonstrations whose first number grows with time; who is further along is preferred."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0, 3, (2, pairs))
    if linked:  # consecutive pairs share a demonstration: a single component
        at[0, 1:] = at[1, :-1]
    side = []
    for row in at:
        observation = np.zeros((pairs, steps, 4), np.float32)
        observation[..., 0] = row[:, None] + np.arange(steps) * 0.05
        observation[..., 1] = row[:, None] * 7.0  # names the demonstration
        side.append(observation)
    action = rng.normal(size=(2, pairs, steps, 2)).astype(np.float32)
    prob = (at[0] > at[1]).astype(float)
    prob[:3] = 0.5
    return Comparisons(side[0], action[0], side[1], action[1], prob)


@pytest.mark.parametrize("linked", [False, True])
def test_folds_share_no_demonstration_and_judge_every_pair_once(linked):
    given = made(linked=linked)
    parts = partition(given, 5, np.random.default_rng(0))
    assert sorted(np.concatenate([judged for _, judged in parts])) == list(range(24))
    demonstration = given.demonstrations()
    for train, judged in parts:
        assert not set(demonstration[:, train].ravel()) & set(demonstration[:, judged].ravel())
        assert len(train) > 0
    assert (len(np.unique(given.components())) == 1) == linked


def test_the_summary_counts_decided_pairs_and_widens_with_components():
    given = made()
    right = np.where(given.prob_first > 0.5, 0.9, 0.1)
    found = summary(given, np.stack([right, right]), 0)
    assert found["accuracy"] == 1.0 and found["decided"] == 21 and found["repetitions"] == [1.0, 1.0]
    half = summary(given, np.full((2, 24), 0.4), 0)
    assert half["ci95"][0] < half["accuracy"] < half["ci95"][1]
    assert 0.5 <= baselines(given)["commoner_side"] <= 1


def test_the_experiment_writes_its_table(tmp_path, monkeypatch, capsys):
    given = made()
    np.savez(
        tmp_path / "a.npz", obs_1=given.first_observation, obs_2=given.second_observation,
        action_1=given.first_action, action_2=given.second_action, label=1 - given.prob_first,
    )  # fmt: skip
    out = tmp_path / "run"
    words = [
        "experiment=human_labels", f"dataset={tmp_path / 'a.npz'}", f"out={out}", "workers=1", "human.folds=3",
        "human.repetitions=1", "~human.rewards.gaussian", "reward_protocol.steps=40",
    ]  # fmt: skip
    main("run", words)
    metrics = json.loads((out / "metrics.json").read_text())
    found = metrics["cross_validation"]
    assert set(found) == {"partial_return", "progress"}
    assert all(0 <= one["accuracy"] <= 1 and len(one["ci95"]) == 2 and one["ece"] >= 0 for one in found.values())
    assert (out / "figures" / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    page = (out / "report.html").read_text()
    assert "data:image/png;base64" in page and f"{found['progress']['accuracy']:.1%}" in page
    assert "partial_return" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds results"):
        main("run", words)


QUICK = [
    "experiment=human_labels", "workers=1", "human.repetitions=1", "~human.rewards.gaussian", "~human.rewards.progress",
    "reward_protocol.steps=10",
]  # fmt: skip


def written(path, given):
    np.savez(
        path, obs_1=given.first_observation, obs_2=given.second_observation, action_1=given.first_action,
        action_2=given.second_action, label=1 - given.prob_first,
    )  # fmt: skip
    return f"dataset={path}"


@pytest.mark.parametrize("case", ["all ties", "one direction", "one pair", "constant features", "one component"])
def test_poor_files_are_judged_or_say_that_they_cannot_be(tmp_path, case, capsys):
    given = made(pairs=1 if case == "one pair" else 24, linked=case == "one component")
    prob = {"all ties": 0.5, "one direction": 1.0, "one pair": 0.0}.get(case)
    if prob is not None:
        given.prob_first[:] = prob
    if case == "constant features":
        given.first_observation[:], given.second_observation[:] = 1, 1
    main("run", [*QUICK, "reward_protocol.steps=100", written(tmp_path / "a.npz", given), f"out={tmp_path / 'run'}"])
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    found, data = metrics["cross_validation"]["partial_return"], metrics["data"]
    said = capsys.readouterr().out
    assert metrics["task"] == "a" and metrics["labels_asked"] == len(given) and metrics["policies"] == {}
    if case == "all ties":
        assert found["accuracy"] is None and metrics["baselines"]["jitter_rule"] is None and "undecided" in said
    if case in ("one pair", "constant features"):  # every pair touches a demonstration that is left out
        assert data["least_training_pairs"] == 0 and found["accuracy"] == 0.5
    if case == "one component":
        assert data["components"] == 1 and data["least_training_pairs"] > 0 and found["accuracy"] > 0.6


def test_a_folder_that_another_file_has_begun_is_refused(tmp_path, monkeypatch):
    one, other = written(tmp_path / "a.npz", made()), written(tmp_path / "b.npz", made(seed=1))
    out, whole = f"out={tmp_path / 'run'}", human_labels.summary

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(human_labels, "summary", killed)
    with pytest.raises(KeyboardInterrupt):
        main("run", [*QUICK, one, out])
    monkeypatch.setattr(human_labels, "summary", whole)
    with pytest.raises(InputError, match="another run"):
        main("run", [*QUICK, other, out])
    main("run", [*QUICK, one, out])
    main("run", [*QUICK, one, f"out={tmp_path / 'fresh'}"])
    predicted = [(tmp_path / name / "predictions.json").read_text() for name in ("run", "fresh")]
    assert predicted[0] == predicted[1]


def test_a_second_file_is_judged_unless_a_pair_is_in_both(tmp_path):
    one, other, steps = made(), made(seed=1), "reward_protocol.steps=100"
    written(tmp_path / "b.npz", other)
    words = [
        *QUICK,
        steps,
        written(tmp_path / "a.npz", one),
        f"human.judged={tmp_path / 'b.npz'}",
        f"out={tmp_path / 'run'}",
    ]
    main("run", words)
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["judged"]["partial_return"]
    assert found["decided"] == 21 and found["accuracy"] > 0.7
    assert "Judged on b" in (tmp_path / "run" / "report.html").read_text()
    for part in ("first", "second"):  # one of our pairs, the other way round
        there = getattr(other, f"{'second' if part == 'first' else 'first'}_observation")
        there[5] = getattr(one, f"{part}_observation")[5]
        getattr(other, f"{'second' if part == 'first' else 'first'}_action")[5] = getattr(one, f"{part}_action")[5]
    written(tmp_path / "b.npz", other)
    with pytest.raises(InputError, match="1 of 24 evaluation pairs"):
        main("run", [*words[:-1], f"out={tmp_path / 'again'}"])
    assert not (tmp_path / "again").exists()


def test_a_missing_dataset_is_named():
    with pytest.raises(InputError, match=r"dataset=FILE\.npz"):
        main("run", ["experiment=human_labels"])
