"""`experiment=pearl` in Meta-World at toy size: its metrics, its stages one by one, no leak of the target's rewards, poor sources."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from robopref.arrays import InputError
from robopref.data.store import StoreWriter, TrajectoryStore
from robopref.run import main

TOY = [
    "experiment=pearl", "source=[drawer-open]", "target=window-open", "workers=1", "episodes=10", "env.horizon=40", "iql.steps=4",
    "iql.batch=16", "reward_protocol.steps=10", "transfer.pairs=20", "evaluation.episodes=2",
]  # fmt: skip
ARMS = {"transfer", "oracle", "true_reward", "zero_reward", "cloned"}


def run(out, *more):
    main("run", [*TOY, *more, f"out={out}"])
    return json.loads((out / "metrics.json").read_text()) if (out / "metrics.json").exists() else {}


def rewarded(root, change):
    """The same episodes in the same place with other rewards."""
    made = TrajectoryStore(root).load()
    shutil.rmtree(root)
    with StoreWriter(root) as writer:
        for one in made:
            writer.add(replace(one, reward=change(one.reward), success=~one.success))


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    out = tmp_path_factory.mktemp("pearl") / "run"
    run(out, "stages=[collect]")
    return out


@pytest.fixture
def copy(collected, tmp_path):
    return shutil.copytree(collected, tmp_path / "run")


def test_the_transfer_alone_and_then_the_rest_in_the_same_folder(copy, capsys):
    said = run(copy, "stages=[label]")
    transfer = said["transfer"]
    assert {
        "accuracy", "confident_half_accuracy", "coverage", "jitter_rule", "raw_observations", "chance", "cpu_seconds",
    } <= set(transfer)  # fmt: skip
    assert all(0 <= transfer[k] <= 1 for k in transfer if k not in ("cpu_seconds", "decided_pairs"))
    assert said["pairs"] == 20 and said["source_answers"] == 45 and said["labels_asked"] == 0
    assert said["task"] == "window-open" and "transfer: accuracy" in capsys.readouterr().out
    assert "data:image/png;base64" in (copy / "report.html").read_text()
    done = run(copy, "stages=[learn,evaluate,report]")
    assert done["transfer"] == transfer and set(done["policies"]) == ARMS
    assert {t["b"] for t in done["tests"]} == ARMS - {"transfer"} and {t["a"] for t in done["tests"]} == {"transfer"}
    assert set(done["rewards"]) == {"reward from transfer", "reward from oracle"}
    assert {"collect", "label", "reward", "learn", "evaluate"} == set(done["seconds"])
    assert (copy / "report.html").read_text().count("data:image/png;base64") >= 2  # coupling and calibration
    again = run(copy, "stages=[evaluate]")
    assert {k: v for k, v in again.items() if k not in ("seconds", "command")} == {
        k: v for k, v in done.items() if k not in ("seconds", "command")
    }
    assert run(copy)["policies"] == done["policies"]  # all stages: nothing is done twice


def test_nothing_that_is_carried_or_learned_from_it_depends_on_the_target_s_rewards(collected, tmp_path):
    made = []
    for name, change in (("as-it-is", lambda r: r), ("lying", lambda r: -3 * r[::-1].copy())):
        out = shutil.copytree(collected, tmp_path / name)
        rewarded(out / "episodes" / "window-open" / "store", change)
        run(out, "stages=[label,learn]")
        pieces = (
            "labels/pairs.json",
            "rewards/transfer/model/model.safetensors",
            "arms/transfer/policy/model.safetensors",
        )
        made.append([(out / piece).read_bytes() for piece in pieces])
        oracle = (out / "rewards/oracle/model/model.safetensors").read_bytes()
        made[-1].append(oracle)
    assert made[0][:3] == made[1][:3]
    assert made[0][3] != made[1][3], "and the true answers did change"


def test_a_source_of_ties_carries_nothing_and_says_so(copy):
    rewarded(copy / "episodes" / "drawer-open" / "store", np.zeros_like)
    said = run(copy, "stages=[label]")
    assert said["transfer"]["accuracy"] == 0.5 and said["transfer"]["coverage"] == 0 and said["pairs"] == 0
    with pytest.raises(InputError, match="no carried answer"):
        run(copy, "stages=[learn]")


def test_a_target_of_ties_is_transferred_to_and_cannot_be_judged(copy):
    rewarded(copy / "episodes" / "window-open" / "store", np.zeros_like)
    said = run(copy, "stages=[label]")
    assert said["transfer"]["accuracy"] is None and said["transfer"]["decided_pairs"] == 0 and said["pairs"] == 20
    assert "undecided" in (copy / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["target=drawer_open-v3"], "among its sources"),
        (["source=[drawer-open,drawer-open-v3]"], "every task once"),
        (["source=[]"], "no source"),
        (["source=[drawer-opn]"], "Did you mean drawer-open"),
        (["target=window-opn"], "Did you mean window-open"),
        (["stages=[colect]"], "wanted some of collect, label, learn"),
        (["transfer.pairs=0"], "transfer.pairs: got 0, wanted a whole number"),
        (["label_flips=many"], "label_flips: got 'many', wanted a number"),
        (["iql.steps=0"], "iql.steps"),
    ],
)
def test_impossible_requests_are_refused_before_anything_is_collected(tmp_path, words, said):
    with pytest.raises(InputError, match=said):
        run(tmp_path / "run", *words)
    assert not (tmp_path / "run" / "episodes").exists()


def test_one_source_may_come_without_brackets(copy):
    assert run(copy, "source=drawer-open", "stages=[label]")["pairs"] == 20
