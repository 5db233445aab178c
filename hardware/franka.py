"""The arm node: guard and 1 kHz loop of one Franka arm, the same for the robot and for the protocol simulator, chosen by address.

The 1 kHz loop is franka-rs' target control on a Rust thread; this node runs every `PERIOD` seconds, lets the guard catch up
with the clock in steps of 1 ms, and hands on the guard's position. It supervises that loop: when it ends, the guard holds until it is armed
again, and arming starts a new loop at the measured position. Recovery from a reflex runs on a thread of its own and is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from .backend import ArmState, Backend, BackendError, FrankaBackend
from .command import Command
from .controls import control
from .guard import Guard
from .hand import Hand
from .journal import Journal
from .latch import Latch
from .limits import DT
from .reasons import REFUSED, Reason, State, names

PERIOD = 0.01
_CATCH_UP = 50
"""Milliseconds that are made up for after a stall; what is beyond, the arm has stood still."""
MAX_EPOCH = 999_999_999
"""A command's header has nine digits for it."""


__all__ = ["PERIOD", "ArmNode", "ArmState", "Backend", "BackendError", "FrankaBackend", "by_name", "control"]


class Transport(Protocol):
    """How commands come in and states go out (ROS, or a test)."""

    def commands(self) -> Iterable[Command]:
        """Commands since the last call, in order."""

    def controls(self) -> Iterable[dict[str, Any]]:
        """Control messages since the last call: {"op": arm | disarm | estop | reset | recover | deadman, ...}."""

    def publish(self, now: float, state: ArmState, status: dict[str, Any] | None) -> None:
        """Tell the state, and when it is due the guard's status."""


@dataclass
class Counts:
    """What the node saw."""

    commands: int = 0
    refused: int = 0
    reflexes: int = 0
    loops_ended: int = 0
    stalls: int = 0
    slowest: float = 0.0
    bits: Counter[int] = field(default_factory=Counter)
    """Reasons -> how many commands had them."""
    held: Counter[int] = field(default_factory=Counter)
    """Reasons -> milliseconds for which they changed what the arm was told."""


