"""Parts of the real chain are killed while the arm moves: how long the simulated arm goes on, and how far, by its own joint states.

The stop is measured from the last command that the guard took (its journal) until no joint is faster than `STILL`; the overshoot is how far the measured
joints go beyond the place where the guard's own motion came to rest, which is never beyond the last target.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robopref.arrays import InputError

from ._rows import Row, figure, most, told

STILL = 0.02
"""rad/s below which a joint of the simulated arm, a spring with friction, counts as standing."""
_TRAVEL = 0.005
"""Radians to go at the last command, below which a joint has no direction in which it could overshoot."""
_SCALES = {0.3: 0.05, 1.0: 0.15}
"""Radians per step for an action of 1: what reaches the speed that the guard admits."""


@dataclass
class Stop:
    """One killed part. Seconds, radians, rad/s."""

    part: str
    seconds: float
    overshoot: float
    fastest: float
    """Largest joint speed from 100 ms before the last command until the arm stood."""
    told: float = float("inf")
    """Seconds until what the guard told the arm stood."""
    told_beyond: float = float("inf")
    """Radians that it went beyond the place where it came to rest."""
    why: list[str] = field(default_factory=list)
    again: float = float("inf")
    """Seconds until the arm ran by itself after the part was started again."""


def rows(speed: float, name: str, repeats: int) -> dict[str, Row]:
    """Rows of `stops` at a fraction of the arm's speed, with `name` in theirs."""
    ran = stops(speed, repeats)
    found, again = ran.pop("stops"), ran.pop("node_again")
    shown = [{key: figure(x) if isinstance(x, float) else x for key, x in asdict(one).items()} for one in found]
    return {
        f"live_stop_s_speed_{name}": most(max(one.seconds for one in found), 0.35, stops=shown, **ran),
        f"live_told_stop_s_speed_{name}": most(max(one.told for one in found), 0.35),
        f"live_told_overshoot_rad_speed_{name}": most(max(one.told_beyond for one in found), 0.01),
        f"live_overshoot_rad_speed_{name}": most(max(one.overshoot for one in found), 0.01),
        f"live_stops_missing_speed_{name}": most(
            sum(one.again == float("inf") for one in found) + 2 * repeats - len(found), 0
        ),
        f"live_limit_violations_speed_{name}": most(len(ran["violations"]), 0),
        f"live_node_restart_s_speed_{name}": told(again, again < float("inf")),
    }


def stops(speed: float, repeats: int) -> dict[str, Any]:
    """{"stops": list of `Stop`, "node_again": seconds until the arm ran with a new arm node, ...} at a fraction of the arm's speed."""
    from ._hardware_live import with_chain
    from ._hardware_soak import trained

    policy = trained()
    with TemporaryDirectory() as folder:
        return with_chain(
            policy,
            lambda chain: _kill_all(chain, Path(folder), speed, repeats),
            speed,
            Path(folder) / "chain",
            journal=True,
        )


async def _kill_all(chain: Any, folder: Path, speed: float, repeats: int) -> dict[str, Any]:
    from robopref.hardware.request import request_of
    from robopref.hardware.session import reaches, running, session
    from robopref.hardware.testing import processes
    from robopref.hardware.testing.environments import build

    heard = folder / "heard.jsonl"
    listener = processes.ros_program(build(), chain.folder, "robopref.hardware.testing.listener", str(heard))
    scale = min(_SCALES.items(), key=lambda item: abs(item[0] - speed))[1]
    options = {"bridge": chain.bridge_url, "policy": chain.policy_url, "out": str(folder / "out"), "scale": str(scale)}
    with listener:
        async with session(request_of(options)) as (live, _):
            agent = live.agent
            if await reaches(lambda: running(agent), 120.0) == float("inf"):
                raise InputError(f"stops: got no running arm within 120 s, wanted one; last status {agent.status}")
            await reaches(lambda: heard.exists() and heard.stat().st_size > 0, 60.0)
            await asyncio.sleep(1.0)  # states from before the first kill
            play = asyncio.create_task(live.play(float("inf"), 2.0, {"task": "arm-reach"}))
            killed = list[tuple[Stop, float]]()
            for name, part in [("bridge", chain.bridge), ("policy server", chain.server)] * repeats:
                killed.append(await _kill(name, part, agent, scale))
                if killed[-1][0].again == float("inf"):
                    break  # what does not run cannot be stopped
            written = _taken(chain.journal), _states(heard)
            found = [_judged(stop, at, *written) for stop, at in killed]
            chain.node.kill()
            await asyncio.sleep(0.5)
            chain.node.start()
            arms = agent.tally.arms
            node = await reaches(lambda: agent.tally.arms > arms and running(agent), 60.0)
            play.cancel()
            await asyncio.gather(play, return_exceptions=True)
    return {
        "stops": found, "node_again": node, "node_reflexes": agent.status.get("reflexes", -1), "real_time_factor": chain.complaints().real_time,
        "violations": chain.complaints().broken_limits[:5], "load": os.getloadavg()[0],
    }  # fmt: skip


