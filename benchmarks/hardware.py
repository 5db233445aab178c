"""The arm's side in numbers: guard, kinematics, chunking, recorder, faults, and the whole chain against the simulator with enforced limits.

Run: robopref bench hardware [quick=true] [out=DIR resume=true]

The live rows need the peers (built on the first run) and a machine that has time: they are percentiles of real processes, and what else
runs on the machine shows in them. `machine_cpu_share` says how much of its time this benchmark got.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.bench import in_parts

Row = dict[str, Any]


def _most(value: float, target: float, **more: Any) -> Row:
    """A row that must not exceed its target."""
    return {"measured": round(float(value), 6), "target": target, "ok": bool(value <= target), **more}


def _least(value: float, target: float, **more: Any) -> Row:
    """A row that must reach its target."""
    return {"measured": round(float(value), 6), "target": target, "ok": bool(value >= target), **more}


def _sweep(quick: bool) -> dict[str, Row]:
    """Random sequences through the limiter of both arms."""
    from robopref.hardware.limits import FR3, PANDA
    from robopref.hardware.testing.sweep import TICKS, sweep

    rows: dict[str, Row] = {}
    count = 50_000 if quick else 1_000_000
    for arm in (FR3, PANDA):
        found = sweep(arm, count, seed=0)
        shown = {"sequences": found.sequences, "ticks": TICKS}
        rows[f"sweep_violations_{arm.name}"] = _most(found.violations, 0, **shown)
        rows[f"sweep_speed_share_{arm.name}"] = _least(found.fastest.min(), 0.95)
        rows[f"sweep_us_per_step_{arm.name}"] = _most(found.microseconds, 20.0)
    return rows


def _live_step(quick: bool) -> dict[str, Row]:
    """One guard step with workspace and self-collision, in wall time and in time of its own thread."""
    from robopref.hardware.arm_reach import HOME
    from robopref.hardware.command import Command
    from robopref.hardware.guard import Guard

    guard, rng, wall, own = Guard(), np.random.default_rng(0), [], []
    guard.link(True, 0.0)
    guard.arm(1, HOME, 1, 0.0)
    for tick in range(5_000 if quick else 60_000):
        now = 1.0 + tick * 1e-3
        if tick % 66 == 0:
            target = HOME + rng.uniform(-1, 1, 7)
            guard.receive(Command(1, tick, now, now, target=target, duration=0.066), now)
        begin, thread = time.perf_counter(), time.thread_time()
        guard.tick(now)
        own.append(1e6 * (time.thread_time() - thread))
        wall.append(1e6 * (time.perf_counter() - begin))
    wall_p99, wall_p50 = np.percentile(wall, 99), np.percentile(wall, 50)
    return {
        "guard_step_us_p99": _most(
            np.percentile(own, 99), 250.0, wall_p99=round(float(wall_p99), 1), wall_p50=round(float(wall_p50), 1)
        )
    }


def _chunking(quick: bool) -> dict[str, Row]:
    """Guidance against finite differences; idle ticks and seams at delays of 0 to 6 of 16 steps with a real diffusion policy."""
    from . import chunking
    from ._hardware_chunking import gradient_error, seams

    rows = {"guidance_vs_finite_differences": _most(gradient_error(), 1e-4)}
    for mode in ("real_time", "asynchronous", "synchronous"):
        found = [seams(mode, delay, 16) for delay in ((0, 2, 4, 6) if quick else range(7))]
        idle, seam, rough = sum(one.idle for one in found), max(o.seam for o in found), max(o.roughness for o in found)
        told = {"roughness": round(rough, 3)}
        if mode == "real_time":
            rows["chunking_idle_ticks"] = _most(idle, 0)
            rows["chunking_seam_ratio"] = _most(seam, chunking.SEAM, **told)
        else:
            rows[f"chunking_seam_ratio_{mode}"] = {
                "measured": round(seam, 3),
                "target": None,
                "ok": True,
                "idle": idle,
                **told,
            }
    return rows


def _chunking_metaworld(quick: bool) -> dict[str, Row]:
    """Success with late chunks on a task that forgives and one that does not."""
    from . import chunking

    rows: dict[str, Row] = {}
    for task in chunking.TASKS[:2]:
        modes = ("real_time", "asynchronous", "synchronous") if quick else chunking.MODES
        played = chunking.measure(task, "diffusion", 50 if quick else 400, (0, 4) if quick else (0, 2, 4, 6), modes)
        rows |= {f"chunking_metaworld_{name}": row for name, row in played.items()}
    return rows


def _frames(quick: bool) -> dict[str, Row]:
    """Damaged frames through decoder, reader and an armed guard."""
    from robopref.hardware.testing.fuzz import fuzz_frames

    found = fuzz_frames(5_000 if quick else 100_000, seed=0)
    return {
        "fuzzed_frames_commands": _most(
            found.commands, 0, frames=found.frames, still_messages=found.messages, taken_as_sent=found.taken
        )
    }


def _refusals(quick: bool) -> dict[str, Row]:
    """Unauthorised, oversized, replayed and wrong-epoch attempts that were not refused."""
    from ._hardware_refusals import passed_through

    count = 50 if quick else 1000
    return {f"passed_{kind}": _most(passed, 0, attempts=count) for kind, passed in passed_through(count).items()}


def _conformance(quick: bool) -> dict[str, Row]:
    """The one suite against our test server and rosbridge-server-rs; it lives in the repository's tests."""
    suite = Path(__file__).parents[1] / "tests/hardware/test_rosbridge.py"
    if not suite.exists():
        raise InputError("conformance: got no tests beside the benchmarks, wanted a checkout of the repository.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(suite)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"ROBOPREF_REQUIRE_HARDWARE": "1"}
    )
    told = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    return {"conformance": {"measured": done.returncode, "target": 0, "ok": done.returncode == 0, "pytest": told}}


