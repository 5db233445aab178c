"""The control loop beside the robot: observations in, chunks asked for, one command per period out. It has no safety authority.

The rules it keeps: an action is computed from observations that belong together (`Observer`), no chunk is adopted from an observation
older than `adopt_age` by the robot's clock, a chunk ends when its rows end, and after every reconnect, hold or restart a new epoch is
armed. What it does not send, the guard turns into a hold.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robopref.arrays import InputError

from . import command as wire
from .action_spaces import ActionSpace
from .chunk_queue import ChunkQueue, Due, Mode, Plan
from .command import Command
from .policy_client import PolicyClient, chunk_of
from .reasons import State
from .rosbridge import Mailbox, RosBridge
from .topics import Topics

_STAMP = re.compile(r"rp1 t=(\d{1,18})")


@dataclass(frozen=True)
class AgentSettings:
    """How the loop runs. Seconds, of the robot's clock where ages of observations are meant."""

    hz: float = 15.0
    mode: Mode = "real_time"
    observation_age: float = 0.1
    """Oldest joint state (since it arrived here) that an action may be computed from."""
    skew: float = 0.05
    """Largest distance in time of a picture from the joint state it is paired with."""
    camera_period: float = 0.1
    """Seconds between pictures: how much older than `skew` the newest one may be."""
    adopt_age: float = 0.3
    """Oldest observation, by the robot's clock, whose chunk is adopted."""
    patience: float = 1.0
    """Seconds after which a question counts as lost."""
    auto_arm: bool = True
    """Whether holds that only arming ends, and idleness, are left without asking a person."""


@dataclass(frozen=True)
class Reading:
    """What the robot said at one moment of its own clock."""

    stamp: float
    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    age: float
    """Seconds since it arrived here."""


@dataclass
class Step:
    """One period of the loop, for the recorder."""

    number: int
    reading: Reading | None
    observation: np.ndarray | None
    status: dict[str, Any]
    due: Due | None = None
    target: np.ndarray | None = None
    sent: int = -1
    lateness: float = 0.0
    latency: float = float("nan")
    overhead: float = float("nan")
    adopted: np.ndarray | None = None
    picture: bytes | None = None


@dataclass
class Tally:
    """What the loop lived through; percentiles are taken over these."""

    steps: int = 0
    missed: int = 0
    commands: int = 0
    idle: int = 0
    """Steps without an action while the arm could have moved."""
    stale_replies: int = 0
    bad_replies: int = 0
    lost_questions: int = 0
    arms: int = 0
    jitter: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    overheads: list[float] = field(default_factory=list)
    adopted_ages: list[float] = field(default_factory=list)
    action_ages: list[float] = field(default_factory=list)

    def report(self) -> dict[str, float]:
        """Counts, and percentiles in milliseconds."""
        told: dict[str, float] = {}
        for name in ("steps", "missed", "commands", "idle", "stale_replies", "bad_replies", "lost_questions", "arms"):
            told[name] = getattr(self, name)
        for name in ("jitter", "ages", "overheads", "adopted_ages", "action_ages"):
            values = getattr(self, name)
            for q in (50, 99):
                told[f"{name}_p{q}_ms"] = round(1000 * float(np.percentile(values, q)), 2) if values else float("nan")
        return told


