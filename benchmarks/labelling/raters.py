"""Are careless raters found within 30 answers, and careful ones left alone? Simulated raters, 14 of 30 questions are checks."""

from __future__ import annotations

from typing import Any

import numpy as np

from robopref.labelling.quality import Said, flags

from .rows import at_least, at_most

CLIP = 2600.0
"""Milliseconds a clip lasts."""
CHECKS, GOLD = 14, 12
"""Checks among the 30, and how many of them are gold; the others are repeats."""


def answers(kind: str, rng: np.random.Generator, count: int = 30) -> list[Said]:
    """One rater: `careful` is right 95% of the time, `random` half, `left` always takes the left clip, `hasty` answers in half a second."""
    checks = rng.permutation(np.arange(1, count))[:CHECKS]
    gold = set(np.sort(checks)[:GOLD].tolist())
    repeats = set(checks.tolist()) - gold
    found: list[Said] = []
    truths: list[tuple[str, int]] = []
    for n in range(count):
        again = n in repeats and len(truths) > 2
        unit, truth = truths[int(rng.integers(len(truths) - 2))] if again else (f"u{n}", 2 * int(rng.integers(2)))
        first_left = bool(rng.integers(2))
        value = truth if rng.random() < (0.95 if kind in ("careful", "hasty") else 0.5) else 2 - truth
        if kind == "left":
            value = 2 if first_left else 0
        spent = 400 + 200 * rng.random() if kind == "hasty" else CLIP * rng.lognormal(0.4, 0.35)
        found.append(
            Said("x", unit, value, (value == 2) == first_left, spent, CLIP, again, truth if n in gold else None)
        )
        if n not in gold and not again:
            truths.append((unit, truth))
    return found


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `flag_power_*` and `false_alarms`."""
    count = 300 if quick else 2000
    rows = {}
    for kind in ("random", "left", "hasty"):
        rows[f"flag_power_{kind}"] = at_least(_flagged(kind, count, 1), 0.95, n=count)
    return rows | {"false_alarms": at_most(_flagged("careful", 2 * count, 2), 0.02, n=2 * count)}


def _flagged(kind: str, count: int, seed: int) -> float:
    """Share of simulated raters with any flag after 30 answers."""
    return sum(bool(flags(answers(kind, np.random.default_rng([seed, s])))) for s in range(count)) / count
