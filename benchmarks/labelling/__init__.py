"""The labelling tool, measured from key press to stored answer: speed, synchrony, durability, crowds, questions, raters, security.

Run: robopref bench labelling [quick=true] [out=DIR [resume=true]] [parts=[NAME,...]]. Needs the extra `label`, playwright and Debian's
chromium. The parts of `TIMED` are percentiles of real processes: whatever else the machine does shows in them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from robopref.arrays import InputError
from robopref.bench import in_parts

from . import active, attacks, clips, crowd, disk, durability, page, raters, screens, weight

Rows = dict[str, dict[str, Any]]
Part = Callable[[bool], Rows]


def _told(measure: Part, quick: bool) -> Rows:
    """The rows of a part; what it lacks here takes only its own rows away, and is told there."""
    try:
        return measure(quick)
    except (ImportError, OSError, RuntimeError) as error:
        raise InputError(f"could not run: {type(error).__name__}: {str(error)[:120]}") from error


TIMED: dict[str, Part] = {
    "clips": clips.run, "acknowledgement": durability.acknowledgement, "crowd50": crowd.fifty, "crowd100": crowd.hundred,
    "latency": page.latency, "scripted": page.scripted, "synchrony": page.synchrony, "loaded": page.loaded,
}  # fmt: skip
COUNTED: dict[str, Part] = {
    "weight": weight.run, "raters": raters.run, "attacks": attacks.run, "killed": durability.killed, "browser_killed": durability.browser_killed,
    "disk": disk.run, "screens": screens.run,
    **{f"active_{noise}": partial(active.noisy, noise) for noise in active.NOISES},
}  # fmt: skip
PARTS: dict[str, Part] = {name: partial(_told, measure) for name, measure in (TIMED | COUNTED).items()}
"""Name -> what measures its rows; `robopref bench` keeps each when it is done."""


def run(quick: bool = False) -> Rows:
    """Every row of the table; a part that cannot run here gives a row that says why and is not ok."""
    return in_parts(PARTS, quick)
