"""The rows that need the real peers: libfranka's model, adversarial commands, and a soak of the whole chain."""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robopref.arrays import InputError

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


def adversarial(seconds: float) -> dict[str, Any]:
    """Commands of every bad kind through bridge, guard and arm node against the simulator that enforces limits and lost cycles."""
    return _with_chain(None, lambda chain: _attack(chain, seconds))


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
        while time.monotonic() - begin < seconds:
            await asyncio.sleep(float(rng.choice([0.0, 0.02, 0.05, 0.3], p=[0.4, 0.4, 0.19, 0.01])))
            if not status.count or not stamps.count:
                continue
            told = wire_status(status.message["data"])
            if told.get("state") in ("IDLE", "HOLD", "ESTOP") and time.monotonic() - armed > 1.0:
                armed, epoch = time.monotonic(), max(epoch, int(told["epoch"])) + 1
                bridge.publish("/robopref/control", {"data": json.dumps({"op": "reset"})})
                bridge.publish("/robopref/control", {"data": json.dumps({"op": "arm", "epoch": epoch})})
            seq += 1
            sent += bridge.publish("/robopref/command", _bad(rng, epoch, seq, stamps.message, told))
    found = chain.complaints()
    return {
        "commands": sent, "refused": told.get("refused", -1), "reflexes": told.get("reflexes", -1), "ended": told.get("ended", -1),
        "violations": len(found.broken_limits), "seconds": seconds, "lines": (found.broken_limits + found.lost_cycles)[:5],
        "real_time_factor": found.real_time,
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


def soak(seconds: float) -> dict[str, Any]:
    """The whole chain with a real diffusion policy: percentiles of the loop, growth of this process."""
    from robopref.checkpoint import save

    from ._hardware_chunking import policy

    with TemporaryDirectory() as folder:
        save(policy(), Path(folder) / "policy")
        return _with_chain(Path(folder) / "policy", lambda chain: _soak(chain, seconds, Path(folder)))


async def _soak(chain: Any, seconds: float, folder: Path) -> dict[str, Any]:
    from robopref.hardware.session import reaches, running, session

    options = {"bridge": chain.bridge_url, "policy": chain.policy_url, "out": str(folder / "out")}
    async with session(options) as (live, _):
        if await reaches(lambda: running(live.agent), 120.0) == float("inf"):
            raise InputError(f"soak: got no running arm within 120 s, wanted one; last status {live.agent.status}")
        await live.play(5.0, 8.0, {"task": "arm-reach"})
        live.agent.tally = type(live.agent.tally)()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await live.play(seconds, 8.0, {"task": "arm-reach"})
        report: dict[str, Any] = dict(live.agent.tally.report())
    report["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report["real_time_factor"] = chain.complaints().real_time
    report["missed_share"] = report["missed"] / max(report["steps"], 1)
    return report


def _with_chain(checkpoint: Path | None, work: Callable[[Any], Any]) -> Any:
    """Run a coroutine on the real chain inside a network of its own."""
    from robopref.hardware.testing.chain import Chain
    from robopref.hardware.testing.environments import build
    from robopref.hardware.testing.network import own_network

    environments = build()
    with TemporaryDirectory() as folder, own_network(), Chain(environments, Path(folder), checkpoint) as chain:
        return asyncio.run(work(chain))
