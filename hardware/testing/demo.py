"""`robopref deploy --demo`: everything on this machine. Builds the peers, runs a policy for a minute, breaks three things on the way.

The peers live in a network of their own where the machine allows that; only the operator's page can be reached from outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.checkpoint import fingerprint

from ..request import request_of, shown
from ..rosbridge import RosBridge
from ..session import Session, finish, reaches, running, session, stopped
from .chain import Chain
from .environments import build
from .network import own_network
from .rig import camera

STOP, PATIENCE = 5.0, 300.0
"""Seconds until the page knows of a stop (the guard's own is judged by the fault matrix), and until what was mended runs again."""


def demo(options: dict[str, str]) -> int:
    """Run the demonstration; 0 when every fault ended in a stop and was recovered from, no limit was broken and episodes were recorded."""
    if shown(options).space.limits.name != "fr3":
        raise InputError(f"deploy --demo: got arm={options.get('arm')}, wanted fr3: the simulated arm is one.")
    out = Path(options.get("out", "runs/deploy-demo")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Path(options["checkpoint"]).resolve() if "checkpoint" in options else _aligned(out)
    environments = build()
    with _page() as page, own_network() as private:
        print(
            "peers run in a network of their own"
            if private
            else "peers run on this machine's network (no rights for one of their own)"
        )
        with Chain(environments, out / "processes", checkpoint, journal=True) as chain:
            # By hash: chunks of any other policy are refused.
            told = options | {"bridge": chain.bridge_url, "policy": chain.policy_url, "hash": fingerprint(checkpoint)}
            told |= {"out": str(out)}
            report = asyncio.run(_minute(told, chain, page, float(options.get("seconds", 60))))
            complaints = chain.complaints()
        report |= {
            "broken_limits": complaints.broken_limits, "lost_cycles": complaints.lost_cycles, "real_time": complaints.real_time,
            "load": list(os.getloadavg()),
        }  # fmt: skip
        report["verdict"] = verdict(report)
    (out / "deploy.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    print(json.dumps({key: value for key, value in report.items() if key != "verdict"}, indent=2))
    for name, row in report["verdict"].items():
        print(f"{'ok  ' if row['ok'] else 'MISS'} {name}: {row['measured']} (wanted {row['wanted']})")
    print(f"label what was recorded: robopref annotate {report['dataset']}")
    return 0 if all(row["ok"] for row in report["verdict"].values()) else 1


def _page() -> socket.socket:
    """A socket of this machine's own network for the operator's page; its protocol is named, so that asyncio sends replies at once."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    return bound


def verdict(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """{measure: {measured, wanted, ok}}: what must hold on any machine, however busy. Latencies are told, not judged: `bench hardware` does."""

    def row(measured: Any, wanted: str, ok: bool) -> dict[str, Any]:
        return {"measured": measured, "wanted": wanted, "ok": ok}

    rows = {}
    for fault in report["faults"]:
        stop, again, name = fault["stopped_after_s"], fault["running_after_s"], fault["fault"]
        rows[f"{name}: stopped"] = row(stop, "within 5 s", stop is not None and stop <= STOP)
        rows[f"{name}: runs again"] = row(again, f"within {PATIENCE:.0f} s", again is not None)
    rows["limits broken"] = row(len(report["broken_limits"]), "0", not report["broken_limits"])
    oldest = report["adopted_ages_p99_ms"]
    rows["oldest adopted chunk, p99, ms"] = row(oldest, "<= 300", bool(oldest <= 300.0))
    rows["episodes recorded"] = row(report["recorded"], ">= 1", report["recorded"] >= 1)
    return rows


def _aligned(out: Path) -> Path:
    """A policy aligned in one process by the experiment `robot_in_the_loop`, made on the first call."""
    run = out / "aligned"
    command = [sys.executable, "-m", "robopref.cli", "run", "experiment=robot_in_the_loop", "arm=null", f"out={run}"]
    print("aligning a policy in simulation (once):", " ".join(command[3:]), flush=True)
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise InputError(f"deploy --demo: the experiment failed\ntry it alone: robopref {' '.join(command[3:])}")
    return policy_of(run)


def policy_of(run: Path) -> Path:
    """The aligned policy of a finished run."""
    return run / json.loads((run / "arms/arms.json").read_text(encoding="utf-8"))["policies"]["aligned"]


async def _minute(options: dict[str, str], chain: Chain, page: socket.socket, seconds: float) -> dict[str, Any]:
    """Play episodes while things break: a third of the time each for the server killed, the bridge killed, the server stopped."""
    request = request_of(options)
    async with session(request, page) as (live, view), RosBridge(chain.bridge_url) as eye:
        print(f"operator's page: {view.url}", flush=True)
        agent = live.agent
        watch = asyncio.create_task(camera(eye, lambda: _joints(live), live.goal))
        if await reaches(lambda: running(agent), PATIENCE) == float("inf"):
            raise InputError(f"deploy --demo: the arm never ran; last status {agent.status}\nsee {chain.folder}")
        about = {
            "task": "arm-reach",
            "env": "franka-sim",
            "policy_hash": str(agent.client.metadata.get("robopref/policy_hash")),
        }
        play = asyncio.create_task(live.play(float("inf"), float(options.get("episode", 8)), about, replicas=1))
        end = time.monotonic() + seconds
        faults = []
        for name in ("policy server killed", "bridge killed", "policy server stopped"):
            await asyncio.sleep(seconds / 5)
            faults.append(await _break(name, live, chain))
            print(
                f"{name}: stopped after {faults[-1]['stopped_after_s']} s {faults[-1]['why']}, "
                f"running again {faults[-1]['running_after_s']} s after repair",
                flush=True,
            )
        await asyncio.wait([play], timeout=max(5.0, end - time.monotonic()))
        if play.done():
            play.result()  # it never ends by itself: its error is ours
        play.cancel()
        await asyncio.gather(play, return_exceptions=True)
        agent.retire()
        await reaches(lambda: stopped(agent), 3.0)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    report = await asyncio.to_thread(finish, live, request.out, request.hz)
    return {**report, "faults": faults}


def _joints(live: Session) -> Any:
    from ..arm_reach import HOME

    joints = live.agent.joints()
    return HOME if joints is None else joints


async def _break(name: str, live: Session, chain: Chain) -> dict[str, Any]:
    """Break one part, wait for the stop, mend it, wait until the arm runs by a new chunk of the policy."""
    agent, part = live.agent, chain.bridge if name.startswith("bridge") else chain.server
    assert part is not None
    # What stands still already proves nothing by standing still, and the way home needs no policy.
    await reaches(lambda: running(agent) and 3 < live.ran < 45, PATIENCE)
    if name.endswith("killed"):
        await asyncio.to_thread(part.kill)
    else:
        part.send(signal.SIGSTOP)
    stop = await reaches(lambda: stopped(agent), 2 * STOP)
    why = list(agent.status.get("why", ["no status"]))
    if name.endswith("killed"):
        part.start()
    else:
        part.send(signal.SIGCONT)
    adopted = len(agent.tally.adopted_ages)
    again = await reaches(lambda: running(agent) and len(agent.tally.adopted_ages) > adopted, PATIENCE)
    return {"fault": name, "stopped_after_s": _finite(stop), "why": why, "running_after_s": _finite(again)}


def _finite(seconds: float) -> float | None:
    """Seconds, or None for never: JSON has no infinity."""
    return round(seconds, 3) if seconds < float("inf") else None
