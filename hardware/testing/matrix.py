"""The fault matrix: every fault of `faults.yaml` on a whole chain in one process, on a clock of our own, seed by seed.

Time is simulated: agent, bridge, policy server and guard are stepped by hand in milliseconds, with the same `Guard`, `ChunkQueue`,
`ActionSpace` and message texts that run on the robot, so a cell takes a fraction of its seconds and repeats exactly. The processes
themselves are broken in `demo.py`.
"""

from __future__ import annotations

import copy
import heapq
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .. import command as wire
from ..action_spaces import ActionSpace
from ..arm_reach import HOME
from ..chunk_queue import ChunkQueue
from ..guard import Guard
from ..limits import DT
from ..policy_client import chunk_of
from ..reasons import REFUSED, Reason, State, names

HORIZON, EXECUTE, WIDTH = 16, 8, 7
PERIOD_MS = 67
EXPECTED = Path(__file__).with_name("faults.yaml")
_BEGIN, _END, _OVER = 2.0, 3.5, 6.0
"""Seconds at which the fault begins and is mended, and at which the cell ends."""


@dataclass
class Cell:
    """What happened in one run of one fault."""

    during: str = ""
    reasons: set[str] = field(default_factory=set)
    again: bool = False
    stop: float = 0.0
    """Seconds from the last valid command to standstill, 0 if the arm never stopped."""
    overshoot: float = 0.0
    adopted_age: float = 0.0
    action_age: float = 0.0
    violations: int = 0


