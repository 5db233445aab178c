"""`robopref deploy --demo`: everything on this machine. Builds the peers, runs a policy for a minute, breaks three things on the way.

The peers live in a network of their own where the machine allows that; only the operator's page can be reached from outside.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from robopref.arrays import InputError

from ..rosbridge import RosBridge
from ..session import Session, finish, reaches, running, session, stopped
from .chain import Chain
from .environments import build
from .network import own_network
from .rig import camera


def demo(options: dict[str, str]) -> int:
    """Run the demonstration; 0 when every fault ended in a stop and was recovered from."""
    out = Path(options.get("out", "runs/deploy-demo")).resolve()
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = Path(options["checkpoint"]).resolve() if "checkpoint" in options else _aligned(out)
    environments = build()
    with socket.create_server(("127.0.0.1", 0)) as page, own_network() as private:
        print(
            "peers run in a network of their own"
            if private
            else "peers run on this machine's network (no rights for one of their own)"
        )
        with Chain(environments, out / "processes", checkpoint, journal=True) as chain:
            told = options | {"bridge": chain.bridge_url, "policy": chain.policy_url, "out": str(out)}
            report = asyncio.run(_minute(told, chain, page, float(options.get("seconds", 60))))
        report["violations"] = chain.violations()
    (out / "deploy.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    print(json.dumps(report, indent=2))
    print(f"label what was recorded: robopref annotate {report['dataset']}")
    times = [(fault["stopped_after_s"], fault["running_after_s"]) for fault in report["faults"]]
    fine = all(stop is not None and stop < 5 and again is not None for stop, again in times)
    return 0 if fine and not report["violations"] else 1


def _aligned(out: Path) -> Path:
    """A policy aligned in simulation by the experiment `robot_in_the_loop`, made on the first call."""
    run = out / "aligned"
    command = [sys.executable, "-m", "robopref.cli", "run", "experiment=robot_in_the_loop", f"out={run}"]
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
    async with session(options, page) as (live, view), RosBridge(chain.bridge_url) as eye:
        print(f"operator's page: {view.url}", flush=True)
        agent = live.agent
        watch = asyncio.create_task(camera(eye, lambda: _joints(live), live.goal))
        if await reaches(lambda: running(agent), 300.0) == float("inf"):
            raise InputError(f"deploy --demo: the arm never ran; last status {agent.status}\nsee {chain.folder}")
        about = {
            "task": "arm-reach",
            "env": "franka-sim",
            "policy_hash": str(agent.client.metadata.get("robopref/policy_hash")),
        }
        play = asyncio.create_task(live.play(seconds, float(options.get("episode", 8)), about))
        faults = []
        for name in ("policy server killed", "bridge killed", "policy server stopped"):
            await asyncio.sleep(seconds / 5)
            faults.append(await _break(name, live, chain))
            print(
                f"{name}: stopped after {faults[-1]['stopped_after_s']} s {faults[-1]['why']}, "
                f"running again {faults[-1]['running_after_s']} s after repair",
                flush=True,
            )
        await play
        agent.control("disarm")
        await reaches(lambda: stopped(agent), 3.0)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    out = Path(options["out"])
    report = await asyncio.to_thread(finish, live, out, float(options.get("hz", 15)))
    return {**report, "faults": faults}


def _joints(live: Session) -> Any:
    from ..arm_reach import HOME

    joints = live.agent.joints()
    return HOME if joints is None else joints


async def _break(name: str, live: Session, chain: Chain) -> dict[str, Any]:
    """Break one part, wait for the stop, mend it, wait until the arm runs."""
    agent, part = live.agent, chain.bridge if name.startswith("bridge") else chain.server
    assert part is not None
    await reaches(lambda: running(agent), 60.0)  # what stands still already proves nothing by standing still
    if name.endswith("killed"):
        await asyncio.to_thread(part.kill)
    else:
        part.send(signal.SIGSTOP)
    stop = await reaches(lambda: stopped(agent), 10.0)
    why = list(agent.status.get("why", ["no status"]))
    if name.endswith("killed"):
        part.start()
    else:
        part.send(signal.SIGCONT)
    again = await reaches(lambda: running(agent), 60.0)
    return {"fault": name, "stopped_after_s": _finite(stop), "why": why, "running_after_s": _finite(again)}


def _finite(seconds: float) -> float | None:
    """Seconds, or None for never: JSON has no infinity."""
    return round(seconds, 3) if seconds < float("inf") else None