class Agent:
    """Runs a policy server's chunks on an arm behind a bridge. `observe(q) -> (D,)` is what the policy sees."""

    def __init__(
        self,
        bridge: RosBridge,
        client: PolicyClient,
        observe: Callable[[np.ndarray], np.ndarray],
        space: ActionSpace,
        settings: AgentSettings | None = None,
        topics: Topics | None = None,
        record: Callable[[Step], None] | None = None,
    ) -> None:
        self.bridge, self.client, self._observe, self.space = bridge, client, observe, space
        self.settings, self.topics = settings or AgentSettings(), topics or Topics()
        self._record = record
        self.tally, self.status, self.paused = Tally(), dict[str, Any](), False
        self._joints, self._guard, self._camera = Mailbox(), Mailbox(), Mailbox()
        self._queue: ChunkQueue | None = None
        self._history: deque[np.ndarray] = deque()
        self._asked: dict[int, tuple[int, float, float]] = {}
        self._epoch = self._seq = self._number = 0
        self._before: np.ndarray | None = None
        self._armed_at = 0.0
        self._chunk = 0
        self._stamps: dict[int, float] = {}
        """Robot-side stamps of the observations behind the chunks in the queue, by step."""

    def start(self) -> None:
        """Announce and subscribe; both are said again after every reconnect, which also asks for a new epoch."""
        topics, bridge = self.topics, self.bridge
        bridge.advertise(topics.command, "trajectory_msgs/JointTrajectory")
        bridge.advertise(topics.control, "std_msgs/String")
        bridge.subscribe(topics.joint_states, "sensor_msgs/JointState", self._joints, queue_length=1)
        bridge.subscribe(topics.status, "std_msgs/String", self._guard, queue_length=1)
        if topics.camera:
            kind = "sensor_msgs/CompressedImage"
            bridge.subscribe(topics.camera, kind, self._camera, throttle_rate=50, queue_length=1, compression="cbor")
        bridge.on_connect.append(self._reconnected)

    def _reconnected(self) -> None:
        if self._seq:  # what was armed before the connection broke is not ours any more
            self._epoch += 1
            self.control("disarm")
        if self._queue is not None:
            self._queue.clear()

    def control(self, op: str, **more: Any) -> bool:
        """Send arm, disarm, estop, reset, recover or deadman to the guard."""
        return self.bridge.publish(self.topics.control, {"data": json.dumps({"op": op, **more})})

    def rearm(self) -> None:
        """A person asks for a new epoch now."""
        self._armed_at = 0.0
        self._epoch = max(self._epoch, int(self.status.get("epoch", 0))) + 1
        self._seq = 0
        self.tally.arms += self.control("arm", epoch=self._epoch)
        self._forget()

    def joints(self) -> np.ndarray | None:
        """The newest joint positions (7,), or None before the first."""
        reading = self._read_joints()
        return None if reading is None else reading.q

    def picture(self) -> bytes | None:
        """The newest JPEG of the camera."""
        return _picture_of(self._camera.message)

    async def run(self, seconds: float = float("inf")) -> None:
        """Run the loop for a while; periods that were missed are counted and not made up for."""
        period, begin = 1.0 / self.settings.hz, time.monotonic()
        due = begin
        while time.monotonic() - begin < seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late = time.monotonic() - due
            self.tally.jitter.append(late)
            if late > period:
                missed = int(late / period)
                self.tally.missed += missed
                self._number += missed
                due += missed * period
            self.step(late)
            due += period

    def step(self, late: float = 0.0) -> Step:
        """One period: read, adopt what came, ask, command."""
        self._number += 1
        self.tally.steps += 1
        self._read_status()
        reading = self._read_joints()
        fresh = reading is not None and reading.age <= self.settings.observation_age
        observation = self._seen(reading) if fresh and reading is not None else None
        step = Step(self._number, reading, observation, dict(self.status), lateness=late)
        if self._queue is None and self.client.connected:
            self._queue = self._make_queue()
        if reading is not None and self._queue is not None:
            step.picture = self._picture(reading)
            self._adopt(reading, step)
            self._arm()
            if observation is not None and not self.paused:
                self._ask(reading, observation)
            self._command(reading, step)
        if self._record is not None:
            self._record(step)
        return step

    # Reading ---------------------------------------------------------------------------------------------------------

    def _read_status(self) -> None:
        message = self._guard.message
        if isinstance(message, dict) and isinstance(message.get("data"), str) and self._guard.age < 1.0:
            told = wire_status(message["data"])
            before = self.status.get("state")
            self.status = told
            if told.get("state") not in ("RUNNING", "ARMED") and before in ("RUNNING", "ARMED"):
                self._forget()
        else:
            self.status = {}

    def _forget(self) -> None:
        """The arm stopped: no chunk of before is continued."""
        self._before = None
        self._history.clear()
        if self._queue is not None:
            self._queue.clear()

    def _read_joints(self) -> Reading | None:
        message = self._joints.message
        if not isinstance(message, dict):
            return None
        header = message.get("header")
        match = _STAMP.fullmatch(str(header.get("frame_id"))) if isinstance(header, dict) else None
        numbers = [_numbers(message.get(name)) for name in ("position", "velocity", "effort")]
        if match is None or any(n is None for n in numbers):
            return None
        q, dq, tau = numbers
        assert q is not None
        assert dq is not None
        assert tau is not None
        return Reading(int(match.group(1)) * 1e-6, q, dq, tau, self._joints.age)

    def _seen(self, reading: Reading) -> np.ndarray:
        """The history (K, D) the policy asks for, oldest first."""
        wanted = int(self.client.metadata.get("history", 1))
        self._history.append(self._observe(reading.q))
        while len(self._history) < wanted:
            self._history.appendleft(self._history[0])
        while len(self._history) > wanted:
            self._history.popleft()
        return np.stack(self._history).astype(np.float32)

    def _picture(self, reading: Reading) -> bytes | None:
        """The camera's JPEG if it belongs to this reading."""
        message = self._camera.message
        if (
            not isinstance(message, dict)
            or abs(self._camera.age - reading.age) > self.settings.skew + self.settings.camera_period
        ):
            return None
        return _picture_of(message)

    # Chunks ----------------------------------------------------------------------------------------------------------

    def _make_queue(self) -> ChunkQueue:
        told = self.client.metadata
        if told.get("action") != self.space.width:
            raise InputError(
                f"agent: got a policy with {told.get('action')} actions, wanted {self.space.width} ({self.space.kind})."
            )
        return ChunkQueue(int(told["horizon"]), int(told["execute"]), self.settings.mode)

    def _ask(self, reading: Reading, observation: np.ndarray) -> None:
        assert self._queue is not None
        waiting = [
            number for number, (_, _, sent) in self._asked.items() if time.monotonic() - sent > self.settings.patience
        ]
        for number in waiting:
            del self._asked[number]
            self.tally.lost_questions += 1
            self._queue.forget()
        if self.status.get("state") not in ("ARMED", "RUNNING", "HOLD"):
            return
        plan = self._queue.plan(self._number)
        if plan is None:
            return
        self._chunk += 1
        if self.client.ask(self._request(plan, observation)):
            self._asked[self._chunk] = (plan.step, reading.stamp, time.monotonic())
        else:
            self._queue.forget()

    def _request(self, plan: Plan, observation: np.ndarray) -> dict[str, Any]:
        told: dict[str, Any] = {"state": observation, "robopref/obs_id": self._chunk}
        told["robopref/deadline_ms"] = 1000.0 * self.settings.adopt_age
        if plan.previous is not None:
            told |= {"robopref/previous": plan.previous.astype(np.float32), "robopref/delay": plan.delay}
        return told

    def _adopt(self, reading: Reading, step: Step) -> None:
        assert self._queue is not None
        replies, self.client.replies = self.client.replies, []
        for came, reply in replies:
            asked = self._asked.pop(reply.get("robopref/obs_id", -1), None)
            if asked is None:
                continue
            number, stamp, sent = asked
            chunk = chunk_of(reply, self._queue.horizon, self.space.width)
            age = reading.stamp - stamp
            if chunk is None or age > self.settings.adopt_age:
                self.tally.bad_replies += chunk is None
                self.tally.stale_replies += chunk is not None
                self._queue.forget()
                continue
            step.latency = came - sent
            timing = reply.get("server_timing")
            inferring = timing.get("infer_ms", 0.0) if isinstance(timing, dict) else 0.0
            step.overhead = step.latency - inferring / 1000.0
            self.tally.overheads.append(step.overhead)
            if self._queue.adopt(number, chunk, self._number):
                self.tally.adopted_ages.append(age)
                self._stamps = {k: v for k, v in self._stamps.items() if k > number - 1000} | {number: stamp}
                step.adopted = chunk

    # Commands --------------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Ask for a new epoch when the guard will take no command, at most twice a second."""
        state, now = self.status.get("state"), time.monotonic()
        stuck = state == State.HOLD and (self.status.get("epoch") != self._epoch or not _resumable(self.status))
        wanted = state == State.IDLE or stuck or (state == State.ARMED and self.status.get("epoch") != self._epoch)
        if not wanted or not self.settings.auto_arm or self.paused or now - self._armed_at < 0.5:
            return
        self.rearm()
        self._armed_at = now

    def _command(self, reading: Reading, step: Step) -> None:
        assert self._queue is not None
        ready = self.status.get("epoch") == self._epoch and self.status.get("state") in ("ARMED", "RUNNING", "HOLD")
        if not ready or self.paused or reading.age > 2 * self.settings.observation_age:
            return
        due = self._queue.due(self._number)
        if due is None:
            self.tally.idle += self.tally.commands > 0
            return
        period = 1.0 / self.settings.hz
        observed = self._stamps.get(due.observed, reading.stamp)
        if self._before is None:
            self._before = np.array(self.status.get("target", reading.q), dtype=np.float64)
        target, width = self.space.target(due.action, self._before, period)
        self._seq += 1
        command = Command(
            self._epoch, self._seq, reading.stamp, observed, due.index, self._chunk, target, width, period
        )
        if self.bridge.publish(self.topics.command, wire.message(command, self.topics.arm)):
            self.tally.commands += 1
            self.tally.ages.append(reading.age)
            self.tally.action_ages.append(reading.stamp - observed)
            self._before = target
            step.due, step.target, step.sent = due, target, self._seq


def wire_status(text: str) -> dict[str, Any]:
    """The guard's status from its JSON; empty for anything else."""
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _resumable(status: dict[str, Any]) -> bool:
    return not {"BACKEND_ENDED", "OPERATOR", "LINK"} & set(status.get("why", []))


def _picture_of(message: Any) -> bytes | None:
    """The JPEG of a CompressedImage: bytes, a typed array, or base64 where the server writes JSON."""
    data = message.get("data") if isinstance(message, dict) else None
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except binascii.Error:
            return None
    return bytes(data) if isinstance(data, bytes | bytearray | np.ndarray) else None


def _numbers(value: object) -> np.ndarray | None:
    """Seven finite numbers, or None."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return array if array.shape == (7,) and np.isfinite(array).all() else None
