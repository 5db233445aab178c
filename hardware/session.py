"""A running deployment: the loop with its recorder and page, the goals it plays, and the dataset that is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .agent import Agent, AgentSettings
from .driver import DriverLink
from .operator_view import OperatorView
from .periods import Step
from .policy_client import PolicyClient
from .reasons import State
from .recorder import Recorder, assemble
from .request import Request
from .rosbridge import RosBridge
from .scene import Scene
from .views import opening_of

_NEAR = 0.03
"""Radians from its start, in every joint, at which an episode may begin."""
_PATIENCE = 120.0
"""Seconds that the way there may take."""


@dataclass
class Session:
    """One deployment: the loop, and the goals it is given one after the other."""

    agent: Agent
    recorder: Recorder
    scene: Scene
    loop: asyncio.Task[None]
    driver: DriverLink | None = None
    seed: int = 0
    successes: int = 0
    episodes: int = 0
    ran: int = 0
    """Periods of the open episode in which an action of the policy ran."""
    hit: bool = False
    """Whether the goal was reached in one of them."""
    makers: set[str] = field(default_factory=set)
    """Hashes of the policies whose chunks were adopted in the open episode, as their server says."""

    @property
    def goal(self) -> np.ndarray:
        """The goal (3,), metres, base frame; the same array all along."""
        return self.scene.goal

    def recorded(self, step: Step) -> None:
        """Say what the task makes of a period, by what is measured, and hand it to the recorder."""
        distance = None if step.reading is None else self.distance(step.reading.q)
        if distance is not None:
            step.reward, step.success = -distance, step.due is not None and distance <= self.scene.view.radius
        if step.adopted is not None:
            self.makers.add(str(self.agent.client.metadata.get("robopref/policy_hash", "")))
        self.ran += step.due is not None
        self.hit |= step.success
        self.recorder(step)

    def reached(self) -> bool:
        """Whether what is measured is at the goal."""
        joints = self.agent.joints()
        distance = None if joints is None else self.distance(joints)
        return distance is not None and distance <= self.scene.view.radius

    def distance(self, q: np.ndarray) -> float | None:
        """Metres left to the goal with the arm at q (7,), or None while the scene is not known."""
        sensed = self.scene.sensed(q)
        return None if sensed is None else self.scene.view.distance(sensed)

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
        self.scene.aim(seed)
        wanted = self.scene.view.start_of(seed)
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
        self.ran, self.hit, self.makers = 0, False, set()
        self.recorder.begin(seed=seed, goal=self.goal.copy(), **about)
        self.agent.go_on()

    def end(self, success: bool) -> None:
        """Close the episode's record, with the hash of the policy that ran; of several with all of them, which no alignment takes."""
        self.recorder.end(success, policy_hash="+".join(sorted(self.makers)))
        self.episodes, self.successes = self.episodes + 1, self.successes + success

    async def play(self, seconds: float, episode: float, about: dict[str, Any], replicas: int = 0) -> None:
        """Episodes of at most `episode` seconds until the time is over.

        Each has a goal of its own and begins where the last one ended; or with `replicas` as many have the same, and begin alike.
        """
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            self.scene.aim(self.seed)
            if replicas:
                await self.start(self.seed, _PATIENCE)
            self.begin(self.seed, about)
            took = await self.until(self.reached, min(end - time.monotonic(), episode))
            self.end(took < float("inf"))
            number += 1
            self.seed += number % max(replicas, 1) == 0


@contextlib.asynccontextmanager
async def session(
    request: Request, page: socket.socket | None = None, settings: AgentSettings | None = None
) -> AsyncIterator[tuple[Session, OperatorView]]:
    """A running loop with recorder and page."""
    token = os.environ.get("ROBOPREF_TOKEN")
    recorder = Recorder(request.out / "episodes")
    async with (
        RosBridge(request.bridge, request.dialect, token=token, ssl=request.ssl) as bridge,
        PolicyClient(request.policy, token, request.hash or None) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        view, link = request.view, None
        scene = Scene(view, request.goal, request.objects, lambda: _opening(agent, link))
        chosen = settings or AgentSettings(hz=request.hz, mode=request.mode, auto_arm=request.auto_arm)
        agent = Agent(
            bridge, client, scene.observe, view.space, chosen, request.topics, sentence=request.sentence
        )  # fmt: skip
        agent.start()
        scene.subscribe(bridge)
        if request.driver is not None:
            link = DriverLink(bridge, request.driver, lambda: agent.status)
            link.start()
            stack.push_async_callback(_end, asyncio.create_task(link.run()))
        loop = asyncio.create_task(agent.run())
        live = Session(agent, recorder, scene, loop, driver=link)
        agent.record = live.recorded
        try:
            async with OperatorView(agent, sock=page) as shown:
                yield live, shown
        finally:
            await _end(loop)
            recorder.close()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _opening(agent: Agent, link: DriverLink | None) -> float | None:
    """The hand's opening as its driver measures it, else what the guard told it to be."""
    measured = None if link is None else link.opening()
    width = agent.status.get("gripper")
    if measured is None and isinstance(width, int | float):
        return opening_of(float(width))
    return measured


def finish(running: Session, out: Path, hz: float) -> dict[str, Any]:
    """Make the dataset and say how it went."""
    report: dict[str, Any] = {
        **running.agent.tally.report(),
        "episodes": running.episodes,
        "successes": running.successes,
    }
    if running.driver is not None:
        link = running.driver
        told = {"hand_moves": link.moves, "recoveries": link.recoveries, "refused": link.refused, **link.told()}
        report["driver"] = told
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
