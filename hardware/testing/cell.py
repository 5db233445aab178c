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
    """One run of one fault. Times and ages are those of the world's clock, not of anything that is judged."""

    during: str = ""
    """State of the guard while the fault lasted; a hold that was left again counts as a hold."""
    reasons: set[str] = field(default_factory=set)
    refusals: dict[str, int] = field(default_factory=dict)
    """Reason -> commands that were refused for it while the fault lasted."""
    again: bool = False
    """Whether the arm ran by itself once the fault was mended."""
    stop: float = 0.0
    """Seconds from the last valid command to standstill, 0 if the arm never stopped."""
    overshoot: float = 0.0
    """Radians beyond the last target, the worst joint."""
    adopted_age: float = 0.0
    """Age of the oldest observation whose chunk was adopted, at that moment."""
    action_age: float = 0.0
    """Age of the oldest observation behind a command that the guard took, when it took it."""
    violations: int = 0
    repeated: int = 0
    """Commands that were taken although they, or later ones of their epoch, had been taken before."""
    unseen: int = 0
    """Commands taken that name an observation which the policy was never shown."""
    commands: int = 0
    idle: int = 0
    """Periods of the agent without a command, after its first."""
    adopted: int = 0
    recorder: str = ""
    """What the recorder says of its disk."""
    whole: int = 0
    """Finished episodes that can be read from begin to end."""


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
    missing = [name for name in told.get("refused", []) if not cell.refusals.get(name)]
    missing += [name for name in told.get("seen", []) if name not in cell.reasons]
    if missing:
        found.append(
            f"{fault}: reasons {sorted(cell.reasons)}, refusals {cell.refusals}, wanted {missing} in any state"
        )
    if cell.again != told["again"]:
        found.append(f"{fault}: running again {cell.again}, wanted {told['again']}")
    if cell.stop > wanted["stop"] or cell.overshoot > wanted["overshoot"] or cell.violations:
        found.append(
            f"{fault}: stop {cell.stop:.3f} s, overshoot {cell.overshoot:.4f} rad, {cell.violations} violations"
        )
    if cell.repeated or cell.unseen:
        found.append(f"{fault}: {cell.repeated} commands taken again, {cell.unseen} from observations never shown")
    adopted, action = outside_delay(fault, cell, wanted)
    if adopted > wanted["adopted_age"] or action > wanted["action_age"]:
        found.append(f"{fault}: adopted at {adopted:.3f} s, action of {action:.3f} s")
    if bool(cell.recorder) != bool(told.get("recorder", False)) or cell.whole != told.get("whole", 0):
        found.append(f"{fault}: {cell.whole} whole episodes, the recorder says {cell.recorder!r}")
    return found


def outside_delay(fault: str, cell: Cell, wanted: dict[str, Any]) -> tuple[float, float]:
    """Ages of adopted observations and of those behind commands, less what the fault itself delays (one way, and both)."""
    injected = wanted["faults"][fault].get("delays", 0.0)
    return cell.adopted_age - injected, cell.action_age - 2 * injected
