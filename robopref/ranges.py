"""What numbers a configuration may hold, and that its sets of resets never meet: told before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from robopref.arrays import InputError

SEEDS = 100
"""Seeds of runs: 0 to 99. Resets of a run are numbered from its seed, so more would run into the next set."""
PER_SEED = 10_000
"""Resets of one seed's demonstrations and rounds."""
_SMALL = 1e-12
NUMBERS: dict[str, tuple[type, float, float]] = {
    "seed": (int, 0, SEEDS - 1), "pairs": (int, 1, math.inf), "workers": (int, 1, math.inf), "episodes": (int, 1, math.inf),
    "base.demonstrations": (int, 1, PER_SEED // 2), "base.first_reset": (int, 0, math.inf), "base.episodes": (int, 1, math.inf),
    "base.rounds": (int, 1, math.inf), "base.clone.steps": (int, 1, math.inf), "base.clone.lr": (float, _SMALL, math.inf),
    "base.clone.batch": (int, 1, math.inf), "base.clone.ema": (float, 0, 1),
    "rounds.count": (int, 1, 9), "rounds.resets": (int, 2, 1000), "rounds.replicas": (int, 2, math.inf),
    "rounds.first_reset": (int, 0, math.inf), "rounds.top": (float, _SMALL, 1), "rounds.held_out": (float, 0, 0.9),
    "reward_fit.steps": (int, 1, math.inf), "reward_fit.lr": (float, _SMALL, math.inf),
    "align.steps": (int, 1, math.inf), "align.lr": (float, _SMALL, math.inf), "align.pairs_per_step": (int, 1, math.inf),
    "align.chunks_per_trajectory": (int, 1, math.inf), "align.preference": (float, 0, math.inf),
    "align.kappa": (float, _SMALL, math.inf), "align.length_norm": (float, 0, math.inf), "align.anchor": (float, 0, math.inf),
    "align.anchor_chunks": (int, 1, math.inf), "align.proximal": (float, 0, math.inf), "align.trust": (float, 0, math.inf),
    "choose.resets": (int, 0, 1000), "align.early": (float, 0, 100), "rounds.guidance": (float, 0, 10),
    "guard.every": (int, 1, math.inf), "gate.first_reset": (int, 0, math.inf), "gate.episodes": (int, 1, math.inf),
    "gate.tolerance": (float, 0, 1), "evaluation.first_reset": (int, 0, math.inf), "evaluation.episodes": (int, 1, math.inf),
    "evaluation.videos": (int, 0, math.inf),
}  # fmt: skip
"""Key -> (type, least, most)."""
OPTIONAL = ("episodes",)
"""Keys that may be null."""


def check(config: Mapping[str, Any]) -> None:
    """Raise `InputError` for a number of another type or out of its range, and for sets of resets that meet."""
    for key, (kind, low, high) in NUMBERS.items():
        value = _at(config, key)
        if not (value is None and key in OPTIONAL) and not _fits(value, kind, low, high):
            wanted = "a whole number" if kind is int else "a number"
            most = f" to {high:g}" if math.isfinite(high) else " or more"
            why = " (resets of seeds must not meet)" if key == "seed" else ""
            least = "above 0" if low == _SMALL else f"from {low:g}"
            raise InputError(f"{key}: got {value!r}, wanted {wanted} {least}{most}{why}.")
    for (name, one), (other, two) in combinations(_resets(config), 2):
        if one.start < two.stop and two.start < one.stop:
            raise InputError(
                f"resets: got {name} {one.start} to {one.stop - 1} and {other} {two.start} to {two.stop - 1}, wanted sets that "
                f"do not meet at any seed.\nChange their first_reset, or ask for fewer."
            )


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _fits(value: Any, kind: type, low: float, high: float) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (whole or (kind is float and isinstance(value, float))) and low <= value <= high and math.isfinite(value)


def _resets(config: Mapping[str, Any]) -> Iterator[tuple[str, range]]:
    """What every set of resets may come to hold over all allowed seeds."""
    base, gate, evaluation = config["base"], config["gate"], config["evaluation"]
    last = SEEDS - 1
    yield "demonstrations", range(PER_SEED * last + 2 * base["demonstrations"])
    first = config["rounds"]["first_reset"]
    yield "rounds", range(first, first + PER_SEED * SEEDS)
    yield "base", range(base["first_reset"], base["first_reset"] + base["episodes"])
    yield "gate", range(gate["first_reset"], gate["first_reset"] + gate["episodes"])
    first = evaluation["first_reset"]
    yield "evaluation", range(first, first + 1000 * last + evaluation["episodes"])
