"""A whole chain on a simulated clock: the real agent, arm node and guard, with links and a policy server that break as a fault has it.

`Agent`, `ChunkQueue`, `Observer`, `ArmNode`, `Guard` and `Recorder` are those that run on the robot, stepped by hand in milliseconds; made
up are the arm (it is where it is told to be), the bridge's delays, and the policy server. So a cell takes a fraction of its seconds and
repeats exactly. What is judged is judged by the world's clock (`Truth`).
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..action_spaces import ActionSpace
from ..agent import Agent
from ..arm_reach import HOME, goal_of, observe
from ..drawing import draw, jpeg
from ..franka import PERIOD, ArmNode
from ..guard import Guard
from ..limits import DT
from ..reasons import State
from ..recorder import FINISHED, Recorder, read
from .cell import Cell
from .disk import Disk
from .ends import AGENT_PERIOD, SimulatedBridge, SimulatedPolicy, SimulatedTransport
from .rig import KinematicArm
from .watch import Truth, Watched

_BEGIN, _LASTS, _AFTER = 2.0, 1.5, 2.5
"""Seconds after which the fault begins (up to half a second more), how long it lasts, and how long the cell goes on after it."""
_LONGER = {"frozen_camera_repeats_policy_looks": 2.0}
"""A repeated picture is only known for one once the arm has moved; then the chunk runs to its end."""
STEP = 5.0
"""Seconds by which a clock is off."""
CAMERA_PERIOD = 100
"""Milliseconds between pictures."""


@lru_cache(maxsize=1)
def pictures() -> list[bytes]:
    """JPEGs of a scene in which something always moves."""
    return [jpeg(draw(HOME + 0.1 * np.sin(turn), size=32)) for turn in np.linspace(0, 2 * np.pi, 12, endpoint=False)]


class World:
    """Agent, links, policy server and arm node on one simulated clock.

    folder, disk: where a recorder writes, for faults of its disk. inference: seconds that every answer takes, instead of about 0.09.
    """

    def __init__(
        self,
        fault: str,
        seed: int,
        folder: Path | None = None,
        disk: Disk | None = None,
        *,
        inference: float | None = None,
        guard: Callable[[], Guard] = Guard,
    ) -> None:
        self.fault, self.rng = fault, np.random.default_rng([seed, sum(map(ord, fault))])
        self.truth, self.cell, self.inference = Truth(), Cell(), inference
        self.truth.now = 100.0
        self.begin = self.now + _BEGIN + self.rng.uniform(0, 0.5)
        self.end = self.begin + _LONGER.get(fault, _LASTS)
        self.over = self.end + _AFTER
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sign = 1.0 if seed % 2 else -1.0
        self._offset = 0.0
        self.bridge, self.transport, self.policy = (
            SimulatedBridge(self),
            SimulatedTransport(self),
            SimulatedPolicy(self),
        )
        self.arm, self._guard = KinematicArm(), guard
        self._boot()
        self.goal, self._disk = goal_of(seed), disk
        self.recorder = Recorder(folder) if folder is not None else None
        self.agent = Agent(
            self.bridge,  # type: ignore[arg-type]
            self.policy,  # type: ignore[arg-type]
            lambda q: observe(q, self.goal),
            ActionSpace(),
            record=self.recorder,
            clock=lambda: self.agent_time,
        )
        self.agent.start()

    def _boot(self) -> None:
        """A fresh arm node, which knows no epoch."""
        guard = self._guard()
        watched = Watched(guard, self.truth, self.cell, lambda: self.broken)
        self.node = ArmNode(guard, self.arm, self.transport, watched, now=self.robot_time)

    @property
    def now(self) -> float:
        """Seconds of the world's clock."""
        return self.truth.now

    @property
    def robot_time(self) -> float:
        """The monotonic clock of the robot's machine: a machine that was suspended or moved steps, one that was started anew begins at zero."""
        return self.now + self._offset + (self._sign * STEP if self.broken and self.fault == "clock_step_robot" else 0)

    @property
    def agent_time(self) -> float:
        """The monotonic clock of the agent's machine."""
        return self.now + (self._sign * STEP if self.broken and self.fault == "clock_step_agent" else 0.0)

    @property
    def wall(self) -> float:
        """The wall clock of the robot's machine, which stamps its messages."""
        return self.robot_time + (self._sign * STEP if self.broken and self.fault == "clock_step" else 0.0)

    @property
    def broken(self) -> bool:
        """Whether the fault is on."""
        return self.begin <= self.now < self.end

    def to_robot(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the agent arrives."""
        self.transport.arrived(topic, message)

    def to_agent(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the robot arrives."""
        self.bridge.heard[topic](message)

    def run(self) -> Cell:
        """Play the whole cell, millisecond by millisecond."""
        tick, was = 0, False
        if self.recorder is not None:  # one episode is finished before the fault, one is open
            self.recorder.begin(task="arm-reach")
            self.later(_BEGIN / 2, lambda: self.recorder.begin(task="arm-reach"))  # type: ignore[union-attr]
        while self.now < self.over:
            self.truth.now += DT
            tick += 1
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if self.broken is not was:
                was = self.broken
                self._turn(was)
            if tick % round(PERIOD / DT) == 0:
                self.node.cycle(self.robot_time)
                if self.node._recovery is not None:  # a thread: let it end at the same moment in every run
                    self.node._recovery.exception()
            if tick % CAMERA_PERIOD == 0:
                self._look(tick // CAMERA_PERIOD)
            if tick % AGENT_PERIOD == 0:
                self._period()
        self.cell.again = self.node.guard.state is State.RUNNING
        if self.recorder is not None:
            self.recorder.close()
            self.cell.recorder = self.recorder.failure
            episodes = [list(read(path)) for path in self.recorder.folder.glob(f"*{FINISHED}")]
            self.cell.whole = sum(rows[0]["row"] == "begin" and rows[-1]["row"] == "end" for rows in episodes)
        return self.cell

    def _period(self) -> None:
        """One step of the agent: was a chunk adopted, and was anything sent?"""
        sent = self.bridge.commands
        step = self.agent.step()
        if step.adopted is not None:
            self.cell.adopted += 1
            self.cell.adopted_age = max(self.cell.adopted_age, self.now - self.policy.shown(step.adopted))
        self.cell.idle += 0 < sent == self.bridge.commands
        self.cell.commands = self.bridge.commands

    def _look(self, number: int) -> None:
        """The camera: silent, or a driver that repeats its last picture."""
        if self.broken and self.fault.startswith("frozen_camera"):
            if "repeats" not in self.fault:
                return
            number = round((self.begin - 100.0) / DT) // CAMERA_PERIOD
        self.transport.show(pictures()[number % len(pictures())])

    def _turn(self, broken: bool) -> None:
        """The fault begins, or is mended."""
        if self.fault.startswith("guard_restart") and broken:
            if self.fault == "guard_restart_clock_zero":
                self._offset = 1.0 - self.now
            if self.fault == "guard_restart_reflex":  # nobody feeds the 1 kHz stream: the arm brakes and complains
                self.arm.loop, self.arm.mode = False, 4
            self._boot()
        if self.fault == "bridge_killed":
            self.bridge.connected = not broken
            for listener in [] if broken else self.bridge.on_connect:
                listener()
        if self.recorder is not None and self._disk is not None:
            self._written()
            if broken:
                self._disk.fill()
            else:
                self._disk.free()
                self.recorder.begin(task="arm-reach")

    def _written(self) -> None:
        """Wait until the recorder's thread has nothing left to write: it lives on another clock."""
        assert self.recorder is not None
        while not self.recorder._queue.empty():
            time.sleep(1e-3)

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Run `what()` after some seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def link(self, deliver: Callable[[], None], command: int | None = None) -> None:
        """One message over the bridge, as the fault has it; `command`: how many commands were sent with it, where it is one."""
        delay = float(self.rng.gamma(2.0, 0.001))
        if self.broken:
            if self.fault in ("bridge_killed", "bridge_half_open"):
                return
            if self.fault == "bridge_drop_30" and self.rng.random() < 0.3:
                return
            delay += {"bridge_delay_50": 0.05, "bridge_delay_500": 0.5}.get(self.fault, 0.0)
            if self.fault == "bridge_reordered":  # every fourth command is surely overtaken by the next
                place = 0 if command is None else command % 4
                delay += (float(self.rng.uniform(0, 0.12)), 0.075, 0.0, 0.0)[place]
            if self.fault == "bridge_duplicated":
                self.later(delay + 0.02, deliver)
        self.later(delay, deliver)
