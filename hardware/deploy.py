"""`robopref deploy`: the control loop on an arm, its recorder and the operator's page; `--demo` with everything on this machine."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

from .arm_reach import TASK
from .request import Request, check_keys, number, request_of
from .session import Session, finish, session

EPISODE = 8.0


def main(words: list[str]) -> int:
    """Run a deployment from the words of the command line."""
    demo = "--demo" in words
    plain = [word for word in words if word != "--demo"]
    options = dict(word.split("=", 1) for word in plain if "=" in word)
    check_keys(options, [word for word in plain if "=" not in word])
    if demo:
        from .testing.demo import demo as run_demo

        return run_demo(options)
    report = asyncio.run(_deploy(request_of(options), options))
    print(json.dumps(report, indent=2))
    return 0


async def _deploy(request: Request, options: dict[str, str]) -> dict[str, Any]:
    async with session(request) as (running, view):
        print(f"operator's page: {view.url}", flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = asyncio.create_task(_play(running, request, options))
        await asyncio.wait([work, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        running.agent.retire()
        await asyncio.sleep(0.3)
    return finish(running, request.out, request.hz)


async def _play(running: Session, request: Request, options: dict[str, str]) -> None:
    about = {"task": options.get("task", TASK), "env": "franka", "policy_hash": request.hash}
    seconds = number("seconds", options.get("seconds", "inf"), 0.0)
    episode = number("episode", options.get("episode", str(EPISODE)), 0.0)
    await running.play(seconds, episode, about, int(number("replicas", options.get("replicas", "0"), 0)))
