"""`experiment=noise`: flips touch training labels only, every fit is judged on the same clean pairs, and a second call repeats nothing."""

import json

import numpy as np
import pytest

from robopref.data.preferences import Pair, Window
from robopref.run import main
from robopref.stages.label_noise import difference

WORDS = [
    "experiment=noise", "env=point_mass", "task=point-mass", "workers=1", "episodes=24", "noise.asked=120", "pairs=20",
    "reward_protocol.steps=20", "held_out.pairs=20",
]  # fmt: skip


def test_cells_differ_in_training_labels_and_share_what_they_are_judged_on(tmp_path):
    out = tmp_path / "run"
    main("run", [*WORDS, f"out={out}"])
    metrics = json.loads((out / "metrics.json").read_text())
    cells = metrics["cells"]
    assert set(cells) == {"gaussian_flipped", "partial_return_flipped", "gaussian_clean"}
    assert {one["train"]["pairs"] for one in cells.values()} == {20} and {
        one["held_out"]["pairs"] for one in cells.values()
    } == {20}
    assert metrics["labels_asked"] == 120
    assert "data:image/png;base64" in (out / "report.html").read_text()
    again = [p.stat().st_mtime_ns for p in sorted((out / "rewards").rglob("*.safetensors"))]
    (out / "metrics.json").unlink()
    main("run", [*WORDS, f"out={out}"])
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert [p.stat().st_mtime_ns for p in sorted((out / "rewards").rglob("*.safetensors"))] == again


def test_a_difference_is_zero_for_equals_and_sees_a_better_model():
    rng = np.random.default_rng(0)
    pairs = [
        Pair(Window(int(a), 0, 5), Window(int(b), 0, 5), 1.0)
        for a, b in (rng.choice(30, 2, replace=False) for _ in range(200))
    ]
    good, bad = np.full(200, 0.9), np.where(rng.random(200) < 0.5, 0.1, 0.9)
    assert difference(good, good, pairs)["accuracy"] == {"difference": 0.0, "ci95": [0.0, 0.0]}
    found = difference(good, bad, pairs)
    assert (
        found["accuracy"]["difference"] == pytest.approx(float((bad < 0.5).mean())) and found["accuracy"]["ci95"][0] > 0
    )
    assert found["brier"]["ci95"][1] < 0
