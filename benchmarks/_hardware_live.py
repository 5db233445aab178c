"""The rows that need the real peers: libfranka's model, and adversarial commands. What runs on them is given a `Chain`."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ._rows import Row, least, most

_LIBFRANKA = """
import json, sys
import numpy as np, pylibfranka
robot = pylibfranka.Robot("127.0.0.1", pylibfranka.RealtimeConfig.kIgnore)
model, state = robot.load_model(), robot.read_once()
found = []
for q in json.load(sys.stdin):
    state.q = q
    found.append(model.zero_jacobian(state))
print(json.dumps(found))
"""


def kinematics_error(count: int) -> float:
    """Largest difference of our Jacobian from libfranka's over random configurations."""
    from robopref.hardware.kinematics import jacobian
    from robopref.hardware.limits import FR3
    from robopref.hardware.testing import processes
    from robopref.hardware.testing.environments import build
    from robopref.hardware.testing.network import own_network

    environments = build()
    q = np.random.default_rng(0).uniform(FR3.q_min, FR3.q_max, (count, 7))
    with TemporaryDirectory() as folder, own_network(), processes.simulator(environments, Path(folder)) as simulator:
        simulator.wait_for_port(processes.FCI_PORT, 120.0)
        asked = [str(environments.franka / "bin/python"), "-c", _LIBFRANKA]
        done = subprocess.run(asked, input=json.dumps(q.tolist()), capture_output=True, text=True, check=True)
    theirs = np.array(json.loads(done.stdout)).reshape(-1, 7, 6).swapaxes(1, 2)
    return float(np.abs(theirs - jacobian(q)).max())


_SILENT = "UDP receive: Timeout"


def attacked(name: str, speed: float, seconds: float, enough: int) -> dict[str, Row]:
    """Rows of `adversarial`: everything that could have gone wrong is judged, and that the arm was heard and moved at all."""
    hit = adversarial(seconds, speed)
    shown = {
        key: hit[key]
        for key in (
            "commands",
            "refused",
            "taken",
            "moved",
            "arms",
            "seconds",
            "lines",
            "real_time_factor",
            "load",
            "stalls",
        )
    }
    heard = hit["reflexes"] >= 0
    # Nobody's fault but the simulator's, which had no processor: no state came, libfranka gave up, the guard held and was armed anew.
    silent = sum(_SILENT in line for line in hit["endings"])
    others = max(0, hit["ended"] - silent)
    return {
        f"adversarial{name}_commands": least(hit["commands"], enough),
        f"adversarial{name}_taken": least(hit["taken"], 1, moved_rad=hit["moved"]),
        f"adversarial{name}_limit_violations": most(hit["violations"], 0, speed=speed, **shown),
        f"adversarial{name}_reflexes": most(hit["reflexes"], 0)
        | {"ok": hit["reflexes"] == 0, "heard_the_guard": heard},
        f"adversarial{name}_lost_cycle_lines": most(hit["lost_cycles"], 0),
        f"adversarial{name}_ended_loops": most(
            others, 0, all=hit["ended"], simulator_silent=silent, endings=hit["endings"]
        )
        | {"ok": others == 0 and hit["ended"] >= 0},
    }


def adversarial(seconds: float, speed: float) -> dict[str, Any]:
    """Commands of every bad kind through bridge, guard and arm node against the simulator that enforces limits and lost cycles.

    speed: fraction of the arm's that the guard admits. `reflexes`, `ended` and `refused` are -1 if the guard was never heard.
    """
    return with_chain(None, lambda chain: _attack(chain, seconds), speed=speed)