def _recorder(quick: bool) -> dict[str, Row]:
    """A recorder process killed at random moments: finished episodes that cannot be read."""
    from ._hardware_recorder import lost_episodes

    kills = 5 if quick else 100
    return {"recorder_lost_episodes": _most(lost_episodes(kills), 0, kills=kills)}


def _replay(quick: bool) -> dict[str, Row]:
    """A journal of random events replayed through a fresh guard."""
    from robopref.hardware.arm_reach import HOME
    from robopref.hardware.command import Command
    from robopref.hardware.guard import Guard
    from robopref.hardware.journal import Journal, replay

    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = Journal(Guard(), path)
        journal.call("link", True, 0.0)
        journal.call("arm", 1, HOME, 1, 0.0)
        for tick in range(5_000 if quick else 50_000):
            now = 1.0 + tick * 1e-3
            if tick % 50 == 0:
                target = HOME + rng.normal(size=7) * (np.nan if rng.random() < 0.1 else 0.2)
                journal.call("receive", Command(1, tick, now, now, target=target), now)
            journal.call("tick", now)
        journal.close()
        agreed, difference = replay(path, Guard())
    return {"replay_differences": _most(0 if difference == "" else 1, 0, calls=agreed)}


def _faults(quick: bool) -> dict[str, Row]:
    """The fault matrix on simulated time."""
    from robopref.hardware.testing import matrix

    wanted = matrix.expected()
    seeds = 2 if quick else wanted["seeds"]
    wrong, stop, overshoot, adopted, action = [], 0.0, 0.0, 0.0, 0.0
    for fault in wanted["faults"]:
        for seed in range(seeds):
            cell = matrix.run(fault, seed)
            wrong += matrix.problems(fault, cell, wanted)
            stop, overshoot = max(stop, cell.stop), max(overshoot, cell.overshoot)
            adopted, action = max(adopted, cell.adopted_age), max(action, cell.action_age)
    cells = seeds * len(wanted["faults"])
    return {
        "fault_cells_wrong": _most(len(wrong), 0, cells=cells, problems=wrong[:10]),
        "fault_stop_s": _most(stop, wanted["stop"]),
        "fault_overshoot_rad": _most(overshoot, wanted["overshoot"]),
        "fault_adopted_age_s": _most(adopted, wanted["adopted_age"]),
        "fault_action_age_s": _most(action, wanted["action_age"]),
    }


def _kinematics(quick: bool) -> dict[str, Row]:
    """Pose and Jacobian against libfranka's model, through the simulator."""
    from ._hardware_live import kinematics_error

    return {"kinematics_vs_libfranka": _most(kinematics_error(200 if quick else 1000), 1e-6)}


def _adversarial(quick: bool) -> dict[str, Row]:
    """Commands of every bad kind through the whole chain against the simulator with enforced limits and lost-cycle reflexes."""
    from ._hardware_live import adversarial

    hit = adversarial(seconds=60 if quick else 600)
    shown = {key: hit[key] for key in ("commands", "refused", "seconds", "lines", "real_time_factor")}
    return {
        "adversarial_commands": _least(hit["commands"], 1_000 if quick else 10_000),
        "adversarial_limit_violations": _most(hit["violations"], 0, **shown),
        "adversarial_reflexes": _most(hit["reflexes"], 0, ended_loops=hit["ended"]),
    }


def _soak(quick: bool) -> dict[str, Row]:
    """The whole chain at 15 Hz with a real diffusion policy."""
    from ._hardware_live import soak

    ran, rows = soak(seconds=60 if quick else 600), dict[str, Row]()
    for row, name, target in (
        ("overhead_p99_ms", "overheads_p99_ms", 15.0),
        ("observation_age_p99_ms", "ages_p99_ms", 25.0),
        ("tick_jitter_p99_ms", "jitter_p99_ms", 5.0),
        ("missed_ticks_share", "missed_share", 0.001),
        ("memory_growth_mb", "memory_mb", 20.0),
        ("adopted_observation_age_p99_ms", "adopted_ages_p99_ms", 300.0),
    ):
        rows[row] = _most(ran[name], target)
    shown = {"steps": ran["steps"], "real_time_factor": ran["real_time_factor"], "idle": ran["idle"]}
    rows["soak_commands"] = {"measured": ran["commands"], "target": None, "ok": ran["commands"] > 0, **shown}
    return rows


# The live parts come first: they depend most on what else the machine does, which one can see to for a few minutes.
PARTS = {
    part.__name__.strip("_"): part
    for part in (
        _kinematics, _adversarial, _soak, _live_step, _sweep, _chunking, _chunking_metaworld, _frames, _recorder, _replay, _refusals,
        _faults, _conformance,
    )
}  # fmt: skip
"""Name -> what measures its rows; `robopref bench` keeps each when it is done."""


def run(quick: bool = False) -> dict[str, Row]:
    """All rows; `quick` shortens the sweeps and the soak so that everything takes less than ten minutes on an idle machine."""
    return in_parts(PARTS, quick)
