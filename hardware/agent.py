"""The control loop beside the robot: observations in, chunks asked for, one command per period out. It has no safety authority.

The rules it keeps: an action is computed from observations that belong together (`Observer`), no chunk is adopted from an observation
older than `adopt_age` by the robot's clock, a chunk ends when its rows end, and who arms is `Arming`'s. What it does not send becomes a hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robopref.arrays import InputError

from . import command as wire
from .action_spaces import ActionSpace
from .arming import Arming
from .chunk_queue import ChunkQueue, Plan
from .command import Command
from .observer import Observer, Reading, Seen
from .periods import AgentSettings, Step, Tally
from .policy_client import PolicyClient, reply_of
from .rosbridge import RosBridge
from .topics import Topics

_STRIDE = 0.5
"""Radians per second at which joint targets move on the way home."""


class Agent:
    """Runs a policy server's chunks on an arm behind a bridge.

    observe: (q (7,)) -> (D,), the state that the policy sees, None while unknown. sentence: what the arm is asked to do, for a policy that reads.
    Raises `InputError` at the first period with a policy that does not fit.
    """

    def __init__(
        self,
        bridge: RosBridge,
        client: PolicyClient,
        observe: Callable[[np.ndarray], np.ndarray | None],
        space: ActionSpace,
        settings: AgentSettings | None = None,
        topics: Topics | None = None,
        record: Callable[[Step], None] | None = None,
        sentence: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bridge, self.client, self.space, self.sentence = bridge, client, space, sentence
        self.settings, self.topics = settings or AgentSettings(), topics or Topics()
        self.record, self._clock = record, clock
        self._observer = Observer(observe, self.settings.skew, self.settings.camera_period, clock)
        self.tally, self.status, self.paused = Tally(), dict[str, Any](), False
        self._queue: ChunkQueue | None = None
        self._asked: dict[int, tuple[int, float, float]] = {}
        self.arming = Arming(
            self.settings.auto_arm, clock, lambda text: bridge.publish(self.topics.control, {"data": text})
        )
        self._seq = self._number = 0
        self._before: np.ndarray | None = None
        self._home: np.ndarray | None = None
        self._resting, self._rest_ends = False, 0.0
        self._chunk = 0
        self._stamps: dict[int, float] = {}
        """Robot-side stamps of the observations behind the chunks in the queue, by step."""

    def start(self) -> None:
        """Announce and subscribe; both are said again after every reconnect, which also asks for a new epoch."""
        topics, bridge = self.topics, self.bridge
        bridge.advertise(topics.command, "trajectory_msgs/JointTrajectory")
        bridge.advertise(topics.control, "std_msgs/String")
        self._observer.subscribe(bridge, topics)
        bridge.on_connect.append(self._reconnected)

    def _reconnected(self) -> None:
        if self._seq:
            self.arming.lost()
        if self._queue is not None:
            self._queue.clear()

    def control(self, op: str, **more: Any) -> bool:
        """Send disarm, estop, reset, recover or deadman to the guard, as a person's order."""
        return self.arming.control(op, **more)

    def rearm(self, by_itself: bool = False) -> None:
        """Ask for a new epoch now: a person wants it, or the loop `by_itself`."""
        self._seq = 0
        self.tally.arms += self.arming.rearm(int(self.status.get("epoch", 0)), by_itself)
        self._forget()

    def press(self, held: bool) -> bool:
        """Say that the enabling button is held down, which counts for a moment and is said again and again, or that it was let go."""
        reading = self._observer.reading()
        return self.control("deadman", pressed=held, t=round(reading.stamp * 1e6) if reading is not None else 0)

    def retire(self) -> None:
        """End the motion for good: this agent arms no more, the next one may."""
        self.arming.retired = True
        self.arming.disarm()

    def go_home(self, q: np.ndarray) -> None:
        """Move to the joint positions q (7,) instead of running the policy, by commands that the guard judges like all others."""
        self._home, self._resting = np.asarray(q, dtype=np.float64), True
        self._observer.forget()
        if self._queue is not None:
            self._queue.clear()

    def go_on(self) -> None:
        """Run the policy again; the arm is told to stay where `go_home` sent it until the first chunk is there, or a question lost."""
        self._resting, self._rest_ends = False, self._clock() + self.settings.patience
        self._observer.forget()

    def joints(self) -> np.ndarray | None:
        """The newest joint positions (7,), or None before the first."""
        reading = self._observer.reading()
        return None if reading is None else reading.q

    def picture(self) -> bytes | None:
        """The newest JPEG of the camera."""
        return self._observer.picture()

    def picture_ages(self) -> tuple[float, float]:
        """Seconds since a picture came, and since another one than before came; infinite before the first."""
        return self._observer.picture_ages()

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
        self.arming.insist(self.status)
        reading = self._observer.reading()
        fresh = reading is not None and reading.age <= self.settings.observation_age
        seen = self._observer.seen(reading, self.client.metadata) if fresh and reading is not None else None
        step = Step(self._number, reading, None if seen is None else seen.state, dict(self.status), lateness=late)
        if self._queue is None and self.client.connected:
            self._queue = self._make_queue()
        if reading is not None and self._queue is not None:
            step.picture = self._observer.picture(reading)
            self._adopt(reading, step)
            if not self.paused and self.arming.due(self.status):
                self.rearm(by_itself=True)
            if seen is not None and not self.paused and not self._resting:
                self._ask(reading, seen)
            self._command(reading, step)
        if self.record is not None:
            self.record(step)
        return step

    def _read_status(self) -> None:
        before, self.status = self.status.get("state"), self._observer.status()
        if self.status and self.status.get("state") not in ("RUNNING", "ARMED") and before in ("RUNNING", "ARMED"):
            self._forget()

    def _forget(self) -> None:
        """The arm stopped: no chunk of before is continued."""
        self._before = None
        self._observer.forget()
        if self._queue is not None:
            self._queue.clear()

    # Chunks ----------------------------------------------------------------------------------------------------------

    def _make_queue(self) -> ChunkQueue:
        told = self.client.metadata
        if told.get("action") != self.space.width:
            raise InputError(
                f"agent: got a policy with {told.get('action')} actions, wanted {self.space.width} ({self.space.kind})."
            )
        if len(told.get("cameras", [])) > 1:
            raise InputError(
                f"agent: got a policy that looks through {', '.join(told['cameras'])}, wanted at most one camera.\n"
                "Train it on the pictures of one."
            )
        if told.get("words") and not self.sentence:
            raise InputError(
                "agent: got no sentence, wanted one: the policy reads what is asked of it. Say sentence='...'."
            )
        return ChunkQueue(int(told["horizon"]), int(told["execute"]), self.settings.mode)

    def _ask(self, reading: Reading, seen: Seen) -> None:
        assert self._queue is not None
        now = self._clock()
        for number in [n for n, (_, _, sent) in self._asked.items() if now - sent > self.settings.patience]:
            del self._asked[number]
            self.tally.lost_questions += 1
            self._queue.forget()
        blind = bool(self.client.metadata.get("cameras")) and not seen.images
        if blind or self.status.get("state") not in ("ARMED", "RUNNING", "HOLD"):
            return
        plan = self._queue.plan(self._number)
        if plan is None:
            return
        self._chunk += 1
        if self.client.ask(self._request(plan, seen)):
            self._asked[self._chunk] = (plan.step, reading.stamp, now)
        else:
            self._queue.forget()

    def _request(self, plan: Plan, seen: Seen) -> dict[str, Any]:
        told: dict[str, Any] = {"state": seen.state, "robopref/obs_id": self._chunk}
        told["robopref/deadline_ms"] = 1000.0 * self.settings.adopt_age
        if seen.images:
            told["images"] = seen.images
        if self.client.metadata.get("words"):
            told["prompt"] = self.sentence
        if plan.previous is not None:
            told |= {"robopref/previous": plan.previous.astype(np.float32), "robopref/delay": plan.delay}
        return told

    def _adopt(self, reading: Reading, step: Step) -> None:
        assert self._queue is not None
        replies, self.client.replies = self.client.replies, []
        for came, reply in replies:
            answer = reply_of(reply, self._queue.horizon, self.space.width)
            asked = self._asked.pop(answer.number, None)
            if asked is None:
                continue
            number, stamp, sent = asked
            age = reading.stamp - stamp
            if answer.chunk is None or age > self.settings.adopt_age:
                self.tally.bad_replies += answer.chunk is None
                self.tally.stale_replies += answer.chunk is not None
                self._queue.forget()
                continue
            step.latency, step.overhead = came - sent, came - sent - answer.seconds
            self.tally.overheads.append(step.overhead)
            if self._queue.adopt(number, answer.chunk, self._number):
                self.tally.adopted_ages.append(age)
                self.tally.candidates.append(answer.candidates)
                self._stamps = {k: v for k, v in self._stamps.items() if k > number - 1000} | {number: stamp}
                step.adopted = answer.chunk

    # Commands --------------------------------------------------------------------------------------------------------

    def _command(self, reading: Reading, step: Step) -> None:
        assert self._queue is not None
        ready = self.status.get("epoch") == self.arming.epoch and self.status.get("state") in (
            "ARMED",
            "RUNNING",
            "HOLD",
        )
        if not ready or self.paused or reading.age > 2 * self.settings.observation_age:
            return
        due, period = self._queue.due(self._number), 1.0 / self.settings.hz
        observed = reading.stamp if due is None else self._stamps.get(due.observed, reading.stamp)
        # The robot's clock says how old an action is: after a delay on the way here, more time went by than steps were counted.
        stale = due is None or reading.stamp - observed > self._queue.horizon * period
        if self._home is not None and not self._resting and self._clock() > self._rest_ends:
            self._home = None  # nobody answers: the guard will hold
        if stale and self._home is None:
            self.tally.idle += self.tally.commands > 0
            return
        if self._before is None:
            self._before = np.array(self.status.get("target", reading.q), dtype=np.float64)
        if due is None or stale:
            assert self._home is not None
            way = np.clip(self._home - self._before, -_STRIDE * period, _STRIDE * period)
            self._send(reading, step, reading.stamp, 0, self._before + way, None)
            return
        self._home = None
        target, width = self.space.target(due.action, self._before, period)
        if self._send(reading, step, observed, due.index, target, width):
            self.tally.action_ages.append(reading.stamp - observed)
            step.due = due

    def _send(
        self, reading: Reading, step: Step, observed: float, index: int, target: np.ndarray, width: float | None
    ) -> bool:
        """Publish joint targets (7,) as the next command."""
        self._seq += 1
        period = 1.0 / self.settings.hz
        command = Command(
            self.arming.epoch, self._seq, reading.stamp, observed, index, self._chunk, target, width, period
        )
        if not self.bridge.publish(self.topics.command, wire.message(command, self.topics.arm)):
            return False
        self.tally.commands += 1
        self.tally.ages.append(reading.age)
        self._before, step.target, step.sent = target, target, self._seq
        return True