async def _attack(chain: Any, seconds: float) -> dict[str, Any]:
    from robopref.hardware.observer import wire_status
    from robopref.hardware.rosbridge import Mailbox, RosBridge

    rng, sent, status, stamps = np.random.default_rng(0), 0, Mailbox(), Mailbox()
    async with RosBridge(chain.bridge_url) as bridge:
        bridge.advertise("/robopref/command", "trajectory_msgs/JointTrajectory")
        bridge.advertise("/robopref/control", "std_msgs/String")
        bridge.subscribe("/robopref/status", "std_msgs/String", status)
        bridge.subscribe("/joint_states", "sensor_msgs/JointState", stamps)
        await bridge.wait(30)
        epoch, seq, begin, armed = 0, 0, time.monotonic(), 0.0
        told: dict[str, Any] = {}
        moved, before = 0.0, None
        while time.monotonic() - begin < seconds:
            await asyncio.sleep(float(rng.choice([0.0, 0.02, 0.05, 0.3], p=[0.4, 0.4, 0.19, 0.01])))
            if not status.count or not stamps.count:
                continue
            told = wire_status(status.message["data"])
            if told.get("state") in ("IDLE", "HOLD", "ESTOP") and time.monotonic() - armed > 1.0:
                armed, epoch = time.monotonic(), max(epoch, int(told["epoch"])) + 1
                bridge.publish("/robopref/control", {"data": json.dumps({"op": "reset"})})
                bridge.publish("/robopref/control", {"data": json.dumps({"op": "arm", "epoch": epoch})})
            here = np.array(told.get("target", [0.0] * 7))
            moved, before = moved + (0.0 if before is None else float(np.abs(here - before).max())), here
            seq += 1
            sent += bridge.publish("/robopref/command", _bad(rng, epoch, seq, stamps.message, told))
    found = chain.complaints()
    log = chain.node.log.read_text(errors="replace")
    return {
        "commands": sent, "refused": told.get("refused", -1), "reflexes": told.get("reflexes", -1), "ended": told.get("ended", -1),
        "taken": told.get("commands", -1) - told.get("refused", -1), "moved": round(moved, 2), "arms": epoch,
        "violations": len(found.broken_limits), "lost_cycles": len(found.lost_cycles), "seconds": seconds,
        "lines": (found.broken_limits + found.lost_cycles)[:5], "real_time_factor": found.real_time, "load": os.getloadavg()[0],
        "endings": [line for line in log.splitlines() if "1 kHz loop" in line][:50], "stalls": told.get("stalls", -1),
    }  # fmt: skip


def _bad(
    rng: np.random.Generator, epoch: int, seq: int, joints: dict[str, Any], told: dict[str, Any]
) -> dict[str, Any]:
    """A command: good, far, jumping, NaN as null, short, stale, replayed, of another epoch."""
    from robopref.hardware import command as wire

    now = int(joints["header"]["frame_id"].rpartition("=")[2]) * 1e-6
    target = np.array(told.get("target", [0.0] * 7)) + rng.uniform(-0.3, 0.3, 7)
    kind = rng.integers(10)
    if kind == 0:
        target = rng.uniform(-4, 4, 7)
    if kind == 6:
        target[rng.integers(7)] = np.nan
    stamp = now - (1.0 if kind == 1 else 0.0)
    number = epoch + 1 if kind == 2 else epoch
    message = wire.message(
        wire.Command(number, seq - 5 if kind == 3 else seq, stamp, stamp, target=target, duration=0.05)
    )
    if kind == 4:
        message["points"][0]["positions"] = message["points"][0]["positions"][:6]
    if kind == 5:
        message["joint_names"] = message["joint_names"][::-1]
    if kind == 6:
        message["points"][0]["positions"] = [None if np.isnan(x) else x for x in target.tolist()]
    if kind == 7:
        message["header"]["frame_id"] = "nonsense"
    if kind == 8:
        message["points"][0]["positions"][0] += 0.5  # not what its checksum says
    return message


def with_chain(
    checkpoint: Path | None,
    work: Callable[[Any], Any],
    speed: float = 0.3,
    folder: Path | None = None,
    journal: bool = False,
) -> Any:
    """Run a coroutine on the real chain inside a network of its own. folder: where its logs and `journal` are left."""
    from robopref.hardware.testing.chain import Chain
    from robopref.hardware.testing.environments import build
    from robopref.hardware.testing.network import own_network

    environments = build()
    with (
        TemporaryDirectory() as own,
        own_network(),
        Chain(environments, folder or Path(own), checkpoint, speed, journal) as chain,
    ):
        return asyncio.run(work(chain))
