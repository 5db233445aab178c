"""`robopref deploy`: the control loop on an arm, its recorder and the operator's page; `--demo` with everything on this machine."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

from robopref.arrays import InputError

from .session import Session, finish, session

KEYS = (
    "bridge",
    "policy",
    "checkpoint",
    "out",
    "seconds",
    "episode",
    "replicas",
    "hz",
    "mode",
    "space",
    "scale",
    "dialect",
    "hash",
    "sentence",
    "auto_arm",
)
EPISODE = 8.0


def main(words: list[str]) -> int:
    """Run a deployment from the words of the command line."""
    demo = "--demo" in words
    plain = [word for word in words if word != "--demo"]
    options = dict(word.split("=", 1) for word in plain if "=" in word)
    unknown = [word for word in plain if "=" not in word] + [key for key in options if key not in KEYS]
    if unknown:
        raise InputError(
            f"deploy: unknown {unknown[0]!r}. Known: --demo, {', '.join(KEYS)}.\nsee `robopref deploy --help`"
        )
    if demo:
        from .testing.demo import demo as run_demo

        return run_demo(options)
    for key in ("bridge", "policy"):
        if key not in options:
            raise InputError(
                f"deploy: got no {key}, wanted {key}=ws://HOST:PORT, or --demo\nsee `robopref deploy --help`"
            )
    report = asyncio.run(_deploy(options))
    print(json.dumps(report, indent=2))
    return 0


async def _deploy(options: dict[str, str]) -> dict[str, Any]:
    async with session(options) as (running, view):
        print(f"operator's page: {view.url}", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = asyncio.create_task(_play(running, options))
        await asyncio.wait([work, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        running.agent.retire()
        await asyncio.sleep(0.3)
    return finish(running, Path(options.get("out", "runs/deploy")), float(options.get("hz", 15)))


async def _play(running: Session, options: dict[str, str]) -> None:
    about = {"task": "arm-reach", "env": "franka", "policy_hash": options.get("hash", "")}
    seconds = float(options.get("seconds", "inf"))
    episode, replicas = float(options.get("episode", EPISODE)), int(options.get("replicas", 0))
    await running.play(seconds, episode, about, replicas)
