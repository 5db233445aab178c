"""The fault matrix: every fault of `faults.yaml` on a whole chain in one process (`world.py`), seed by seed.

Run: python -m robopref.hardware.testing.matrix [SEEDS] (default: as many as `faults.yaml` says). The processes themselves are broken in `demo.py`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..guard import Guard
from .cell import Cell, expected, outside_delay, problems
from .disk import small_disk
from .ends import AGENT_PERIOD
from .world import World

__all__ = ["Cell", "delayed", "expected", "outside_delay", "problems", "run"]


def run(fault: str, seed: int, guard: Callable[[], Guard] = Guard) -> Cell:
    """One cell of the matrix. `guard`: makes the guard that is judged."""
    if fault != "full_disk":
        return World(fault, seed, guard=guard).run()
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder)) as disk:
        return World(fault, seed, Path(folder), disk, guard=guard).run()


def delayed(steps: int, seed: int) -> Cell:
    """Nothing breaks, and every chunk comes some of the agent's periods after it was asked for (0: at once, so at the next period)."""
    return World("nothing", seed, inference=max(0.0, steps - 0.5) * AGENT_PERIOD * 1e-3).run()


def main(seeds: int | None = None) -> int:
    """Print one line a fault; 0 if every cell ended as it was written down."""
    wanted, wrong = expected(), 0
    for fault in wanted["faults"]:
        cells = [run(fault, seed) for seed in range(seeds or wanted["seeds"])]
        found = [problem for cell in cells for problem in problems(fault, cell, wanted)]
        wrong += sum(bool(problems(fault, cell, wanted)) for cell in cells)
        stop, overshoot = max(cell.stop for cell in cells), max(cell.overshoot for cell in cells)
        ages = [max(ages) for ages in zip(*(outside_delay(fault, cell, wanted) for cell in cells), strict=True)]
        ends = ", ".join(sorted({cell.during for cell in cells}))
        print(
            f"| {fault} | {len(cells)} | {ends} | {stop:.3f} | {overshoot:.4f} | {ages[0]:.3f} | {ages[1]:.3f} | {len(found)} |",
            flush=True,
        )
        print("".join(f"  {problem}\n" for problem in found[:5]), end="", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