class ArmNode:
    """Runs guard and backend on one thread; `run` returns when `stop` was called."""

    def __init__(
        self,
        guard: Guard,
        backend: Backend,
        transport: Transport,
        journal: Journal | None = None,
        recover: bool = True,
        now: float | None = None,
        latch: Latch | None = None,
    ) -> None:
        """`now`: the clock of `cycle` at this moment, where it is not the monotonic one. `latch`: keeps a stop for the next process."""
        self.guard, self.backend, self.transport, self._recover = guard, backend, transport, recover
        self.counts, self._journal = Counts(), journal or Journal(guard, None)
        self._stopping = threading.Event()
        self._aside = ThreadPoolExecutor(1)
        self._recovery: Future[None] | None = None
        self.hand = Hand(backend, guard.gripper)
        self._time = time.monotonic() if now is None else now
        self.latch = latch or Latch(None)
        if self.latch.held:
            self._journal.call("estop", self._time)
        self._reasons = Reason.NONE
        self._cycle = 0
        self._retry = 0.0

    def stop(self) -> None:
        """Let `run` end after its current cycle."""
        self._stopping.set()

    def run(self) -> None:
        """Cycle every `PERIOD` seconds until stopped; the arm's loop is ended on the way out."""
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                self.cycle(time.monotonic())
                due = max(due + PERIOD, time.monotonic() - 2 * PERIOD)
                self._stopping.wait(max(0.0, due - time.monotonic()))
        finally:
            self.backend.close()
            self._aside.shutdown(wait=False, cancel_futures=True)
            self.hand.close()

    def cycle(self, now: float) -> None:
        """One period: read the arm, take controls and commands, catch up with the clock, hand on the position."""
        state = self._read(now)
        for order in self.transport.controls():
            self._control(order, state, now)
        self.latch.keep(self.guard.latched)
        for command in self.transport.commands():
            self.counts.commands += 1
            bits = self._journal.call("receive", command, now)
            self._reasons |= bits
            self.counts.bits[int(bits)] += 1
            self.counts.refused += bool(bits & REFUSED)
        if state is None:
            return
        self._catch_up(now)
        if self.guard.state in (State.ARMED, State.RUNNING, State.HOLD, State.ESTOP) and self.backend.running():
            self.backend.move_to(self.guard.motion.q)
        self._grip(now)
        self._cycle += 1
        self.transport.publish(now, state, self._status(now, state) if self._cycle % 2 == 0 else None)
        self.counts.slowest = max(self.counts.slowest, time.monotonic() - now)

    def _read(self, now: float) -> ArmState | None:
        """The arm's state, told to the guard; None while the arm is out of reach."""
        try:
            if self.guard.state is State.DISCONNECTED:
                if now < self._retry:
                    return None
                self.backend.connect()
            state = self.backend.state()
        except BackendError:
            self._retry = now + 0.5
            if self.guard.state is not State.DISCONNECTED:
                self._journal.call("link", False, now)
            return None
        self._journal.call("link", True, now)
        before = self.guard.state
        self._journal.call("robot_mode", state.mode, now)
        if self.guard.state is State.REFLEX and before is not State.REFLEX:
            self.counts.reflexes += 1
        moving = self.guard.state in (State.ARMED, State.RUNNING, State.HOLD)
        if moving and not self.backend.running() and not self.guard.why & Reason.BACKEND_ENDED:
            self.counts.loops_ended += 1
            self._journal.call("backend_ended", now)
        if self.guard.state in (State.IDLE, State.DISCONNECTED, State.REFLEX, State.RECOVERING):
            self._journal.call("follow", state.q)
        self._recovering(now)
        return state

    def _recovering(self, now: float) -> None:
        wanted = self.guard.state is State.REFLEX and self._recover and self._recovery is None
        if wanted and self._journal.call("recover", now):
            self._recovery = self._aside.submit(self.backend.recover)
        if self._recovery is not None and self._recovery.done():
            self._journal.call("recovered", self._recovery.exception() is None, now)
            self._recovery = None

    def _control(self, order: dict[str, Any], state: ArmState | None, now: float) -> None:
        operation, program = order.get("op"), order.get("by") == "program"
        if operation == "arm":
            epoch = order.get("epoch")
            if state is not None and isinstance(epoch, int) and 0 <= epoch <= MAX_EPOCH:
                self._arm(epoch, state, now, not program)
        elif operation == "deadman":
            seen = order.get("t")
            seen = seen * 1e-6 if isinstance(seen, int) and 0 <= seen < 10**18 else float("-inf")
            self._journal.call("deadman", order.get("pressed") is True, now, seen)
        elif operation == "disarm":
            self._journal.call("disarm", now, not program)
        elif operation in ("estop", "reset", "recover"):
            self._journal.call(operation, now)

    def _arm(self, epoch: int, state: ArmState, now: float, asked: bool) -> None:
        """Start a fresh 1 kHz loop where there is none, then arm the guard at the measured position."""
        waits = bool(self.guard.why & Reason.OPERATOR) and not asked
        if not self.backend.running() and self.guard.state in (State.IDLE, State.HOLD) and not waits:
            try:
                self.backend.start()
            except BackendError:
                self.counts.loops_ended += 1
                return
        measured = (
            state.q if self.guard.state is State.IDLE or self.guard.why & Reason.BACKEND_ENDED else self.guard.motion.q
        )
        self._reasons |= self._journal.call("arm", epoch, measured, state.mode, now, asked)

    def _catch_up(self, now: float) -> None:
        """Guard steps of 1 ms up to now."""
        if now < self._time - PERIOD:  # the clock went back: the guard stops, since its last command lies in the future
            self.counts.stalls += 1
            self._time = now - DT
        due = int((now - self._time) / DT)
        if due > _CATCH_UP:
            self.counts.stalls += 1
            self._time, due = now - _CATCH_UP * DT, _CATCH_UP
        for _ in range(due):
            self._time += DT
            reason = self._journal.call("tick", self._time).reason
            self.counts.held[int(reason)] += 1
            self._reasons |= reason

    def _grip(self, now: float) -> None:
        """Move the fingers while commands run; whoever stops the arm stops them, too, and they stay until a command says otherwise."""
        guard = self.guard
        stop = guard.state in (State.ESTOP, State.REFLEX) or bool(guard.why & (Reason.OPERATOR | Reason.DEADMAN))
        moving = guard.state is State.RUNNING
        if self.hand.cycle(now, guard.gripper if moving else None, stop) and not moving:
            before = guard.gripper
            self._journal.call("hand", self.hand.width)
            if guard.gripper != before:
                self.hand.ordered = guard.gripper

    def _status(self, now: float, state: ArmState) -> dict[str, Any]:
        """What the guard thinks, as plain data; reasons are those since the last status."""
        guard, bits = self.guard, self._reasons
        self._reasons = Reason.NONE
        return {
            "t": round(now * 1e6), "state": str(guard.state), "why": names(guard.why), "reasons": int(bits),
            "epoch": guard.epoch, "seq": guard.seq, "mode": state.mode, "errors": list(state.errors),
            "success_rate": round(state.success_rate, 3), "target": guard.motion.q.tolist(), "gripper": guard.gripper,
            "width": self.hand.width, "gripper_errors": self.hand.errors, "gripper_error": self.hand.error,
            "commands": self.counts.commands, "refused": self.counts.refused, "reflexes": self.counts.reflexes,
            "ended": self.counts.loops_ended, "stalls": self.counts.stalls, "latch": self.latch.failure,
            "bits": by_name(self.counts.bits), "held": by_name(self.counts.held),
        }  # fmt: skip


def by_name(counted: Mapping[int, int]) -> dict[str, int]:
    """{reason's name: how often}, from counts of combinations."""
    told: dict[str, int] = {}
    for bits, count in list(counted.items()):
        for name in names(bits):
            told[name] = told.get(name, 0) + count
    return told
