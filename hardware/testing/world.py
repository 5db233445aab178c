"""A whole chain on a simulated clock: the real agent, arm node and guard, with links and a policy server that break as a fault has it.

`Agent`, `ChunkQueue`, `Observer`, `ArmNode` and `Guard` are those that run on the robot, stepped by hand in milliseconds; made up are the arm
(it is where it is told to be), the bridge's delays, and the policy server. So a cell takes a fraction of its seconds and repeats exactly.
"""

from __future__ import annotations

import errno
import heapq
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..action_spaces import ActionSpace
from ..agent import Agent
from ..arm_reach import HOME, goal_of, observe
from ..drawing import draw, jpeg
from ..franka import PERIOD, ArmNode
from ..guard import Guard, Output
from ..journal import Journal
from ..limiter import Motion
from ..limits import DT
from ..reasons import REFUSED, State, names
from ..recorder import Recorder
from .cell import Cell
from .ends import AGENT_PERIOD, SimulatedBridge, SimulatedPolicy, SimulatedTransport
from .rig import KinematicArm

_BEGIN, _END, _OVER = 2.0, 3.5, 6.0
"""Seconds at which the fault begins and is mended, and at which the cell ends."""


CAMERA_PERIOD = 100
"""Milliseconds between pictures."""
PICTURE = jpeg(draw(HOME, size=32))


class _FullDisk:
    """A folder of a disk on which nothing more can be written."""

    def iterdir(self) -> Any:
        """Raises `OSError`."""
        raise OSError(errno.ENOSPC, "No space left on device")


class Watched(Journal):
    """Passes calls on to a guard and judges every millisecond of it."""

    def __init__(self, guard: Guard, world: World) -> None:
        super().__init__(guard, None)
        self._world, self._target, self._from = world, HOME, HOME
        self._stopping = False

    def call(self, name: str, *arguments: Any) -> Any:
        """`guard.name(*arguments)`."""
        before, state = self.guard.motion, self.guard.state
        result = super().call(name, *arguments)
        if name == "receive" and not result & REFUSED:
            self._world.valid, self._from, self._target = arguments[1], before.q.copy(), self.guard._target.copy()
        if name == "receive" and self._world.broken:
            self._world.cell.reasons |= set(names(result))
        if name == "tick":
            self._tick(before, state, result, arguments[0])
        return result

    def _tick(self, before: Motion, state: State, output: Output, now: float) -> None:
        cell, after, limits = self._world.cell, output.motion, self.guard.limits
        cell.violations += int((np.abs(after.a) > limits.a_max + 1e-9).sum())
        cell.violations += int((np.abs(after.a - before.a) > limits.j_max * DT + 1e-6).sum())
        cell.violations += int(((after.q > limits.q_max) | (after.q < limits.q_min)).sum())
        if self._world.broken:
            cell.reasons |= set(names(output.reason | self.guard.why))
            if cell.during != State.HOLD or self.guard.state is not State.RUNNING:
                cell.during = str(self.guard.state)
        self._stopping |= state is State.RUNNING and output.state is State.HOLD
        if self._stopping and after.still:
            self._stopping = False
            cell.stop = max(cell.stop, now - self._world.valid)
            beyond = (after.q - self._target) * np.sign(self._target - self._from)
            cell.overshoot = max(cell.overshoot, float(beyond.max()))


class World:
    """Agent, links, policy server and arm node on one simulated clock. `folder`: where a recorder writes, for faults of its disk."""

    def __init__(self, fault: str, seed: int, folder: Path | None = None) -> None:
        self.fault, self.rng = fault, np.random.default_rng([seed, sum(map(ord, fault))])
        self.now, self.cell = 100.0, Cell()
        self.begin = self.now + _BEGIN + self.rng.uniform(0, 0.5)
        self.end, self.over = self.begin + _END - _BEGIN, self.begin + _OVER - _BEGIN
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.valid = -1.0
        """When the guard last took a command."""
        self.bridge, self.transport, self.policy = (
            SimulatedBridge(self),
            SimulatedTransport(self),
            SimulatedPolicy(self),
        )
        self.arm = KinematicArm()
        self._boot()
        goal = goal_of(seed)
        self.recorder = Recorder(folder) if folder is not None else None
        self.agent = Agent(
            self.bridge,  # type: ignore[arg-type]
            self.policy,  # type: ignore[arg-type]
            lambda q: observe(q, goal),
            ActionSpace(),
            record=self.recorder,
            clock=lambda: self.now,
        )
        self.agent.start()

    def _boot(self) -> None:
        """A fresh arm node, which knows no epoch."""
        guard = Guard()
        self.node = ArmNode(guard, self.arm, self.transport, Watched(guard, self), now=self.now)

    @property
    def wall(self) -> float:
        """Seconds that the robot's wall clock, which stamps its messages, is off: five while it is wrong."""
        return float(self.rng.choice([-5.0, 5.0])) if self.broken and self.fault == "clock_step" else 0.0

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
        while self.now < self.over:
            self.now += DT
            tick += 1
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if self.broken is not was:
                was = self.broken
                self._turn(was)
            if tick % round(PERIOD / DT) == 0:
                self.node.cycle(self.now)
            if tick % CAMERA_PERIOD == 0 and not (self.broken and self.fault.startswith("frozen_camera")):
                self.transport.show(PICTURE)
            if tick % AGENT_PERIOD == 0:
                self.agent.step()
        tally, self.cell.again = self.agent.tally, self.node.guard.state is State.RUNNING
        self.cell.adopted_age, self.cell.action_age = max(tally.adopted_ages), max(tally.action_ages)
        if self.recorder is not None:
            self.recorder.close()
            self.cell.recorder = self.recorder.failure
        return self.cell

    def _turn(self, broken: bool) -> None:
        """The fault begins, or is mended."""
        if self.fault == "guard_restart" and broken:
            self._boot()
        if self.fault == "bridge_killed":
            self.bridge.connected = not broken
            for listener in [] if broken else self.bridge.on_connect:
                listener()
        if self.recorder is not None and broken:
            self.recorder.folder = _FullDisk()  # type: ignore[assignment]
            self.recorder.begin(task="arm-reach")

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Run `what()` after some seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def link(self, deliver: Callable[[], None]) -> None:
        """One message over the bridge, as the fault has it."""
        delay = float(self.rng.gamma(2.0, 0.001))
        if self.broken:
            if self.fault in ("bridge_killed", "bridge_half_open"):
                return
            if self.fault == "bridge_drop_30" and self.rng.random() < 0.3:
                return
            delay += {"bridge_delay_50": 0.05, "bridge_delay_500": 0.5}.get(self.fault, 0.0)
            if self.fault == "bridge_reordered":
                delay += float(self.rng.uniform(0, 0.12))
            if self.fault == "bridge_duplicated":
                self.later(delay + 0.02, deliver)
        self.later(delay, deliver)
