"""The gate: a new policy stays only if its success has not fallen, found out reset by reset on resets of its own.

Both policies run from the same resets; `statistics.sequential_fall` looks after each block and stops as soon as it may, so that a clear
case costs a dozen episodes. Judged episodes are kept, and counted in metrics.json: a policy is never judged twice from one reset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref.data.files import read_json
from robopref.stages.environments import roll
from robopref.stages.units import unit
from robopref.statistics import Sequential, sequential_fall, wilson

Config = dict[str, Any]

BUDGET = 200
"""Episodes that a whole run may judge by success."""
BLOCK = 10
"""Resets that are rolled out before the test is looked at again."""


def resets(config: Config) -> int:
    """On how many resets a policy is judged at most: `gate.episodes`, or less where many rounds share the budget."""
    return min(config["gate"]["episodes"], BUDGET // (1 + config["rounds"]["count"]))


def judge(config: Config, policy: Path, place: Path, count: int, workers: int = 0) -> list[int]:
    """Success (0 or 1) of a policy folder on the gate's first `count` resets, rolled out once, block by block, and kept in `place`."""
    outcomes: list[int] = []
    for begin in range(0, count, BLOCK):
        first = config["gate"]["first_reset"] + begin
        seeds = list(range(first, first + min(BLOCK, count - begin)))

        def make(_: Path, seeds: list[int] = seeds) -> dict[str, Any]:
            found = roll(policy, config["env"], seeds, config["seed"], workers, until_success=True)
            return {"success": [int(t.succeeded) for t in found], "judged": len(found)}

        outcomes += unit(place / f"resets-{begin:03d}", make)["success"]
    return outcomes


def judged(folders: list[Path]) -> int:
    """Episodes that were judged by success below the given folders."""
    return sum(read_json(path)["judged"] for folder in folders for path in folder.rglob("done.json"))


def compare(config: Config, old: tuple[Path, Path], new: tuple[Path, Path]) -> dict[str, Any]:
    """Whether the new policy is accepted, why, and what was seen. old, new: a policy folder and where its judged episodes are kept."""
    most, tolerance = resets(config), config["gate"]["tolerance"]
    seen, test = 0, None
    while test is None or (test.decision == "open" and seen < most):
        seen = min(seen + BLOCK, most)
        after, before = (np.array(judge(config, *one, seen)) for one in (new, old))
        test = sequential_fall(after - before, tolerance, config["gate"]["error"])
    difference = float((after - before).mean())
    accepted = test.decision == "held" or (test.decision == "open" and difference >= -tolerance - 1e-9)
    return {
        "accepted": accepted, "sure": test.decision == "held", "reason": _reason(test, seen, after - before, tolerance), "success_before": float(before.mean()),
        "success_after": float(after.mean()), "ci95_before": list(wilson(int(before.sum()), seen)),
        "ci95_after": list(wilson(int(after.sum()), seen)), "episodes": seen, "difference": difference,
        "evidence_fell": round(test.evidence_fell, 4), "evidence_held": round(test.evidence_held, 4),
    }  # fmt: skip


def _reason(test: Sequential, seen: int, difference: np.ndarray, tolerance: float) -> str:
    """What the gate saw, as a sentence."""
    better, worse = int((difference > 0).sum()), int((difference < 0).sum())
    saw = f"on {seen} gate resets {better} were newly solved and {worse} newly failed"
    if test.decision == "fell":
        return f"{saw}: {test.evidence_fell:.0f} to 1 that success fell"
    if test.decision == "held":
        return f"{saw}: {test.evidence_held:.0f} to 1 that success did not fall by {100 * tolerance:g} points"
    side = "no more" if difference.mean() >= -tolerance - 1e-9 else "more"
    return f"{saw}, too few to be sure: {side} than {100 * tolerance:g} points lost"
