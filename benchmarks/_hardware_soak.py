"""The whole chain at 15 Hz with a real diffusion policy: percentiles of the loop by clocks of one machine, memory of all its processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from robopref.arrays import InputError

_TRAIN = """
import sys
from pathlib import Path
from robopref.benchmarks._hardware_chunking import policy
from robopref.checkpoint import save
save(policy(), Path(sys.argv[1]))
"""


@lru_cache(maxsize=1)
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()  # it goes when this process ends


@lru_cache(maxsize=1)
def trained() -> Path:
    """The reaching policy, trained in a process of its own, whose memory is given back before anything is measured."""
    path = Path(_folder().name) / "policy"
    done = subprocess.run([sys.executable, "-c", _TRAIN, str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"policy: got none, wanted one trained\n{done.stderr[-1500:]}")
    return path


def soak(seconds: float, every: float = 60.0) -> dict[str, Any]:
    """Run the chain for some seconds, and look at the memory of its processes `every` so many."""
    from ._hardware_live import with_chain

    policy = trained()
    with TemporaryDirectory() as folder:
        return with_chain(policy, lambda chain: _soak(chain, seconds, every, Path(folder)))


async def _soak(chain: Any, seconds: float, every: float, folder: Path) -> dict[str, Any]:
    from robopref.hardware.request import request_of
    from robopref.hardware.session import reaches, running, session

    from ._hardware_memory import Memory

    options = {"bridge": chain.bridge_url, "policy": chain.policy_url, "out": str(folder / "out")}
    parts = {"simulator": chain.simulator, "bridge": chain.bridge, "node": chain.node, "server": chain.server}
    memory, ages = Memory({name: part.pid for name, part in parts.items()}), list[float]()
    async with session(request_of(options)) as (live, _):
        if await reaches(lambda: running(live.agent), 120.0) == float("inf"):
            raise InputError(f"soak: got no running arm within 120 s, wanted one; last status {live.agent.status}")
        await live.play(5.0, 8.0, {"task": "arm-reach"})
        live.agent.tally = type(live.agent.tally)()
        live.agent.record = _ageing(live.agent.record, ages)
        looking = asyncio.create_task(_look(memory, every))
        await live.play(seconds, 8.0, {"task": "arm-reach"})
        memory.look()
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        report: dict[str, Any] = dict(live.agent.tally.report())
    report |= {"memory_mb": memory.growth, "memory": memory.sizes, "real_time_factor": chain.complaints().real_time}
    report |= {"missed_share": report["missed"] / max(report["steps"], 1), "load": os.getloadavg()[0]}
    report["robot_ages_p99_ms"] = 1000 * float(np.percentile(ages, 99)) if ages else float("inf")
    return report


def _ageing(record: Any, ages: list[float]) -> Any:
    """Note, before each period of the loop is recorded, how old its joint state is by the stamp of the robot, whose clock is this machine's."""

    def recorded(step: Any) -> None:
        if step.sent >= 0:
            ages.append(time.monotonic() - step.reading.stamp)
        record(step)

    return recorded


async def _look(memory: Any, every: float) -> None:
    while True:
        memory.look()
        await asyncio.sleep(every)
