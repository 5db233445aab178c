"""Recorded episodes on their way back into learning: held spans count for nothing, and a dataset is the rollouts of its own policy only."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import save
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.data.windows import MASKED, chunk_rows, live_steps, segments
from robopref.policies.diffusion import Diffusion
from robopref.rewards.partial_return import PartialReturn
from robopref.run import main
from robopref.types import Dims, PolicySpec

SMALL = [
    "experiment=diffusion_dpo", "env=point_mass", "task=point-mass", "workers=1", "pairs=12", "base.demonstrations=8", "base.episodes=6",
    "rounds.count=1", "rounds.resets=4", "rounds.replicas=3", "align.steps=24", "guard.every=12", "gate.episodes=6", "choose.resets=0",
    "evaluation.episodes=6", "reward_fit.steps=20", "labeler=return", "baselines=[]", "policy.width=32", "policy.depth=1",
    "policy.diffusion_steps=16", "policy.sample_steps=4",
]  # fmt: skip


def episode(masked, steps=12):
    rng = np.random.default_rng(0)
    held = np.zeros((steps, 1), np.float32)
    held[masked] = 1
    return Trajectory(
        rng.normal(size=(steps, 3)).astype(np.float32), rng.normal(size=(steps, 2)).astype(np.float32),
        np.zeros(steps, np.float32), np.zeros(steps, bool), extra={MASKED: held},
    )  # fmt: skip


def test_a_held_span_has_no_reward_and_changes_none():
    one = episode(slice(4, 8))
    assert live_steps(one).tolist() == [True] * 4 + [False] * 4 + [True] * 4
    assert live_steps(replace(one, extra={})).all()
    torch.manual_seed(0)
    model = PartialReturn(Dims(3, 2), use_action=True)
    with_hold = model.returns(segments([one]))
    cut = [replace(one.window(a, b), extra={}) for a, b in ((0, 4), (8, 12))]
    without = Trajectory(
        *(np.concatenate([getattr(c, k) for c in cut]) for k in ("observation", "action", "reward", "success"))
    )
    assert_close(with_hold, model.returns(segments([without])))


def test_windows_of_actions_neither_begin_in_a_hold_nor_reach_across_it():
    one, spec = episode(slice(4, 8)), PolicySpec(Dims(3, 2), horizon=4, execute=4, history=1)
    seen, _, mask, steps = chunk_rows(one, spec, 1)
    assert steps[:, 0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11] and len(seen) == 8
    assert mask[3].tolist() == [True, False, False, False], "what runs after the hold was not meant before it"
    assert mask[4].all() and mask[7].tolist() == [True, False, False, False]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """A policy folder and a dataset of its episodes."""
    root = tmp_path_factory.mktemp("deployed")
    torch.manual_seed(0)
    dims = {"env": "point_mass", "task": "point-mass"}
    main(
        "collect", [*(f"{k}={v}" for k, v in dims.items()), "episodes=8", "workers=1", f"out={root / 'demonstrations'}"]
    )
    thin = ["policy.width=32", "policy.depth=1", "policy.diffusion_steps=16", "policy.sample_steps=4"]
    words = [*(f"{k}={v}" for k, v in dims.items()), *thin, "base.clone.steps=60", "workers=1"]
    main("pretrain", [*words, f"dataset={root / 'demonstrations'}", f"out={root / 'base'}"])
    policy = root / "base" / "policy"
    more = [f"checkpoint={policy}", "episodes=12", "rounds.replicas=3", "workers=1", f"out={root / 'dataset'}"]
    main("collect", [*(f"{k}={v}" for k, v in dims.items()), *more])
    return policy, root / "dataset"


def test_a_recorded_dataset_is_labelled_and_aligned_on(deployed, tmp_path):
    policy, dataset = deployed
    main(
        "run",
        [
            *SMALL,
            f"checkpoint={policy}",
            f"dataset={dataset}",
            f"out={tmp_path / 'run'}",
            "stages=[collect,pretrain,align,evaluate]",
        ],
    )
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    taken = TrajectoryStore(tmp_path / "run/rounds/rollouts/store")
    assert len(taken) == 12 and len(PreferenceStore(taken).pairs()) == 12 == metrics["labels_asked"]
    assert np.array_equal(taken[0].action, TrajectoryStore(dataset)[0].action)
    assert not PreferenceStore(TrajectoryStore(dataset)).pairs(), "what was recorded stays as it is"
    assert set(metrics["policies"]) == {"base", "aligned"} and metrics["arm"] == {}


def test_a_dataset_of_another_policy_is_refused(deployed, tmp_path):
    _, dataset = deployed
    torch.manual_seed(1)
    other = Diffusion(Dims(*widths(dataset)), horizon=16, execute=8, width=16, depth=1)
    other.normalizer.fit(torch.randn(9, widths(dataset)[0]), torch.rand(9, widths(dataset)[1]) * 2 - 1)
    save(other, tmp_path / "other", {})
    with pytest.raises(InputError, match=r"dataset: got .* with episodes of policy"):
        main("run", [*SMALL, f"checkpoint={tmp_path / 'other'}", f"dataset={dataset}", f"out={tmp_path / 'run'}"])


def widths(dataset: Path):
    one = TrajectoryStore(dataset)[0]
    return one.observation.shape[1], one.action.shape[1]
