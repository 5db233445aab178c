"""The arm's side in numbers: guard, kinematics, chunking, recorder, faults, and the whole chain against the simulator with enforced limits.

Run: robopref bench hardware [quick=true] [out=DIR resume=true]

The live rows need the peers (built on the first run) and a machine that has time: they are percentiles of real processes, and what else
runs on the machine shows in them. `machine_cpu_share` says how much of its time this benchmark got.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from robopref.arrays import InputError
from robopref.bench import in_parts

from ._rows import Row, figure, least, most, told


def _sweep(quick: bool) -> dict[str, Row]:
    """Random sequences through the limiter of both arms, at the arm's own speed and with the guard's cap, and through whole guards."""
    from ._hardware_guard import swept

    rows: dict[str, Row] = {}
    for name, (value, shown) in swept(quick).items():
        if "speed_share" in name:
            rows[name] = least(value, 0.95, **shown)
        else:
            rows[name] = most(value, 20.0 if "us_per_step" in name else 0, **shown)
    return rows


def _live_step(quick: bool) -> dict[str, Row]:
    """One guard step with workspace and self-collision in wall time, taking a command included."""
    from ._hardware_guard import step_times

    steps, commands = step_times(10_000 if quick else 60_000)
    rows = {"guard_step_us_p99": steps, "guard_step_with_command_us_p99": commands}
    return {
        name: most(
            np.percentile(wall, 99),
            250.0,
            p50=figure(np.percentile(wall, 50)),
            steps=len(wall),
            load=os.getloadavg()[0],
        )
        for name, wall in rows.items()
    }


def _late_chunks(quick: bool) -> dict[str, Row]:
    """Late chunks through the real agent, arm node and guard in simulated time. It adopts nothing older than 300 ms: no delay of 5 or 6."""
    from ._hardware_guard import late_chunks

    found = late_chunks(2 if quick else 20)
    fits, late = [found[delay] for delay in range(5)], [found[delay] for delay in (5, 6)]
    return {
        "agent_idle_ticks_delays_0_to_4": most(sum(one["idle"] for one in fits), 0, by_delay=found),
        "agent_adopted_age_s_delays_0_to_4": most(max(one["oldest_adopted_s"] for one in fits), 0.3),
        "agent_adopted_at_delays_5_and_6": most(sum(one["adopted"] for one in late), 0, delays_ms=[333, 400]),
    }


def _chunking(quick: bool) -> dict[str, Row]:
    """Guidance against finite differences; idle ticks and seams at delays of 0 to 6 of 16 steps with a real diffusion policy."""
    from . import chunking
    from ._hardware_chunking import gradient_error, seams

    rows = {"guidance_vs_finite_differences": most(gradient_error(), 1e-4)}
    for mode in ("real_time", "asynchronous", "synchronous"):
        found = [seams(mode, delay, 16) for delay in ((0, 2, 4, 6) if quick else range(7))]
        idle, seam, rough = sum(one.idle for one in found), max(o.seam for o in found), max(o.roughness for o in found)
        told = {"roughness": round(rough, 3)}
        if mode == "real_time":
            rows["chunking_idle_ticks"] = most(idle, 0)
            rows["chunking_seam_ratio"] = most(seam, chunking.SEAM, **told)
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
        "fuzzed_frames_commands": most(
            found.commands, 0, frames=found.frames, still_messages=found.messages, taken_as_sent=found.taken
        )
    }


def _refusals(quick: bool) -> dict[str, Row]:
    """Unauthorised, oversized, replayed and wrong-epoch attempts that were not refused."""
    from ._hardware_refusals import passed_through

    count = 50 if quick else 1000
    return {f"passed_{kind}": most(passed, 0, attempts=count) for kind, passed in passed_through(count).items()}


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
    return {"recorder_lost_episodes": most(lost_episodes(kills), 0, kills=kills)}


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
    return {"replay_differences": most(0 if difference == "" else 1, 0, calls=agreed)}


def _faults(quick: bool) -> dict[str, Row]:
    """The fault matrix on simulated time."""
    from robopref.hardware.testing import matrix

    wanted = matrix.expected()
    seeds = 2 if quick else wanted["seeds"]
    cells = [(fault, matrix.run(fault, seed)) for fault in wanted["faults"] for seed in range(seeds)]
    problems = [matrix.problems(fault, cell, wanted) for fault, cell in cells]
    ages = [matrix.outside_delay(fault, cell, wanted) for fault, cell in cells]
    told = [line for lines in problems for line in lines]
    return {
        "fault_cells_wrong": most(sum(map(bool, problems)), 0, cells=len(cells), problems=told[:10]),
        "fault_stop_s": most(max(cell.stop for _, cell in cells), wanted["stop"]),
        "fault_overshoot_rad": most(max(cell.overshoot for _, cell in cells), wanted["overshoot"]),
        "fault_adopted_age_s": most(max(adopted for adopted, _ in ages), wanted["adopted_age"]),
        "fault_action_age_s": most(max(action for _, action in ages), wanted["action_age"]),
        "fault_commands_taken_again": most(sum(cell.repeated + cell.unseen for _, cell in cells), 0),
    }


def _kinematics(quick: bool) -> dict[str, Row]:
    """Pose and Jacobian against libfranka's model, through the simulator."""
    from ._hardware_live import kinematics_error

    return {"kinematics_vs_libfranka": most(kinematics_error(200 if quick else 1000), 1e-6)}


