"""The fault matrix: every fault of `faults.yaml` on a whole chain in one process (`world.py`), seed by seed.

Run: python -m robopref.hardware.testing.matrix [SEEDS] (default: as many as `faults.yaml` says). The processes themselves are broken in `demo.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .cell import Cell, expected, problems
from .world import World

__all__ = ["Cell", "expected", "problems", "run"]


def run(fault: str, seed: int) -> Cell:
    """One cell of the matrix."""
    if fault != "full_disk":
        return World(fault, seed).run()
    with tempfile.TemporaryDirectory() as folder:
        return World(fault, seed, Path(folder)).run()


def main(seeds: int | None = None) -> int:
    """Print one line a fault; 0 if every cell ended as it was written down."""
    wanted, wrong = expected(), 0
    for fault in wanted["faults"]:
        cells = [run(fault, seed) for seed in range(seeds or wanted["seeds"])]
        found = [problem for cell in cells for problem in problems(fault, cell, wanted)]
        wrong += sum(bool(problems(fault, cell, wanted)) for cell in cells)
        stop, overshoot = max(cell.stop for cell in cells), max(cell.overshoot for cell in cells)
        age = max(cell.adopted_age for cell in cells)
        ends = ", ".join(sorted({cell.during for cell in cells}))
        print(
            f"| {fault} | {len(cells)} | {ends} | {stop:.3f} | {overshoot:.4f} | {age:.3f} | {len(found)} |", flush=True
        )
        print("".join(f"  {problem}\n" for problem in found[:5]), end="", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else None))
