"""The guard alone: random sequences through limiter and guard, its time per step, and late chunks through the real agent."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def swept(quick: bool) -> dict[str, Any]:
    """Row -> (value, what is shown beside it); the limiter at the arm's own limits, the guard's with its lower top speed, the whole guard."""
    from robopref.hardware.guard import Guard, Settings
    from robopref.hardware.limiter import Limiter
    from robopref.hardware.limits import FR3, PANDA
    from robopref.hardware.testing.sweep import TICKS, guard_sweep, sweep

    rows: dict[str, Any] = {}
    for arm in (FR3, PANDA):
        guards = Guard(arm, Settings(speed=1.0)).limiter
        for kind, limiter in (("", Limiter(arm)), ("guard_", guards)):
            found = sweep(arm, 50_000 if quick else 1_000_000, seed=0, limiter=limiter)
            top = (limiter.limits.v_max / arm.v_max).round(3).tolist()
            rows[f"sweep_{kind}violations_{arm.name}"] = (
                found.violations,
                {"sequences": found.sequences, "ticks": TICKS},
            )
            rows[f"sweep_{kind}speed_share_{arm.name}"] = float(found.fastest.min()), {"top_speed_over_the_arms": top}
            rows[f"sweep_{kind}us_per_step_{arm.name}"] = found.microseconds, {}
        whole = guard_sweep(arm, 300 if quick else 20_000, seed=0)
        shown = {"sequences": whole.sequences, "ticks": TICKS, "commands_taken": whole.taken}
        rows[f"whole_guard_violations_{arm.name}"] = whole.violations, shown
    return rows


def step_times(ticks: int, every: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of wall time of every step of a guard, `receive` included where a command comes, and of those steps alone."""
    from robopref.hardware.arm_reach import HOME
    from robopref.hardware.command import Command
    from robopref.hardware.guard import Guard

    guard, rng, wall = Guard(), np.random.default_rng(0), np.empty(ticks)
    guard.link(True, 0.0)
    guard.arm(1, HOME, 1, 0.0)
    for tick in range(ticks):
        now, command = 1.0 + tick * 1e-3, None
        if tick % every == 0:
            command = Command(1, tick, now, now, target=HOME + rng.uniform(-1, 1, 7), duration=0.066)
        begin = time.perf_counter()
        if command is not None:
            guard.receive(command, now)
        guard.tick(now)
        wall[tick] = 1e6 * (time.perf_counter() - begin)
    return wall, wall[::every]


def late_chunks(seeds: int) -> dict[int, dict[str, float]]:
    """Delay in the agent's periods -> what the real agent, arm node and guard make of it in simulated time; 5 and 6 are over its 300 ms."""
    from robopref.hardware.testing import matrix

    found: dict[int, dict[str, float]] = {}
    for delay in range(7):
        cells = [matrix.delayed(delay, seed) for seed in range(seeds)]
        found[delay] = {
            "idle": sum(cell.idle for cell in cells), "adopted": sum(cell.adopted for cell in cells),
            "commands": sum(cell.commands for cell in cells), "oldest_adopted_s": round(max(c.adopted_age for c in cells), 4),
            "oldest_action_s": round(max(c.action_age for c in cells), 4), "violations": sum(c.violations for c in cells),
        }  # fmt: skip
    return found
