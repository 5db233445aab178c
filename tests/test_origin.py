"""Every model folder says where it comes from."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import robopref
from robopref.arrays import Trajectory
from robopref.checkpoint import fingerprint
from robopref.data.store import StoreWriter
from robopref.run import compose
from robopref.stages import baselines, single
from robopref.stages.origin import data_fingerprint, git_hash

TINY = [
    "policy.width=16",
    "policy.depth=1",
    "policy.diffusion_steps=5",
    "policy.sample_steps=2",
    "base.clone.steps=3",
    "align.steps=3",
    "pairs=10",
    "seed=4",
]


@pytest.fixture
def trajectories():
    rng = np.random.default_rng(0)
    rows = [[rng.normal(size=(12, k)).clip(-1, 1).astype(np.float32) for k in (3, 2)] for _ in range(8)]
    return [
        Trajectory(seen, done, np.full(12, i, np.float32), np.full(12, i > 3), "point-mass", i // 2)
        for i, (seen, done) in enumerate(rows)
    ]


def test_the_models_of_every_maker_carry_version_seed_data_command_and_reference(trajectories, tmp_path):
    with StoreWriter(tmp_path / "store") as writer:
        for one in trajectories:
            writer.add(one)
    config = compose([*TINY, f"dataset={tmp_path / 'store'}"]) | {"command": "robopref align seed=4", "given": []}
    single.label(config, tmp_path)
    single.pretrain(config, tmp_path / "bc")
    base = tmp_path / "bc" / "policy"
    config["checkpoint"] = str(base)
    single.align(config, tmp_path / "dpo")
    baselines.filtered(config, tmp_path, base, [str(tmp_path / "store")])
    baselines.on_answers(config, tmp_path, base, [str(tmp_path / "store")], "plain_dpo")
    made = {"base": base, "aligned": tmp_path / "dpo/policy"}
    made |= {name: tmp_path / "arms" / name / "policy" for name in ("filtered", "plain_dpo")}
    for name, folder in made.items():
        said = json.loads((folder / "provenance.json").read_text())
        assert (said["version"], said["git"], said["seed"]) == (robopref.__version__, git_hash(), 4), name
        assert said["command"] == "robopref align seed=4"
        assert said["reference"] == (None if name == "base" else fingerprint(base))
    used = json.loads((made["aligned"] / "provenance.json").read_text())["data"]
    assert used == json.loads((base / "provenance.json").read_text())["data"] == data_fingerprint(trajectories)


def test_the_data_s_fingerprint_changes_with_any_content_and_with_the_order(trajectories):
    whole = data_fingerprint(trajectories)
    assert whole == data_fingerprint(list(trajectories))
    assert len({whole, data_fingerprint(trajectories[1:]), data_fingerprint(trajectories[::-1])}) == 3


def test_the_git_hash_is_that_of_the_source_tree():
    top = Path(robopref.__file__).parents[1]
    found = subprocess.run(["git", "-C", str(top), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    assert git_hash() == (found.stdout.strip() or None)
