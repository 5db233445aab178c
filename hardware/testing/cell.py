"""What happened in one cell of the fault matrix, and how that differs from what was written down for it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..reasons import State

EXPECTED = Path(__file__).with_name("faults.yaml")


@dataclass
class Cell:
    """One run of one fault."""

    during: str = ""
    """State of the guard while the fault lasted; a hold that was left again counts as a hold."""
    reasons: set[str] = field(default_factory=set)
    again: bool = False
    """Whether the arm ran by itself once the fault was mended."""
    stop: float = 0.0
    """Seconds from the last valid command to standstill, 0 if the arm never stopped."""
    overshoot: float = 0.0
    """Radians beyond the last target, the worst joint."""
    adopted_age: float = 0.0
    """Age of the oldest observation whose chunk was adopted, by the robot's clock."""
    action_age: float = 0.0
    """Age of the oldest observation behind a command."""
    violations: int = 0
    recorder: str = ""
    """What the recorder says of its disk."""


def expected() -> dict[str, Any]:
    """What was written down for every fault before its first run."""
    return copy.deepcopy(yaml.safe_load(EXPECTED.read_text(encoding="utf-8")))


def problems(fault: str, cell: Cell, wanted: dict[str, Any]) -> list[str]:
    """How a cell differs from what was written down; empty if it does not."""
    told, found = wanted["faults"][fault], []
    if cell.during not in told["end"]:
        found.append(f"{fault}: state {cell.during}, wanted {told['end']}")
    if cell.during == State.HOLD and told["why"] and not set(told["why"]) & cell.reasons:
        found.append(f"{fault}: reasons {sorted(cell.reasons)}, wanted one of {told['why']}")
    if cell.again != told["again"]:
        found.append(f"{fault}: running again {cell.again}, wanted {told['again']}")
    if cell.stop > wanted["stop"] or cell.overshoot > wanted["overshoot"] or cell.violations:
        found.append(
            f"{fault}: stop {cell.stop:.3f} s, overshoot {cell.overshoot:.4f} rad, {cell.violations} violations"
        )
    if cell.adopted_age > wanted["adopted_age"] or cell.action_age > wanted["action_age"]:
        found.append(f"{fault}: adopted at {cell.adopted_age:.3f} s, action of {cell.action_age:.3f} s")
    if bool(cell.recorder) != bool(told.get("recorder", False)):
        found.append(f"{fault}: the recorder says {cell.recorder!r}")
    return found