def _adversarial(quick: bool) -> dict[str, Row]:
    """Commands of every bad kind through the whole chain against the simulator with enforced limits and lost-cycle reflexes."""
    from ._hardware_live import attacked

    return attacked("", 0.3, 60 if quick else 600, 1_000 if quick else 10_000)


def _adversarial_fast(quick: bool) -> dict[str, Row]:
    """The same with a guard that admits the arm's whole speed."""
    from ._hardware_live import attacked

    return attacked("_fast", 1.0, 30 if quick else 600, 500 if quick else 10_000)


def _soak(quick: bool) -> dict[str, Row]:
    """The whole chain at 15 Hz with a real diffusion policy."""
    from ._hardware_soak import soak

    ran, rows = (soak(60, every=10.0) if quick else soak(600)), dict[str, Row]()
    for row, name, target in (
        ("overhead_p99_ms", "overheads_p99_ms", 15.0),
        ("observation_age_p99_ms", "robot_ages_p99_ms", 25.0),
        ("tick_jitter_p99_ms", "jitter_p99_ms", 5.0),
        ("missed_ticks_share", "missed_share", 0.001),
        ("memory_growth_mb", "memory_mb", 20.0),
        ("adopted_observation_age_p99_ms", "adopted_ages_p99_ms", 300.0),
    ):
        rows[row] = most(ran[name], target)
    rows["observation_age_p99_ms"]["since_arrival"] = ran["ages_p99_ms"]
    rows["memory_growth_mb"]["resident_mb"] = ran["memory"]
    shown = {key: ran[key] for key in ("steps", "real_time_factor", "idle", "load")}
    rows["soak_commands"] = told(ran["commands"], ran["commands"] > 0, **shown)
    return rows


def _stops(quick: bool) -> dict[str, Row]:
    """Bridge and policy server killed while the simulated arm moves: how long and how far it goes on, measured on the arm."""
    from ._hardware_stops import rows

    return rows(0.3, "30", 1 if quick else 10) | rows(1.0, "100", 1 if quick else 10)


# The live parts come first: they depend most on what else the machine does, which one can see to for a few minutes.
PARTS = {
    part.__name__.strip("_"): part
    for part in (
        _kinematics, _adversarial, _adversarial_fast, _stops, _soak, _live_step, _sweep, _chunking, _late_chunks, _chunking_metaworld,
        _frames, _recorder, _replay, _refusals, _faults, _conformance,
    )
}  # fmt: skip
"""Name -> what measures its rows; `robopref bench` keeps each when it is done."""


def run(quick: bool = False) -> dict[str, Row]:
    """All rows; `quick` shortens the sweeps and the soak so that everything takes less than ten minutes on an idle machine."""
    return in_parts(PARTS, quick)
