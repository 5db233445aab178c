"""The labelling tool, measured from key press to stored answer: speed, synchrony, durability, crowds, questions, raters, security.

Run: robopref bench labelling [quick=true] [out=DIR]. Needs the extra `label`, playwright and Debian's chromium.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

Rows = dict[str, dict[str, Any]]


def run(quick: bool = False) -> Rows:
    """Every row of the table; a part that cannot run here gives a row that says why and is not ok."""
    from . import active, attacks, clips, crowd, durability, page, raters, weight

    parts: dict[str, Callable[[bool], Rows]] = {
        "weight": weight.run, "raters": raters.run, "active": active.run, "clips": clips.run, "attacks": attacks.run,
        "durability": durability.run, "crowd": crowd.run, "latency": page.latency, "scripted": page.scripted, "synchrony": page.synchrony,
    }  # fmt: skip
    rows: Rows = {}
    for name, part in parts.items():
        begin = time.perf_counter()
        try:
            rows |= part(quick)
        except (ImportError, OSError, RuntimeError) as error:
            rows[name] = {
                "measured": f"could not run: {type(error).__name__}: {str(error)[:120]}",
                "target": "runs",
                "ok": False,
            }
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    return rows
