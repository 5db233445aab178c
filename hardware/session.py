"""A running deployment: the loop with its recorder and page, the goals it plays, and the dataset that is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .action_spaces import ActionSpace, Kind
from .agent import Agent, AgentSettings
from .arm_reach import RADIUS, goal_of, observe, start_of
from .chunk_queue import Mode
from .kinematics import grasp_point
from .operator_view import OperatorView
from .periods import Step
from .policy_client import PolicyClient
from .reasons import State
from .recorder import Recorder, assemble
from .rosbridge import RosBridge

_NEAR = 0.03
"""Radians from its start, in every joint, at which an episode may begin."""
_PATIENCE = 120.0
"""Seconds that the way there may take."""


@dataclass
class Session:
    """One deployment: the loop, and the goals it is given one after the other."""

    agent: Agent
    recorder: Recorder
    goal: np.ndarray
    loop: asyncio.Task[None]
    seed: int = 0
    successes: int = 0
    episodes: int = 0
    ran: int = 0
    """Periods of the open episode in which an action of the policy ran."""
    hit: bool = False
    """Whether the goal was reached in one of them."""

    def recorded(self, step: Step) -> None:
        """Say what the task makes of a period, by the measured grasp point, and hand it to the recorder."""
        if step.reading is not None:
            distance = float(np.linalg.norm(grasp_point(step.reading.q)[:3, 3] - self.goal))
            step.reward, step.success = -distance, step.due is not None and distance <= RADIUS
        self.ran += step.due is not None
        self.hit |= step.success
        self.recorder(step)

    def reached(self) -> bool:
        """Whether the measured grasp point is at the goal."""
        joints = self.agent.joints()
        return joints is not None and float(np.linalg.norm(grasp_point(joints)[:3, 3] - self.goal)) <= RADIUS

    async def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Seconds until a condition holds, infinite if it does not in time; what ended the loop, if anything did, is raised."""
        begin = time.monotonic()
        while not condition():
            if self.loop.done():
                self.loop.result()  # the loop never ends by itself: its error is ours
            if time.monotonic() - begin > seconds:
                return float("inf")
            await asyncio.sleep(0.02)
        return time.monotonic() - begin

    async def start(self, seed: int, seconds: float) -> None:
        """Set the goal of a reset and drive to its start. Raises `InputError` where the arm does not stand there in time."""
        self.goal[:], wanted = goal_of(seed), start_of(seed)
        self.agent.go_home(wanted)

        def there() -> bool:
            joints = self.agent.joints()
            return running(self.agent) and joints is not None and bool(np.abs(joints - wanted).max() < _NEAR)

        if await self.until(there, seconds) == float("inf"):
            raise InputError(
                f"arm: got no start within {seconds:g} s, last status {self.agent.status}, wanted it at {wanted.round(2).tolist()}.\n"
                "Is its way free, the stop released, the bridge there?"
            )
        await asyncio.sleep(0.2)  # the last of the motion

    def begin(self, seed: int, about: dict[str, Any]) -> None:
        """Open an episode's record, and let the policy run."""
        self.ran, self.hit = 0, False
        self.recorder.begin(seed=seed, goal=self.goal.copy(), **about)
        self.agent.go_on()

    async def play(self, seconds: float, episode: float, about: dict[str, Any], replicas: int = 0) -> None:
        """Episodes of at most `episode` seconds until the time is over.

        Each has a goal of its own and begins where the last one ended; or with `replicas` as many have the same, and begin alike.
        """
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.goal[:] = goal_of(self.seed)
            if replicas:
                await self.start(self.seed, _PATIENCE)
            self.begin(self.seed, about)
            took = await self.until(self.reached, min(end - time.monotonic(), episode))
            self.recorder.end(took < float("inf"))
            self.episodes, self.successes = self.episodes + 1, self.successes + (took < float("inf"))
            number += 1
            self.seed += number % max(replicas, 1) == 0


@contextlib.asynccontextmanager
async def session(
    options: dict[str, str], page: socket.socket | None = None, settings: AgentSettings | None = None
) -> AsyncIterator[tuple[Session, OperatorView]]:
    """A running loop with recorder and page; `options` are those of the command line."""
    token, out = os.environ.get("ROBOPREF_TOKEN"), Path(options.get("out", "runs/deploy"))
    mode: Mode = options.get("mode", "real_time")  # type: ignore[assignment]
    kind: Kind = options.get("space", "joint_delta")  # type: ignore[assignment]
    dialect = options.get("dialect", "ros2")
    auto = options.get("auto_arm", "true")
    if auto not in ("true", "false"):
        raise InputError(
            f"auto_arm: got {auto!r}, wanted true, or false for an arm that moves only after Re-arm on the page."
        )
    chosen = settings or AgentSettings(hz=float(options.get("hz", 15)), mode=mode, auto_arm=auto == "true")
    recorder = Recorder(out / "episodes")
    async with (
        RosBridge(options["bridge"], dialect, token=token) as bridge,  # type: ignore[arg-type]
        PolicyClient(options["policy"], token, options.get("hash")) as client,
    ):
        goal = goal_of(0)
        space = ActionSpace(kind, scale=float(options.get("scale", 0.05)))
        sentence = options.get("sentence", "")
        agent = Agent(bridge, client, lambda q: observe(q, goal), space, chosen, sentence=sentence)
        agent.start()
        loop = asyncio.create_task(agent.run())
        live = Session(agent, recorder, goal, loop)
        agent.record = live.recorded
        try:
            async with OperatorView(agent, sock=page) as view:
                yield live, view
        finally:
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)
            recorder.close()


def finish(running: Session, out: Path, hz: float) -> dict[str, Any]:
    """Make the dataset and say how it went."""
    report: dict[str, Any] = {
        **running.agent.tally.report(),
        "episodes": running.episodes,
        "successes": running.successes,
    }
    report |= {"dropped_rows": running.recorder.dropped, "recorder": running.recorder.failure or "fine"}
    store = out / "dataset"
    number = 1
    while store.exists():
        number += 1
        store = out / f"dataset-{number}"
    try:
        report |= {"recorded": assemble(out / "episodes", store, round(hz)), "dataset": str(store)}
    except InputError as error:
        report |= {"recorded": 0, "dataset": str(error)}
    (out / "deploy.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    return report


async def reaches(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until a condition holds; infinite if it does not in time."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            return float("inf")
        await asyncio.sleep(0.005)
    return time.monotonic() - begin


def stopped(agent: Agent) -> bool:
    """Whether the guard holds or stays out of RUNNING, or nothing is heard of it."""
    return agent.status.get("state") != State.RUNNING


def running(agent: Agent) -> bool:
    """Whether the guard runs commands."""
    return agent.status.get("state") == State.RUNNING
