"""The arm node: guard and 1 kHz loop of one Franka arm, the same for the robot and for the protocol simulator, chosen by address.

The 1 kHz loop is franka-rs' target control on a Rust thread; this node runs every `PERIOD` seconds, lets the guard catch up
with the clock in steps of 1 ms, and hands on the guard's position. It supervises that loop: when it ends, the guard holds until it is armed
again, and arming starts a new loop at the measured position. Recovery from a reflex runs on a thread of its own and is bounded.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from .command import Command
from .guard import Guard
from .journal import Journal
from .limits import DT
from .reasons import Reason, State, names

PERIOD = 0.01
_MODES = ("other", "idle", "move", "guiding", "reflex", "user_stopped", "automatic_error_recovery")
_CATCH_UP = 50
"""Milliseconds that are made up for after a stall; what is beyond, the arm has stood still."""


@dataclass(frozen=True)
class ArmState:
    """What the arm says: positions rad, velocities rad/s, torques Nm, its mode (libfranka's number)."""

    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    mode: int
    success_rate: float = 1.0
    errors: tuple[str, ...] = ()


class Backend(Protocol):
    """The 1 kHz side of an arm."""

    def connect(self) -> None:
        """Reach the arm. Raises `BackendError`."""

    def state(self) -> ArmState:
        """The newest state. Raises `BackendError` when the arm is out of reach."""

    def start(self) -> None:
        """Begin the 1 kHz loop at the measured position. Raises `BackendError`."""

    def move_to(self, q: np.ndarray) -> None:
        """The position (7,) to be at now."""

    def running(self) -> bool:
        """Whether the 1 kHz loop runs."""

    def stop(self) -> None:
        """End the loop; fine when there is none."""

    def close(self) -> None:
        """Let go of the arm."""

    def recover(self) -> None:
        """Clear a reflex; takes up to a second. Raises `BackendError`."""

    def grip(self, width: float) -> None:
        """Move the fingers to a width in metres; returns when they are there."""


class BackendError(RuntimeError):
    """The arm did not do what it was asked."""


class FrankaBackend:
    """A Franka arm (FR3 or Panda) or the protocol simulator through franka-rs."""

    def __init__(self, address: str, fraction: float = 1.0, realtime: str = "enforce", gripper: bool = True) -> None:
        self.address, self._fraction, self._realtime, self._with_gripper = address, fraction, realtime, gripper
        self._robot: Any = None
        self._loop: Any = None
        self._gripper: Any = None

    def connect(self) -> None:
        """Reach the arm. Raises `BackendError`."""
        import franka

        try:
            self._robot, self._loop = franka.Robot(self.address, realtime=self._realtime), None
            self._gripper = self._robot.gripper() if self._with_gripper else None
        except franka.FrankaError as error:
            raise BackendError(f"{self.address}: {error}") from error

    def state(self) -> ArmState:
        """The newest state. Raises `BackendError` when the arm is out of reach."""
        import franka

        if self._robot is None:
            raise BackendError(f"{self.address}: not connected")
        try:
            told = self._loop.state() if self.running() else self._robot.read_once()
        except franka.FrankaError as error:
            self.close()
            raise BackendError(f"{self.address}: {error}") from error
        errors = tuple(told.current_errors) or tuple(told.last_motion_errors)
        mode = _MODES.index(told.robot_mode)
        q, dq, tau = (np.array(x, dtype=np.float64) for x in (told.q, told.dq, told.tau_J))
        return ArmState(q, dq, tau, mode, float(told.control_command_success_rate), errors)

    def start(self) -> None:
        """Begin the 1 kHz loop at the measured position. Raises `BackendError`."""
        import franka

        self.stop()
        try:
            self._loop = self._robot.joint_targets(fraction=self._fraction, max_deviation=6.0)
            self._loop.__enter__()
        except franka.FrankaError as error:
            self._loop = None
            raise BackendError(f"{self.address}: {error}") from error

    def move_to(self, q: np.ndarray) -> None:
        """The position (7,) to be at now; an ended loop is reported by `running`."""
        import franka

        if self._loop is not None:
            try:
                self._loop.move_to(q)
            except franka.FrankaError:
                self._loop = None

    def running(self) -> bool:
        """Whether the 1 kHz loop runs."""
        return self._loop is not None and bool(self._loop.running)

    def stop(self) -> None:
        """End the loop; fine when there is none."""
        import franka

        loop, self._loop = self._loop, None
        if loop is not None:
            # A loop that had ended already has its reason in the robot's state.
            with contextlib.suppress(franka.FrankaError):
                loop.stop()

    def close(self) -> None:
        """Let go of the arm, so that somebody else can have it."""
        self.stop()
        self._robot = self._gripper = None

    def recover(self) -> None:
        """Clear a reflex. Raises `BackendError`."""
        import franka

        self.stop()
        try:
            self._robot.automatic_error_recovery()
        except franka.FrankaError as error:
            raise BackendError(f"{self.address}: {error}") from error

    def grip(self, width: float) -> None:
        """Move the fingers. Raises `BackendError`."""
        import franka

        if self._gripper is not None:
            try:
                self._gripper.move(width, 0.1)
            except franka.FrankaError as error:
                raise BackendError(f"{self.address}: gripper: {error}") from error


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
    bits: dict[str, int] = field(default_factory=dict)


class ArmNode:
    """Runs guard and backend on one thread; `run` returns when `stop` was called."""

    def __init__(
        self, guard: Guard, backend: Backend, transport: Transport, journal: Journal | None = None, recover: bool = True
    ) -> None:
        self.guard, self.backend, self.transport, self._recover = guard, backend, transport, recover
        self.counts, self._journal = Counts(), journal or Journal(guard, None)
        self._stopping = threading.Event()
        self._aside = ThreadPoolExecutor(2)
        self._recovery: Future[None] | None = None
        self._gripping: Future[None] | None = None
        self._gripped = guard.gripper
        self._time = time.monotonic()
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

    def cycle(self, now: float) -> None:
        """One period: read the arm, take controls and commands, catch up with the clock, hand on the position."""
        state = self._read(now)
        if state is None:
            return
        for control in self.transport.controls():
            self._control(control, state, now)
        for command in self.transport.commands():
            self.counts.commands += 1
            bits = self._journal.call("receive", command, now)
            self._reasons |= bits
            for name in names(bits):
                self.counts.bits[name] = self.counts.bits.get(name, 0) + 1
            self.counts.refused += self.guard.seq != command.seq or bool(bits & 0x1FF)
        self._catch_up(now)
        if self.guard.state in (State.ARMED, State.RUNNING, State.HOLD, State.ESTOP) and self.backend.running():
            self.backend.move_to(self.guard.motion.q)
        self._grip()
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

    def _control(self, control: dict[str, Any], state: ArmState, now: float) -> None:
        operation = control.get("op")
        if operation == "arm" and isinstance(control.get("epoch"), int):
            self._arm(control["epoch"], state, now)
        elif operation == "deadman":
            self._journal.call("deadman", control.get("pressed") is True, now)
        elif operation in ("disarm", "estop", "reset", "recover"):
            self._journal.call(operation, now)

    def _arm(self, epoch: int, state: ArmState, now: float) -> None:
        """Start a fresh 1 kHz loop where there is none, then arm the guard at the measured position."""
        if not self.backend.running() and self.guard.state in (State.IDLE, State.HOLD):
            try:
                self.backend.start()
            except BackendError:
                self.counts.loops_ended += 1
                return
        measured = (
            state.q if self.guard.state is State.IDLE or self.guard.why & Reason.BACKEND_ENDED else self.guard.motion.q
        )
        self._reasons |= self._journal.call("arm", epoch, measured, state.mode, now)

    def _catch_up(self, now: float) -> None:
        """Guard steps of 1 ms up to now."""
        due = int((now - self._time) / DT)
        if due > _CATCH_UP:
            self.counts.stalls += 1
            self._time, due = now - _CATCH_UP * DT, _CATCH_UP
        for _ in range(due):
            self._time += DT
            self._reasons |= self._journal.call("tick", self._time).reason

    def _grip(self) -> None:
        wanted = self.guard.gripper
        if self._gripping is not None and self._gripping.done():
            self._gripping = None
        if self._gripping is None and abs(wanted - self._gripped) > 2e-3 and self.guard.state is State.RUNNING:
            self._gripped = wanted
            self._gripping = self._aside.submit(self.backend.grip, wanted)

    def _status(self, now: float, state: ArmState) -> dict[str, Any]:
        """What the guard thinks, as plain data; reasons are those since the last status."""
        guard, bits = self.guard, self._reasons
        self._reasons = Reason.NONE
        return {
            "t": round(now * 1e6), "state": str(guard.state), "why": names(guard.why), "reasons": int(bits),
            "epoch": guard.epoch, "seq": guard.seq, "mode": state.mode, "errors": list(state.errors),
            "success_rate": round(state.success_rate, 3), "target": guard.motion.q.tolist(), "gripper": guard.gripper,
            "commands": self.counts.commands, "refused": self.counts.refused, "reflexes": self.counts.reflexes,
            "ended": self.counts.loops_ended, "stalls": self.counts.stalls,
        }  # fmt: skip


def control(text: str, limit: int = 1000) -> dict[str, Any]:
    """A control message from its JSON text; an empty one for anything else."""
    if not isinstance(text, str) or len(text) > limit:
        return {}
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}
