"""Rounds on an arm: a policy folder plays episodes from given resets, through the whole chain, and leaves them as a trajectory store.

An experiment comes here by its `arm._target_`: what is recorded is what people or teachers compare and what the policy is aligned on.
Every policy is served by a process of its own and runs by its hash. Before each episode the arm drives to the reset's start, behind the
same guard as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.checkpoint import fingerprint
from robopref.progress import track

from .arm_reach import HOME, TASK
from .chunk_queue import Mode
from .periods import AgentSettings
from .recorder import assemble
from .request import Request
from .rosbridge import RosBridge
from .scene import place
from .session import Session, session, stopped
from .testing import processes
from .testing.chain import Chain
from .testing.environments import build
from .testing.network import own_network
from .testing.rig import camera
from .views import Reach, View

_TRIES = 3
"""How often an episode is begun in which the arm could not be run, before that is an error."""


@dataclass(frozen=True)
class Served:
    """Where an arm and the server of a policy are, and what the simulator says of how it went."""

    bridge: str
    policy: str
    told: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Arm:
    """An arm that plays episodes in its own time; see `robopref.protocols.Arm`.

    bridge: address of the arm's rosbridge; None: the simulated arm, started here with bridge, arm node and policy server (and its
    environments built, the first time). A token comes from ROBOPREF_TOKEN. server: further words for `robopref serve`.
    robot: what the policy sees and what its actions mean, a preset of `conf/robot/`; the environment has the same one.
    """

    bridge: str | None = None
    horizon: int = 60
    hz: float = 15.0
    mode: Mode = "real_time"
    robot: View = field(default_factory=Reach)
    goal: str | None = None
    objects: Sequence[str] = ()
    """/TOPIC or X:Y:Z of what a real arm cannot measure; the simulated arm's objects lie where the view says."""
    speed: float = 0.3
    """Share of the arm's velocity limits that the guard of the simulated arm allows; a real one's node has its own."""
    pictures: float = 5.0
    """Pictures per second of the simulated arm's camera, for people who compare; 0 for none."""
    observation_age: float = 0.1
    adopt_age: float = 0.3
    """See `AgentSettings`."""
    patience: float = 120.0
    """Seconds that an episode's beginning may take."""
    server: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.horizon < 1 or self.hz <= 0 or self.patience <= 0 or self.pictures < 0:
            raise InputError(
                f"arm: got horizon={self.horizon}, hz={self.hz}, pictures={self.pictures}, patience={self.patience}, "
                "wanted horizon >= 1, pictures >= 0, the others above 0."
            )
        if self.bridge is None and self.robot.space.limits.name != "fr3":
            raise InputError(
                f"arm: got robot.arm={self.robot.space.limits.name} without arm.bridge, wanted fr3: the simulated arm is one."
            )

    def play(self, policy: Path, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
        """Play one episode per reset seed; leaves `folder`/store with a trajectory for each, in that order.

        Returns what the loop lived through: latencies, holds, broken limits, and the pace of a simulated arm. Raises `InputError` when
        an episode cannot be begun, and where a part of the chain does not start.
        """
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as page, self._chain(policy.resolve(), folder) as served:
            objects = [place("objects", one) for one in self.objects] or (
                self.robot.resting() if not self.bridge else []
            )
            request = Request(
                served.bridge, served.policy, folder, fingerprint(policy), self.hz, self.mode, self.robot,
                goal=None if self.goal is None else place("goal", self.goal),
                objects=tuple(objects),
            )  # fmt: skip
            report = asyncio.run(self._play(request, seeds, page))
            report |= served.told()
        store = folder / "store"
        recorded = assemble(folder / "episodes", store, round(self.hz))
        if recorded != len(seeds):
            raise InputError(f"arm: got {recorded} recorded episodes, wanted {len(seeds)}.\nSee {folder}.")
        return report

    @contextlib.contextmanager
    def _chain(self, policy: Path, folder: Path) -> Iterator[Served]:
        """The policy's server, and where no bridge is given the simulated arm in a network of its own."""
        logs = folder / "processes"
        if self.bridge is not None:
            port = processes.free_port()
            words = [f"checkpoint={policy}", f"port={port}", *self.server]
            with processes.own_program(logs, "robopref.cli", "serve", *words) as server:
                server.wait_for_port(port, 600.0)
                yield Served(self.bridge, f"ws://127.0.0.1:{port}", dict)
            return
        environments = build()
        with own_network(), Chain(environments, logs, policy, self.speed, server=self.server) as chain:

            def told() -> dict[str, Any]:
                found = chain.complaints()
                return {
                    "broken_limits": len(found.broken_limits),
                    "lost_cycles": len(found.lost_cycles),
                    "real_time": found.real_time,
                }

            yield Served(chain.bridge_url, chain.policy_url, told)

    async def _play(self, request: Request, seeds: Sequence[int], page: socket.socket) -> dict[str, Any]:
        period = 1.0 / self.pictures if self.pictures else 0.1
        settings = AgentSettings(
            self.hz, self.mode, observation_age=self.observation_age, adopt_age=self.adopt_age, camera_period=period
        )
        paces: list[float] = []
        async with session(request, page, settings) as (live, view), contextlib.AsyncExitStack() as stack:
            print(f"operator's page: {view.url}", flush=True)
            if self.bridge is None and self.pictures:
                eye = await stack.enter_async_context(RosBridge(request.bridge))
                watch = asyncio.create_task(camera(eye, lambda: _seen(live), live.goal, self.pictures))
                stack.callback(watch.cancel)
            for seed in track(seeds, "episodes on the arm"):
                paces.append(await self._episode(live, seed, request.hash))
            live.agent.retire()
            await live.until(lambda: stopped(live.agent), 3.0)
            report = {name: value for name, value in live.agent.tally.report().items() if value == value}  # none is nan
        return {
            **report, "episodes": live.episodes, "successes": live.successes, "dropped_rows": live.recorder.dropped,
            "seconds_per_episode": round(statistics.fmean(paces), 2), "load": list(os.getloadavg()),
        }  # fmt: skip

    async def _episode(self, live: Session, seed: int, policy_hash: str) -> float:
        """One episode of `horizon` periods; returns its seconds. It is begun anew where the arm stood still all along."""
        about = {"task": TASK, "env": "arm" if self.bridge else "franka-sim", "policy_hash": policy_hash}
        longest = 3 * self.horizon / self.hz + 20.0
        for _ in range(_TRIES):
            await live.start(seed, self.patience)
            live.begin(seed, about)
            took = await live.until(lambda: live.ran >= self.horizon, longest)
            if live.ran:
                live.end(live.hit)
                return min(took, longest)
            live.recorder.drop()
        raise InputError(
            f"arm: got no command of the policy in {_TRIES} tries, last status {live.agent.status}, wanted it to run."
        )


def _seen(live: Session) -> np.ndarray:
    """Where the camera sees the arm."""
    joints = live.agent.joints()
    return HOME if joints is None else joints