class World:
    """Agent, links, policy server and guard on one simulated clock."""

    def __init__(self, fault: str, seed: int) -> None:
        self.fault, self.rng = fault, np.random.default_rng([seed, sum(map(ord, fault))])
        self.now, self.cell = 100.0, Cell()
        self.begin = self.now + _BEGIN + self.rng.uniform(0, 0.5)
        self.end, self.over = self.begin + _END - _BEGIN, self.begin + _OVER - _BEGIN
        self._events: list[tuple[float, int, Any]] = []
        self._order = itertools.count()
        self._boot()
        self.queue, self.space = ChunkQueue(HORIZON, EXECUTE), ActionSpace()
        self.epoch = self.seq = self.step = self.chunk = 0
        self.before: np.ndarray | None = None
        self.status: dict[str, Any] = {}
        self.state: tuple[float, np.ndarray] | None = None
        self.heard = -1.0
        self.asked: dict[int, tuple[int, float, float]] = {}
        self.stamps: dict[int, float] = {}
        self.phase = self.rng.uniform(0, 2 * np.pi, 7)
        self.armed_at = self.valid = -1.0
        self.standing = 0.0
        self.last_target = HOME

    def _boot(self) -> None:
        self.guard = Guard()
        self.guard.link(True, self.now)
        self.guard.follow(HOME if not hasattr(self, "last_q") else self.last_q)

    @property
    def broken(self) -> bool:
        """Whether the fault is on."""
        return self.begin <= self.now < self.end

    def later(self, seconds: float, what: Any) -> None:
        """Run `what()` after some seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def run(self) -> Cell:
        """Play the whole cell, millisecond by millisecond."""
        tick, restarted = 0, False
        while self.now < self.over:
            self.now += DT
            tick += 1
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            if self.fault == "guard_restart" and self.broken and not restarted:
                restarted, self.last_q = True, self.guard.motion.q.copy()
                self._boot()
            self._tick()
            if tick % 10 == 0:
                self._tell()
            if tick % PERIOD_MS == 0:
                self._period()
        self.cell.again = self.guard.state is State.RUNNING
        return self.cell

    # The robot's side ------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        before, state = self.guard.motion, self.guard.state
        output = self.guard.tick(self.now)
        after, limits = output.motion, self.guard.limits
        self.cell.violations += int((np.abs(after.a) > limits.a_max + 1e-9).sum())
        self.cell.violations += int((np.abs(after.a - before.a) > limits.j_max * DT + 1e-6).sum())
        self.cell.violations += int(((after.q > limits.q_max) | (after.q < limits.q_min)).sum())
        if self.broken:
            self.cell.reasons |= set(names(output.reason | self.guard.why))
            if not (self.cell.during == State.HOLD and self.guard.state is State.RUNNING):
                self.cell.during = str(self.guard.state)
            if self.guard.state is State.RUNNING and self.cell.during == "":
                self.cell.during = str(State.RUNNING)
        if state is State.RUNNING and output.state is State.HOLD:
            self.standing = -1.0
        if self.standing < 0 and after.still:
            self.standing = 1.0
            self.cell.stop = max(self.cell.stop, self.now - self.valid)
            beyond = (after.q - self.last_target) * np.sign(self.last_target - self.stop_from)
            self.cell.overshoot = max(self.cell.overshoot, float(beyond.max()))

    def _tell(self) -> None:
        """State and status travel to the agent."""
        told = {
            "state": str(self.guard.state),
            "epoch": self.guard.epoch,
            "seq": self.guard.seq,
            "why": names(self.guard.why),
        }
        told["target"] = self.guard.motion.q.copy()
        stamp, q = self.now, self.guard.motion.q.copy()

        def arrive() -> None:
            if self.state is None or stamp > self.state[0]:
                self.state, self.status, self.heard = (stamp, q), told, self.now

        self._link("out", arrive)

    def _receive(self, message: dict[str, Any]) -> None:
        read = wire.read(message["header"]["frame_id"], message["joint_names"], message["points"])
        start = self.guard.motion.q.copy()
        refused = self.guard.receive(read, self.now)
        if self.broken:
            self.cell.reasons |= set(names(refused))
        if not refused & REFUSED:
            self.valid, self.stop_from = self.now, start
            self.last_target = self.guard._target.copy()

    # Links -----------------------------------------------------------------------------------------------------------

    def _link(self, way: str, deliver: Any) -> None:
        """One message over the bridge, as the fault has it."""
        delay = float(self.rng.gamma(2.0, 0.001))
        if self.broken:
            if self.fault in ("bridge_killed", "bridge_half_open"):
                return
            if self.fault == "bridge_drop_30" and self.rng.random() < 0.3:
                return
            if self.fault == "bridge_delay_50":
                delay += 0.05
            if self.fault == "bridge_delay_500":
                delay += 0.5
            if self.fault == "bridge_reordered":
                delay += float(self.rng.uniform(0, 0.12))
            if self.fault == "bridge_duplicated":
                self.later(delay + 0.02, deliver)
        self.later(delay, deliver)

    # The agent's side ------------------------------------------------------------------------------------------------

    def _period(self) -> None:
        """What `Agent.step` does, with the same rules."""
        self.step += 1
        if self.state is None or self.now - self.heard > 0.1:
            if self.now - self.heard > 1.0:
                self._forget()
            return
        stamp, _ = self.state
        if self.status["state"] not in ("RUNNING", "ARMED") or self.status["epoch"] != self.epoch:
            if self.before is not None:
                self._forget()
            self._arm()
        for number in [n for n, (_, _, sent) in self.asked.items() if self.now - sent > 1.0]:
            del self.asked[number]
            self.queue.forget()
        plan = self.queue.plan(self.step)
        if plan is not None:
            self.chunk += 1
            self.asked[self.chunk] = (plan.step, stamp, self.now)
            self._ask(self.chunk, plan.previous, plan.delay)
        due = self.queue.due(self.step)
        if (
            due is None
            or self.status["epoch"] != self.epoch
            or self.status["state"] not in ("ARMED", "RUNNING", "HOLD")
        ):
            return
        if self.before is None:
            self.before = np.array(self.status["target"])
        self.before, _ = self.space.target(due.action, self.before, PERIOD_MS * DT)
        self.seq += 1
        observed = self.stamps.get(due.observed, stamp)
        self.cell.action_age = max(self.cell.action_age, stamp - observed)
        command = wire.Command(
            self.epoch, self.seq, stamp, observed, due.index, self.chunk, self.before, None, PERIOD_MS * DT
        )
        message = wire.message(command)
        self._link("in", lambda: self._receive(message))

    def _arm(self) -> None:
        resumable = self.status["state"] == "HOLD" and self.status["epoch"] == self.epoch
        if resumable or self.now - self.armed_at < 0.5 or self.status["state"] not in ("IDLE", "HOLD", "ARMED"):
            return
        self.armed_at = self.now
        self.epoch, self.seq = max(self.epoch, self.status["epoch"]) + 1, 0
        epoch = self.epoch
        self._link("in", lambda: self.guard.arm(epoch, self.guard.motion.q, 1, self.now))

    def _forget(self) -> None:
        self.before = None
        self.queue.clear()

    # The policy server -----------------------------------------------------------------------------------------------

    def _ask(self, number: int, previous: np.ndarray | None, delay: int) -> None:
        inference = float(0.08 + self.rng.gamma(2.0, 0.005))
        actions: Any = self._chunk(previous, delay)
        if self.broken and self.fault.startswith("server_"):
            kind = self.fault.removeprefix("server_")
            if kind in ("killed", "stopped", "hung"):
                if kind == "stopped":  # it answers when it goes on
                    self.later(self.end - self.now + 0.01, lambda: self._reply(number, actions))
                return
            inference += 0.9 if kind == "late" else 0.0
            junk = {
                "garbage": b"\x00\xff",
                "nan": np.full((HORIZON, WIDTH), np.nan),
                "wrong_shape": np.zeros((HORIZON, 3)),
            }
            actions = junk.get(kind, actions)
        self.later(inference, lambda: self._reply(number, actions))

    def _chunk(self, previous: np.ndarray | None, delay: int) -> np.ndarray:
        """A smooth wandering of all joints; frozen rows are kept."""
        at = self.now + np.arange(HORIZON)[:, None] * PERIOD_MS * DT
        chunk = 0.5 * np.cos(1.3 * at + self.phase)
        if previous is not None and delay:
            chunk[:delay] = previous[:delay]
        return chunk

    def _reply(self, number: int, actions: Any) -> None:
        asked = self.asked.pop(number, None)
        if asked is None or self.state is None:
            return
        step, stamp, _ = asked
        chunk = chunk_of({"actions": actions}, HORIZON, WIDTH)
        age = self.state[0] - stamp
        if chunk is None or age > 0.3 or self.now - self.heard > 0.1:
            self.queue.forget()
            return
        if self.queue.adopt(step, chunk, self.step):
            self.stamps = {k: v for k, v in self.stamps.items() if k > step - 100} | {step: stamp}
            self.cell.adopted_age = max(self.cell.adopted_age, age)

    stop_from = HOME


def expected() -> dict[str, Any]:
    """What was written down for every fault before the first run."""
    return copy.deepcopy(yaml.safe_load(EXPECTED.read_text(encoding="utf-8")))


def problems(fault: str, cell: Cell, wanted: dict[str, Any]) -> list[str]:
    """How a cell differs from what was written down; empty if it does not."""
    told, found = wanted["faults"][fault], []
    if cell.during not in told["end"]:
        found.append(f"{fault}: state {cell.during}, wanted {told['end']}")
    if cell.during == State.HOLD and told["why"] and not set(told["why"]) & cell.reasons:
        found.append(f"{fault}: reasons {sorted(cell.reasons)}, wanted one of {told['why']}")
    if cell.again != told["again"]:
        found.append(f"{fault}: running again {cell.again}, wanted {told['again']}")
    if cell.stop > wanted["stop"] or cell.overshoot > wanted["overshoot"] or cell.violations:
        found.append(
            f"{fault}: stop {cell.stop:.3f} s, overshoot {cell.overshoot:.4f} rad, {cell.violations} violations"
        )
    if cell.adopted_age > 0.3 + 0.1 or cell.action_age > HORIZON * PERIOD_MS * DT + 0.1:
        found.append(f"{fault}: adopted at {cell.adopted_age:.3f} s, action of {cell.action_age:.3f} s")
    return found


def run(fault: str, seed: int) -> Cell:
    """One cell of the matrix."""
    return World(fault, seed).run()


__all__ = ["Cell", "Reason", "expected", "problems", "run"]
