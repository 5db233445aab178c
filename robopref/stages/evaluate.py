"""Evaluate: all policies of a run on the same held-out resets, opened once, after the last checkpoint is fixed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref import statistics
from robopref.arrays import Trajectory
from robopref.data.files import write_json
from robopref.stages.environments import roll
from robopref.stages.on_arm import is_on_arm, played
from robopref.stages.units import unit

Config = dict[str, Any]


def outcomes(trajectories: list[Trajectory]) -> dict[str, list[float]]:
    """Per episode: success at any step, return, and steps to the first success (or the episode's length)."""
    return {
        "success": [int(t.succeeded) for t in trajectories],
        "return": [round(float(t.reward.sum()), 4) for t in trajectories],
        "length": [int(np.argmax(t.success)) + 1 if t.succeeded else len(t) for t in trajectories],
    }


def evaluate(config: Config, policies: dict[str, str], folder: Path, workers: int) -> dict[str, Any]:
    """Run every policy on the evaluation resets and write `outcomes.json`; returns its content.

    On an arm each policy's episodes are kept in `played` beside the folder.
    """
    settings = config["evaluation"]
    begin = settings["first_reset"] + 1000 * config["seed"]
    seeds = list(range(begin, begin + settings["episodes"]))

    def make(partial: Path) -> dict[str, Any]:
        table: dict[str, Any] = {"seeds": seeds, "success": {}, "return": {}, "length": {}}
        for name, policy in policies.items():
            if is_on_arm(config):
                found = played(config, Path(policy), seeds, folder.parent / "played" / name)
            else:
                found = roll(Path(policy), config["env"], seeds, config["seed"], workers)
            for key, values in outcomes(found).items():
                table[key][name] = values
        write_json(partial / "outcomes.json", table)
        return table

    return unit(folder, make)


def summary(table: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`policies` and `tests` of metrics.json from the outcomes: rates with Wilson intervals, paired differences with p-values."""
    policies = {}
    for name, success in table["success"].items():
        low, high = statistics.wilson(sum(success), len(success))
        policies[name] = {
            "success_rate": sum(success) / len(success),
            "ci95": [low, high],
            "episodes": len(success),
            "return": float(np.mean(table["return"][name])),
            "length": float(np.mean(table["length"][name])),
        }
    names = list(policies)
    compared = [(a, "base") for a in names if a != "base" and "base" in names]
    compared += [("aligned", b) for b in names if b not in ("aligned", "base") and "aligned" in names]
    tests = []
    for a, b in compared:
        first, second = np.array(table["success"][a]), np.array(table["success"][b])
        difference, low, high = statistics.paired_bootstrap(first, second)
        tests.append(
            {
                "a": a,
                "b": b,
                "difference": difference,
                "ci95": [low, high],
                "p_value": statistics.paired_test(first, second),
            }
        )
    return policies, tests
