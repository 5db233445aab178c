"""How often the sequential gate errs and what it costs, by simulation, beside the gate of a fixed number of resets.

Run: robopref bench gate
"""

from __future__ import annotations

from typing import Any

import numpy as np

from robopref.statistics import sequential_fall

RESETS, TOLERANCE, SHARED = 50, 0.05, 0.5
"""Resets of a policy at most, the fall that counts, and the share of resets that are as hard for one policy as for the other."""
CASES = {
    "rises_45_95": (0.45, 0.95, 0.95), "rises_45_70": (0.45, 0.70, 0.95), "equal_45": (0.45, 0.45, None), "equal_90": (0.90, 0.90, None),
    "falls_90_80": (0.90, 0.80, None), "falls_90_70": (0.90, 0.70, 0.05), "falls_45_25": (0.45, 0.25, 0.05), "falls_45_0": (0.45, 0.0, 0.05),
}  # fmt: skip
"""Row -> (success before, success after, how often such a policy may pass: at least if it rises, at most if it falls; None: only told)."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """A row per case: share of policies that pass (ours), of a gate that always takes all resets (peer), and resets taken on average."""
    runs = 500 if quick else 4000
    rows = {}
    for name, (before, after, target) in CASES.items():
        generator = np.random.default_rng(0)
        passed, fixed, seen = np.zeros(runs), np.zeros(runs), np.zeros(runs)
        for one in range(runs):
            luck = generator.random(RESETS)
            other = np.where(generator.random(RESETS) < SHARED, luck, generator.random(RESETS))
            difference = (other < after).astype(float) - (luck < before)
            test = sequential_fall(difference, TOLERANCE)
            fixed[one] = difference.mean() >= -TOLERANCE - 1e-9
            passed[one] = test.decision == "held" or (test.decision == "open" and fixed[one])
            seen[one] = test.seen
        rate = float(passed.mean())
        good = target is None or (rate >= target if after > before else rate <= target)
        rows[name] = {
            "measured": round(rate, 3), "target": target, "ok": good, "ours": round(rate, 3), "peer": round(float(fixed.mean()), 3),
            "resets": round(float(seen.mean()), 1),
        }  # fmt: skip
    return rows
