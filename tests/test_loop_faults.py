"""The faults of `robopref bench faults` do what they say, and the benchmark tells caught from missed."""

import json

import numpy as np
import pytest
import torch
from episodes import episode
from robopref.benchmarks import _faults, faults, faults_table
from robopref.benchmarks.table import document

from robopref.data.files import write_json
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims

SMALL = [
    "base.demonstrations=8", "base.episodes=6", "base.rounds=1", "base.clone.steps=30", "rounds.resets=4", "rounds.replicas=3", "pairs=10",
    "align.steps=10", "guard.every=5", "gate.episodes=6", "reward_fit.steps=10", "choose.resets=4", "policy.width=16", "policy.depth=1",
    "policy.diffusion_steps=10", "policy.sample_steps=2",
]  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(faults, "SETTINGS", [*faults.SETTINGS, *SMALL])
    monkeypatch.setattr(faults, "RESETS", 10)


def test_a_cell_is_measured_once_and_a_fault_at_the_door_leaves_the_base(small, tmp_path):
    for name in ("noise_not_shared", "wrong_normaliser", "wrong_reference"):
        found = faults.cell(name, 0, tmp_path)
        assert found["caught_by"] == "door" and "align: got" in found["said"], name
        assert found["stays"] == found["base"] and len(found["base"]) == 10 and "candidate" not in found
    (tmp_path / "seed0/noise_not_shared/done.json").write_text(json.dumps({"kept": True}))
    assert faults.cell("noise_not_shared", 0, tmp_path) == {"kept": True}


def test_every_other_fault_runs_through_the_whole_round(small, tmp_path):
    for name in {*_faults.FAULTS} - {"noise_not_shared", "wrong_normaliser", "wrong_reference", "slow_actions"} | {
        "flipped_30"
    }:
        found = faults.cell(name, 0, tmp_path)
        assert found["caught_by"] in ("", "guard", "gate", "choice"), (name, found["said"])
        assert len(found["candidate"]) == len(found["stays"]) == 10
        assert (found["stays"] == found["base"]) or found["caught_by"] not in ("gate", "choice")


def test_nothing_stays_broken_after_a_fault(tmp_path):
    policy = Diffusion(Dims(3, 2), width=16, depth=1)
    kept = Diffusion.reference
    with _faults.FAULTS["reference_is_the_policy"].inject(tmp_path):
        assert policy.reference() is policy
    assert Diffusion.reference is kept and policy.reference() is not policy
    with _faults.FAULTS["wrong_normaliser"].inject(tmp_path):
        assert not torch.equal(policy.reference().normalizer.std, policy.normalizer.std)


def test_raters_turn_answers_round_or_put_them_elsewhere():
    class Rater:
        def label(self, first, second):
            return np.array([1.0, 0.0, 0.5, 1.0])

    assert _faults.Swapped(Rater()).label([], []).tolist() == [0.0, 1.0, 0.5, 0.0]
    assert _faults.Misfiled(Rater()).label([], []).tolist() == [1.0, 1.0, 0.0, 0.5]


def test_who_never_says_equal_takes_a_side_and_ties_can_be_blurred():
    class Rater:
        def label(self, first, second):
            return np.resize([1.0, 0.0, 0.5, 0.5], len(first))

    seen = [episode(seed) for seed in range(400)]
    found, others = Rater().label(seen, seen), seen[::-1]
    sided = _faults.NeverEqual(Rater()).label(seen, others)
    assert set(sided) == {0.0, 1.0} and (sided == found)[found != 0.5].all()
    assert 0.4 < sided[found == 0.5].mean() < 0.6
    blurred = _faults.Blurred(Rater()).label(seen, others)
    assert 0.24 < (blurred != found).mean() < 0.36 and (blurred[(blurred != found) & (found != 0.5)] == 0.5).all()
    again = _faults.Blurred(Rater()).label(seen[4:], others[4:])
    assert (again == blurred[4:]).all(), "an answer belongs to its pair"


def cells(stays, candidate, said=""):
    base = [1, 0] * 100
    return [
        {"caught_by": "gate" if said else "", "said": said, "base": base, "stays": stays, "candidate": candidate}
    ] * 2


def test_a_row_counts_as_caught_only_what_leaves_no_worse_policy_and_says_why():
    base, dead = [1, 0] * 100, [0] * 200
    refused, missed, silent = (
        faults._row(cells(*one)) for one in ((base, dead, "fell"), (dead, dead, "held"), (base, dead, ""))
    )
    assert (
        refused["ok"] and refused["measured"] == 1 and refused["candidate_worse"] == 2 and refused["stays_worse"] == 0
    )
    assert not missed["ok"] and missed["stays_worse"] == 2
    assert not silent["ok"] and silent["measured"] == 0, "a worse candidate needs a reason"


def test_a_stress_costs_the_points_that_its_policies_lost():
    row = faults._cost(cells([1, 0, 0, 0] * 50, []), cells([1, 0] * 100, []), 3.0)
    assert row["measured"] == pytest.approx(25) and not row["ok"] and row["ci95"][0] < 25 < row["ci95"][1]


def test_the_page_of_results_shows_faults_once_they_were_run(tmp_path):
    assert faults_table.section(tmp_path) == ""
    base, dead = [1, 0] * 100, [0] * 200
    rows = {
        "swapped_labels": faults._row(cells(base, dead, "fell")),
        "flipped_30": faults._cost(cells(base, []), cells(base, []), 3.0),
    }
    write_json(tmp_path / "bench/faults/bench.json", rows)
    text = document(tmp_path)
    assert "| every answer is turned round | 2 | 2 of 2 | 0 / 0 / 2 / 0 | 0 | 2 | 0 | 50% → 0%, 50% |" in text
    assert "| 2 | 50% | 50% | 0.0 [0.0, 0.0] | 3 | yes |" in text.replace("30% of the answers are turned round | ", "")
