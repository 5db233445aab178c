"""The made-up ends of a simulated chain: the agent's bridge and policy server, the arm node's topics, all over a world's links."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .. import command as wire
from ..arm_reach import observe
from ..command import Command
from ..franka import ArmState, control
from ..limits import DT
from ..topics import Topics
from .watch import Truth

HORIZON, EXECUTE, WIDTH = 16, 8, 7
AGENT_PERIOD = 67
"""Milliseconds between the agent's steps (15 Hz)."""


class Place(Protocol):
    """What the ends need of the world that they are in."""

    rng: np.random.Generator
    truth: Truth
    fault: str
    end: float
    goal: np.ndarray
    inference: float | None

    @property
    def now(self) -> float:
        """Seconds of the world's clock."""

    @property
    def broken(self) -> bool:
        """Whether the fault is on."""

    @property
    def wall(self) -> float:
        """The robot's wall clock."""

    def link(self, deliver: Callable[[], None], command: int | None = None) -> None:
        """One message over the bridge; `command`: how many commands were sent with it, where it is one."""

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Run `what()` after some seconds."""

    def to_robot(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the agent arrives."""

    def to_agent(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the robot arrives."""


class SimulatedBridge:
    """What the agent needs of a `RosBridge`: messages travel over the world's links."""

    def __init__(self, world: Place) -> None:
        self._world, self.connected, self.on_connect = world, True, list[Callable[[], None]]()
        self.commands, self._topics = 0, Topics()
        self.heard: dict[str, Callable[[Any], None]] = {}

    def advertise(self, topic: str, kind: str) -> None:
        """Nothing to announce."""

    def subscribe(self, topic: str, kind: str, handler: Callable[[Any], None], **words: Any) -> None:
        """Hear a topic."""
        self.heard[topic] = handler

    def publish(self, topic: str, message: dict[str, Any]) -> bool:
        """Towards the robot; as with a real bridge, nothing says whether it arrives."""
        if not self.connected:
            return False
        command = topic == self._topics.command
        self.commands += command
        self._world.link(lambda: self._world.to_robot(topic, message), self.commands if command else None)
        return True


class SimulatedTransport:
    """What the arm node hears and says, over the world's links."""

    def __init__(self, world: Place) -> None:
        self._world, self._topics = world, Topics()
        self._commands, self._controls = list[Command](), list[dict[str, Any]]()
        self._newest: dict[str, int] = {}
        self._sent = itertools.count()

    def arrived(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the agent."""
        if topic == self._topics.control:
            self._controls.append(control(message["data"]))
        else:
            frame, points = message["header"]["frame_id"], message["points"]
            self._commands.append(wire.read(frame, message["joint_names"], points))

    def commands(self) -> list[Command]:
        """Commands since the last call."""
        taken, self._commands = self._commands, []
        return taken

    def controls(self) -> list[dict[str, Any]]:
        """Control messages since the last call."""
        taken, self._controls = self._controls, []
        return taken

    def publish(self, now: float, state: ArmState, status: dict[str, Any] | None) -> None:
        """Tell state and status; a bridge keeps one message a topic, so what was overtaken is not told."""
        numbers = {"position": state.q.tolist(), "velocity": state.dq.tolist(), "effort": state.tau.tolist()}
        header = {"stamp": {"sec": int(self._world.wall), "nanosec": 0}, "frame_id": f"rp1 t={round(now * 1e6)}"}
        self._world.truth.said(round(now * 1e6), observe(state.q, self._world.goal))
        self._tell(self._topics.joint_states, {"header": header, **numbers})
        if status is not None:
            self._tell(self._topics.status, {"data": json.dumps(status)})

    def show(self, picture: bytes) -> None:
        """Tell what the camera sees."""
        self._tell(str(self._topics.camera), {"header": {"frame_id": "camera"}, "format": "jpeg", "data": picture})

    def _tell(self, topic: str, message: dict[str, Any]) -> None:
        number = next(self._sent)

        def arrive() -> None:
            if number > self._newest.get(topic, -1):
                self._newest[topic] = number
                self._world.to_agent(topic, message)

        self._world.link(arrive)


class SimulatedPolicy:
    """What the agent needs of a `PolicyClient`, and a policy server behind it that answers, late, wrongly or not at all."""

    def __init__(self, world: Place) -> None:
        self._world, self.replies = world, list[tuple[float, dict[str, Any]]]()
        self.metadata: dict[str, Any] = {"horizon": HORIZON, "execute": EXECUTE, "action": WIDTH, "history": 1}
        if world.fault.endswith("policy_looks"):
            self.metadata |= {"cameras": ["camera"], "size": [16, 16]}
        self._phase = world.rng.uniform(0, 2 * np.pi, WIDTH)
        self._answers: list[tuple[np.ndarray, float]] = []

    @property
    def connected(self) -> bool:
        """Whether the server's process is there (one that hangs is)."""
        return not (self._world.broken and self._world.fault == "server_killed")

    def ask(self, message: dict[str, Any]) -> bool:
        """Send a question."""
        if not self.connected:
            return False
        world, inference = self._world, float(0.08 + self._world.rng.gamma(2.0, 0.005))
        inference = inference if world.inference is None else world.inference
        chunk, shown = self._chunk(message), world.truth.looked(message["state"][-1])
        self._answers.append((chunk, shown))
        reply = {"actions": chunk, "robopref/obs_id": message["robopref/obs_id"]}
        if world.broken and world.fault == "server_hung":
            return True
        if world.broken and world.fault == "server_stopped":  # it answers when it goes on
            inference += world.end - world.now
        if world.broken and world.fault == "server_late":
            inference += 0.9
        junk = {
            "server_garbage": b"\x00\xff",
            "server_nan": np.full((HORIZON, WIDTH), np.nan),
            "server_wrong_shape": np.zeros((HORIZON, 3)),
        }
        if world.broken and world.fault in junk:
            reply["actions"] = junk[world.fault]
        world.later(inference, lambda: self._reply(reply))
        return True

    def shown(self, chunk: np.ndarray) -> float:
        """When the robot said what the policy answered with this chunk, by the world's clock; minus infinity for none of its answers."""
        return next((at for one, at in reversed(self._answers) if np.allclose(one, chunk, atol=1e-6)), float("-inf"))

    def _reply(self, reply: dict[str, Any]) -> None:
        if self.connected:
            self.replies.append((self._world.now, reply))

    def _chunk(self, message: dict[str, Any]) -> np.ndarray:
        """A smooth wandering of all joints; frozen rows are kept."""
        at = self._world.now + np.arange(HORIZON)[:, None] * AGENT_PERIOD * DT
        chunk, previous = 0.5 * np.cos(1.3 * at + self._phase), message.get("robopref/previous")
        if previous is not None:
            delay = message["robopref/delay"]
            chunk[:delay] = previous[:delay]
        return chunk
