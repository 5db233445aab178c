"""`experiment=rapl` end to end at toy size: what it writes, that it goes on where it was, and that its reward ranks rollouts as a labeler."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from robopref.arrays import InputError
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.run import compose, main
from robopref.stages import label, rapl
from robopref.stages.rapl_metrics import rank_correlation

WORDS = [
    "experiment=rapl", "env=point_mass", "task=point-mass", "workers=1", "env.image_size=24", "env.horizon=12", "rapl.camera=top",
    "~rapl.other_env.arm", "rapl.films=14", "rapl.demonstrations=3", "rapl.held_out=5", "rapl.other=4", "pairs=6", "rapl.contrast.steps=10", "rapl.contrast.films=2",
    "rapl.contrast.moments=3", "rapl.aligned.width=8", "rapl.pictured.width=8", "rapl.teach.steps=10", "rapl.teach_pictured.steps=10",
]  # fmt: skip


def test_it_writes_its_numbers_resumes_and_its_reward_is_a_labeler(tmp_path):
    out = tmp_path / "run"
    main("run", [*WORDS, f"out={out}"])
    metrics = json.loads((out / "metrics.json").read_text())
    reward = metrics["reward"]
    assert {"spearman", "spearman_other_arm", "rlhf_spearman", "triplets"} <= reward.keys()
    assert reward["triplets"] == 6 and reward["held_out_films"] == 5 and reward["other_films"] == 4
    low, high = reward["spearman_ci95"]
    assert -1 <= low <= high <= 1
    assert metrics["diagonality"]["films"] == 5
    assert (out / "report.html").read_text().count("data:image/png;base64") == 2
    held = metrics["films"]["held_out"]
    assert reward["spearman"] == pytest.approx(spearmanr(held["aligned"], held["hidden"]).statistic, abs=1e-6)
    made = {p: p.stat().st_mtime_ns for p in (out / "rewards").rglob("*.safetensors")}
    (out / "metrics.json").unlink()
    main("run", [*WORDS, f"out={out}"])
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert made == {p: p.stat().st_mtime_ns for p in made}

    store = TrajectoryStore(out / "films" / "held_out" / "store")
    settings = compose(["labeler=model", f"labeler.model.folder={out}/rewards/aligned/model", "+labeler.stride=1"])[
        "labeler"
    ]
    label.ask(store, store.load(), settings, 4, 0, "model")
    answers = PreferenceStore(store).pairs()
    returns = held["aligned"]
    assert len(answers) == 4
    for one in answers:
        first, second = one.first.episode, one.second.episode
        assert (one.prob_first > 0.5) == (returns[first] > returns[second])


def test_questions_show_a_preferred_film_and_two_others_and_are_answered_by_the_hidden_score(tmp_path):
    config = compose([*WORDS, f"out={tmp_path}"])
    rapl.collect(config, tmp_path)
    found = rapl.sets(config, tmp_path)
    films = [*found["preferred"], *found["train"]]
    score = rapl.scores(films)
    rows = rapl.questions(films, 3, 12, 0)
    assert rows == rapl.questions(films, 3, 12, 0) != rapl.questions(films, 3, 12, 1)
    for row in rows:
        assert row["anchor"] < 3 <= min(row["first"], row["second"]) and films[row["anchor"]].policy == "careful"
        near, far = (abs(score[row[k]] - score[row["anchor"]]) for k in ("first", "second"))
        assert row["prob_first"] == (near < far)
    with pytest.raises(InputError, match=r"Raise rapl\.films"):
        rapl.questions(films, 3, 10_000, 0)


def test_a_rank_correlation_is_exact_and_its_interval_holds_it():
    values = np.random.default_rng(0).normal(size=30)
    assert rank_correlation(values, np.exp(values), 0) == pytest.approx((1.0, 1.0, 1.0))
    noisy = values + np.random.default_rng(1).normal(size=30)
    found, low, high = rank_correlation(noisy, values, 0)
    assert found == pytest.approx(spearmanr(noisy, values).statistic) and low < found < high
    assert rank_correlation(np.zeros(30), values, 0)[0] == 0


def test_a_request_that_cannot_be_met_is_refused(tmp_path):
    with pytest.raises(InputError, match="got 'nobody', wanted one of the behaviours: careful"):
        main("run", [*WORDS, "rapl.preferred=nobody", f"out={tmp_path}/a"])
    with pytest.raises(InputError, match="at least 14 films"):
        main("run", [*WORDS, "rapl.films=5", f"out={tmp_path}/b"])
