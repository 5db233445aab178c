"""`experiment=regret` and `experiment=cpl` from collection to a report, every arm of the preset at toy size."""

import json

import numpy as np
import pytest

from robopref.run import main

TOY = [
    "env=point_mass", "task=point-mass", "workers=1", "episodes=10", "pairs=20", "segment=10", "iql.steps=4", "iql.batch=16",
    "contrast.clone_steps=4", "contrast.steps=4", "contrast.pairs=4", "contrast.chunks=2", "reward_protocol.steps=4",
    "evaluation.episodes=2",
]  # fmt: skip
ARMS = {
    "regret": {
        "cloned", "true_reward", "zero_reward", "cpl_return", "cpl_regret", "partial_return_return", "partial_return_regret",
        "regret_return", "regret_regret",
    },
    "cpl": {"cloned", "cpl", "cpl_bc", "cpl_kl", "cpl_mlp", "cpl_diffusion"},
}  # fmt: skip


@pytest.mark.parametrize("experiment", ARMS)
def test_every_arm_is_trained_evaluated_and_compared_with_cloning(tmp_path, experiment):
    out = tmp_path / "run"
    words = [f"experiment={experiment}", *TOY, f"out={out}"]
    main("run", words)
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics["policies"]) == ARMS[experiment] and metrics["labels_asked"] == 20
    assert {t["b"] for t in metrics["tests"]} == ARMS[experiment] - {"cloned"}
    labels = json.loads((out / "labels" / "labels.json").read_text())
    assert len(labels["windows"]) == 40 and all(b - a == 10 for _, a, b in labels["windows"])
    agreement = np.mean(np.array(labels["prob_first"]["return"]) == np.array(labels["prob_first"]["regret"]))
    assert metrics["labels"]["agreement_of_return_and_regret"] == pytest.approx(agreement)
    assert (out / "report.html").exists()
