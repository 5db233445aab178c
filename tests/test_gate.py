"""The gate on policies of known success: how often it errs, what it costs, and that it says why."""

from types import SimpleNamespace

import numpy as np
import pytest

from robopref.stages import gate

CONFIG = {
    "gate": {"first_reset": 3_000_000, "episodes": 50, "tolerance": 0.05, "error": 0.05}, "rounds": {"count": 3}, "env": {}, "seed": 0,
}  # fmt: skip


@pytest.fixture
def rates(monkeypatch):
    """Policies by name whose success rate is what the test says; the luck of a reset is half shared. Returns (rates, rolled seeds)."""
    known, rolled = {}, []

    def roll(policy, env, seeds, noise, workers, until_success):
        rolled.extend((policy.name, s) for s in seeds)
        made = []
        for seed in seeds:
            shared = np.random.default_rng([noise, seed])
            own = np.random.default_rng([noise, seed, len(policy.name)])
            luck = shared.random() if shared.random() < 0.5 else own.random()
            made.append(SimpleNamespace(succeeded=luck < known[policy.name]))
        return made

    monkeypatch.setattr(gate, "roll", roll)
    return known, rolled


def verdicts(tmp_path, rates, before, after, runs=60):
    rates[0].update(old=before, newer=after)
    return [
        gate.compare(CONFIG | {"seed": run}, (tmp_path / "old", tmp_path / f"{run}/a"), (tmp_path / "newer", tmp_path / f"{run}/b"))
        for run in range(runs)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "after", "least", "most"),
    [
        (0.45, 0.9, 1.0, 1.0),
        (0.45, 0.45, 0.65, 1.0),
        (0.95, 0.95, 0.75, 1.0),
        (0.45, 0.25, 0.0, 0.1),
        (0.9, 0.6, 0.0, 0.05),
    ],
)
def test_how_often_a_policy_passes(tmp_path, rates, monkeypatch, before, after, least, most):
    monkeypatch.setattr(gate, "unit", lambda folder, make: make(folder))  # no files: hundreds of syncs take a minute
    made = verdicts(tmp_path, rates, before, after)
    assert least <= np.mean([one["accepted"] for one in made]) <= most


def test_a_clear_case_costs_few_episodes_and_none_is_rolled_twice(tmp_path, rates):
    made = verdicts(tmp_path, rates, 0.5, 0.0, runs=1)[0]
    assert not made["accepted"] and made["episodes"] <= 20 and "to 1 that success fell" in made["reason"]
    assert gate.judged([tmp_path / "0/a", tmp_path / "0/b"]) == 2 * made["episodes"] == len(rates[1])
    again = verdicts(tmp_path, rates, 0.5, 0.0, runs=1)[0]
    assert again == made and len(rates[1]) == 2 * made["episodes"], (
        "a resumed gate sees the same and rolls nothing again"
    )


def test_the_reason_counts_what_was_lost(tmp_path, rates):
    made = verdicts(tmp_path, rates, 1.0, 1.0, runs=1)[0]
    assert made["accepted"] and made["reason"] == (
        "on 50 gate resets 0 were newly solved and 0 newly failed, too few to be sure: no more than 5 points lost"
    )
    assert made["ci95_after"][0] > 0.9


@pytest.mark.parametrize("count", range(1, 11))
def test_no_run_judges_more_than_its_budget(count):
    config = CONFIG | {"rounds": {"count": count}}
    assert 1 <= gate.resets(config) <= 50 and gate.resets(config) * (1 + count) <= gate.BUDGET