async def _kill(name: str, part: Any, agent: Any, scale: float) -> tuple[Stop, float]:
    """Kill a part while the arm is fast, start it again once the arm stands: (what is known so far, when it was killed)."""
    from robopref.hardware.session import reaches, running

    def fast() -> bool:
        reading = agent._observer.reading()
        return (
            running(agent) and reading is not None and bool(np.abs(reading.dq).max() > 0.5 * scale * agent.settings.hz)
        )

    await reaches(fast, 20.0)
    at = time.monotonic()
    await asyncio.to_thread(part.kill)
    await asyncio.sleep(2.5)  # a chunk lasts 1.07 s
    stop = Stop(name, float("inf"), float("inf"), 0.0, why=list(agent.status.get("why", [])))
    adopted = len(agent.tally.adopted_ages)
    part.start()
    stop.again = await reaches(lambda: running(agent) and len(agent.tally.adopted_ages) > adopted, 60.0)
    return stop, at


def _taken(journal: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(times of commands that the guard took, times of its steps, what it told the arm there: positions and velocities (n, 2, 7))."""
    from robopref.hardware.reasons import REFUSED

    taken, times, places = [], [], []
    for line in journal.read_text(encoding="utf-8").splitlines():
        try:
            name, arguments, result = json.loads(line)
        except ValueError:
            break
        if name == "receive" and not result & REFUSED:
            taken.append(arguments[1])
        elif name == "tick":
            times.append(arguments[0])
            places.append(result[:2])
    return np.array(taken), np.array(times), np.array(places)


def _states(heard: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(stamps, q (n, 7), dq (n, 7)) that the arm told."""
    rows = [json.loads(line) for line in heard.read_text(encoding="utf-8").splitlines() if line.endswith("]")]
    stamps, q, dq = ([row[i] for row in rows] for i in range(3))
    return 1e-6 * np.array(stamps), np.array(q), np.array(dq)


def _judged(
    stop: Stop,
    at: float,
    journal: tuple[np.ndarray, np.ndarray, np.ndarray],
    states: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Stop:
    """Measure one stop: between the kill and 2.5 s later, by the arm's own states."""
    taken, times, motion = journal
    stamps, q, dq = states
    last = taken[taken < at + 2.0].max()
    stopping = (times > last) & (times < at + 2.4)
    _told(stop, times[stopping] - last, *motion[stopping].swapaxes(0, 1))
    before, after = (stamps >= last - 0.1) & (stamps <= last), (stamps > last) & (stamps < at + 2.4)
    if not before.any() or after.sum() < 50:
        return stop  # nothing heard: infinite
    speed = np.abs(dq[after]).max(1)
    moving = np.flatnonzero(speed > STILL)
    end = int(moving[-1]) + 1 if len(moving) else 0
    if end < len(speed):
        stop.seconds = float(stamps[after][end] - last)
    stop.fastest = float(np.abs(dq[before | (after & (stamps < last + 0.3))]).max())
    rest = motion[stopping][-1, 0]
    way = rest - q[before][-1]
    beyond = (q[after] - rest) * np.sign(way)
    stop.overshoot = max(0.0, float(beyond[:, np.abs(way) > _TRAVEL].max(initial=0.0)))
    return stop


def _told(stop: Stop, since: np.ndarray, q: np.ndarray, v: np.ndarray) -> None:
    """Measure what the guard told the arm (n, 7) after its last command: the same limits as for the arm itself."""
    moving = np.flatnonzero(np.abs(v).max(1) > STILL)
    end = int(moving[-1]) + 1 if len(moving) else 0
    if end < len(since):
        stop.told = float(since[end])
    stop.told_beyond = max(0.0, float(((q - q[-1]) * np.sign(q[-1] - q[0])).max()))
