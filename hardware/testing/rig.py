"""A whole chain in one process for tests: our bridge server, an arm node as its client, a camera, a policy server, an agent.

The arm is made up (`KinematicArm`: it is where it is told to be) or the real back end on the simulator. Real peers are in `demo.py`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from .. import command as wire
from ..arm_reach import HOME
from ..command import Command
from ..controls import STOP, Controls, control
from ..drawing import draw, jpeg
from ..franka import PERIOD, ArmNode, ArmState, Backend, BackendError
from ..guard import Guard, Settings
from ..limits import FR3, Limits
from ..rosbridge import Dialect, RosBridge


class KinematicArm:
    """An arm that is where it is told to be."""

    def __init__(self, q: np.ndarray = HOME) -> None:
        self.q, self.mode, self.up, self.loop = np.array(q), 1, True, False

    def connect(self) -> None:
        """Raises `BackendError` while the arm is said to be away."""
        if not self.up:
            raise BackendError("unreachable")

    def state(self) -> ArmState:
        """Where it is."""
        self.connect()
        return ArmState(self.q.copy(), np.zeros(7), np.zeros(7), self.mode)

    def start(self) -> None:
        """Begin."""
        self.loop = True

    def move_to(self, q: np.ndarray) -> None:
        """Be there."""
        self.q = q.copy()

    def running(self) -> bool:
        """Whether it was begun."""
        return self.loop

    def stop(self) -> None:
        """End."""
        self.loop = False

    def close(self) -> None:
        """End."""
        self.loop = False

    def recover(self) -> None:
        """Clear a reflex."""
        self.mode = 1

    def grip(self, width: float) -> None:
        """Nothing to move."""

    def release(self) -> None:
        """Nothing to stop."""

    def width(self) -> float | None:
        """No gripper."""
        return None


class BridgeTransport:
    """The arm node's topics over rosbridge instead of ROS."""

    def __init__(self, bridge: RosBridge, arm: str = "fr3") -> None:
        self._bridge, self._arm, self._names = bridge, arm, wire.joint_names(arm)
        self._commands: deque[Command] = deque(maxlen=64)
        self._controls = Controls()
        bridge.advertise("/joint_states", "sensor_msgs/JointState")
        bridge.advertise("/robopref/status", "std_msgs/String")
        bridge.subscribe("/robopref/command", "trajectory_msgs/JointTrajectory", self._command, queue_length=64)
        bridge.subscribe("/robopref/control", "std_msgs/String", self._control, queue_length=16)
        bridge.serve("/robopref/estop", "std_srvs/Trigger", self._estop)

    def _command(self, message: Any) -> None:
        message = message if isinstance(message, dict) else {}
        header, points = message.get("header"), message.get("points")
        frame = header.get("frame_id", "") if isinstance(header, dict) else ""
        listed = [p for p in points if isinstance(p, dict)] if isinstance(points, list) else []
        names = message.get("joint_names")
        self._commands.append(wire.read(frame, names if isinstance(names, list) else [], listed, self._arm))

    def _control(self, message: Any) -> None:
        self._controls.put(control(str(message.get("data")) if isinstance(message, dict) else ""))

    def _estop(self, args: dict[str, Any]) -> dict[str, Any]:
        self._controls.put(STOP)
        return {"success": True, "message": "stopping"}

    def commands(self) -> list[Command]:
        """Commands since the last call."""
        return [self._commands.popleft() for _ in range(len(self._commands))]

    def controls(self) -> list[dict[str, Any]]:
        """Control messages since the last call."""
        return self._controls.take()

    def publish(self, now: float, state: ArmState, status: dict[str, Any] | None) -> None:
        """Tell state and status."""
        header = {"stamp": {"sec": 0, "nanosec": 1}, "frame_id": f"rp1 t={round(now * 1e6)}"}
        numbers = {"position": state.q.tolist(), "velocity": state.dq.tolist(), "effort": state.tau.tolist()}
        self._bridge.publish("/joint_states", {"header": header, "name": self._names, **numbers})
        if status is not None:
            self._bridge.publish("/robopref/status", {"data": json.dumps(status)})


@contextlib.asynccontextmanager
async def arm_node(
    url: str,
    backend: Backend | None = None,
    settings: Settings | None = None,
    limits: Limits = FR3,
    dialect: Dialect = "ros2",
) -> AsyncIterator[ArmNode]:
    """An arm node that cycles on this event loop, behind the bridge at `url`."""
    async with RosBridge(url, dialect) as bridge:
        guard = Guard(limits, settings or Settings())
        node = ArmNode(guard, backend or KinematicArm(), BridgeTransport(bridge, limits.name))

        async def cycle() -> None:
            while True:
                node.cycle(time.monotonic())
                await asyncio.sleep(PERIOD)

        task = asyncio.create_task(cycle())
        try:
            yield node
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            node.backend.close()


async def camera(
    bridge: RosBridge, where: Callable[[], np.ndarray], goal: np.ndarray, hz: float = 10.0, size: int = 128
) -> None:
    """Publish what a camera in front of the arm would see, until cancelled."""
    topic = "/robopref/camera/compressed"
    bridge.advertise(topic, "sensor_msgs/CompressedImage")
    while True:
        begin = time.monotonic()
        picture = await asyncio.to_thread(lambda: jpeg(draw(where(), goal, size)))
        header = {"stamp": {"sec": 0, "nanosec": 1}, "frame_id": "camera"}
        bridge.publish(topic, {"header": header, "format": "jpeg", "data": base64.b64encode(picture).decode()})
        await asyncio.sleep(max(0.0, 1 / hz - (time.monotonic() - begin)))
