"""`experiment=regret` and `experiment=cpl` from collection to a report, every arm of the preset at toy size."""

import json

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch.testing import assert_close

from robopref.arrays import Trajectory
from robopref.run import compose, main
from robopref.stages.label_models import segment_table
from robopref.types import Dims

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
    "cpl": {"cloned", "true_reward", "zero_reward", "cpl", "cpl_bc", "cpl_kl", "cpl_mlp", "cpl_diffusion"},
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


def windows(lengths):
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.uniform(-1, 1, shape).astype(np.float32)  # noqa: E731
    return [Trajectory(draw(n, 3), draw(n, 2), np.zeros(n, np.float32), np.zeros(n, bool)) for n in lengths]


def head(arm):
    torch.manual_seed(0)
    config = compose(["experiment=cpl"])
    return instantiate(config["arms"][arm].get("policy") or config["policy"], _partial_=True)(dims=Dims(3, 2))


@pytest.mark.parametrize("arm", ["cpl", "cpl_mlp", "cpl_diffusion"])
def test_the_chunks_of_a_window_hold_every_step_once(arm):
    lengths = [64, 13, 1]
    table = segment_table(windows(lengths), head(arm))
    steps = [table.chunks.mask[a:b, :, 0].sum() for a, b in zip(table.start[:-1], table.start[1:], strict=True)]
    assert [int(n) for n in steps] == lengths


def test_the_deterministic_head_of_cpl_scores_minus_the_squared_distance():
    """CPL's code: log pi(a | s) := -||a - mu(s)||^2; a density's constant would not cancel where the bias is below 1."""
    policy, cut = head("cpl_mlp"), windows([20])
    chunks = segment_table(cut, policy).chunks
    distance = policy.normalizer.action(chunks.action) - policy.mean(chunks.observation)
    generator = torch.Generator()
    assert_close(policy.score(chunks, policy.draw(chunks, generator)), -distance.square().sum(dim=(1, 2)))
    with pytest.raises(Exception, match="grow for ever"):
        instantiate(compose(["policy=gaussian"])["policy"], _partial_=True, constant=False)(dims=Dims(3, 2))
