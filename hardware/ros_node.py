"""The arm node as a ROS 2 program: joint states and guard status out, commands and controls in.

Run in the robot PC's ROS environment: python -m robopref.hardware.ros_node --address 172.16.0.2

| topic | type | |
|---|---|---|
| /joint_states | sensor_msgs/JointState | 100 Hz; `header.frame_id` is `rp1 t=MICROSECONDS` of this machine's monotonic clock |
| /robopref/status | std_msgs/String | 50 Hz; JSON: state, why, reasons, epoch, seq, target |
| /robopref/command | trajectory_msgs/JointTrajectory | in, see `command.py` |
| /robopref/control | std_msgs/String | in; JSON: {"op": "arm", "epoch": 3}, disarm, estop, reset, recover, deadman; `"by": "program"` where no person asked |
| /robopref/estop | std_srvs/Trigger | service; stops and latches |
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from robopref.arrays import InputError

from . import command as wire
from .command import Command
from .controls import STOP, Controls, control
from .franka import ArmNode, ArmState, FrankaBackend, by_name
from .guard import Guard, Settings
from .journal import Journal
from .latch import Latch, place
from .limits import ARMS
from .workspace import Workspace
from .workspace_file import read_workspace

_DEPTH = 256
"""Control messages that ROS keeps until they are looked at: far more than come in a cycle, so that no stop is pushed out."""


class RosTransport:
    """Topics and services of one arm; callbacks run on the executor's thread and only fill bounded queues."""

    def __init__(self, node: Any, arm: str) -> None:
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String
        from std_srvs.srv import Trigger
        from trajectory_msgs.msg import JointTrajectory

        self._node, self._arm, self._names = node, arm, wire.joint_names(arm)
        self._joint_state, self._string = JointState, String
        self._commands: deque[Command] = deque(maxlen=64)
        self._controls = Controls()
        self._states = node.create_publisher(JointState, "/joint_states", 1)
        self._status = node.create_publisher(String, "/robopref/status", 1)
        node.create_subscription(JointTrajectory, "/robopref/command", self._command, 64)
        node.create_subscription(String, "/robopref/control", lambda m: self._controls.put(control(m.data)), _DEPTH)
        node.create_service(Trigger, "/robopref/estop", self._estop)

    def _command(self, message: Any) -> None:
        points = [
            {
                "positions": list(point.positions),
                "time_from_start": point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec,
            }
            for point in message.points[:2]
        ]
        self._commands.append(wire.read(message.header.frame_id, message.joint_names[:9], points, self._arm))

    def _estop(self, request: Any, response: Any) -> Any:
        self._controls.put(STOP)
        response.success, response.message = True, "stopping"
        return response

    def commands(self) -> list[Command]:
        """Commands since the last call, in order."""
        return [self._commands.popleft() for _ in range(len(self._commands))]

    def controls(self) -> list[dict[str, Any]]:
        """Control messages since the last call."""
        return self._controls.take()

    def publish(self, now: float, state: ArmState, status: dict[str, Any] | None) -> None:
        """Tell the state, and when it is due the guard's status."""
        message = self._joint_state()
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.header.frame_id = f"rp1 t={round(now * 1e6)}"
        message.name, message.position = self._names, state.q.tolist()
        message.velocity, message.effort = state.dq.tolist(), state.tau.tolist()
        self._states.publish(message)
        if status is not None:
            self._status.publish(self._string(data=json.dumps(status)))


def configured(words: list[str] | None = None) -> tuple[argparse.Namespace, Guard]:
    """What the command line says, and the guard that it asks for; ends the program with a sentence where it makes no sense."""
    parser = argparse.ArgumentParser(description="arm node: guard and 1 kHz loop of one Franka arm")
    parser.add_argument("--address", required=True, help="address of the arm's control box, or of the simulator")
    parser.add_argument("--arm", choices=sorted(ARMS), default="fr3")
    parser.add_argument("--speed", type=float, default=0.3, help="fraction of the arm's speed (default 0.3)")
    parser.add_argument(
        "--deadman", action="store_true", help="ask for a button that is held down (one is on the page)"
    )
    parser.add_argument("--workspace", type=Path, help="where the arm may be, a YAML file (see docs/hardware.md)")
    parser.add_argument(
        "--stop-file", type=Path, help="keeps a latched stop for the next start (default in ~/.local/state)"
    )
    parser.add_argument("--no-gripper", action="store_true")
    parser.add_argument("--realtime", choices=("enforce", "ignore"), default="enforce")
    parser.add_argument("--journal", type=Path, help="write every call to the guard here")
    given = parser.parse_args(words)
    try:
        workspace = Workspace() if given.workspace is None else read_workspace(given.workspace)
        guard = Guard(ARMS[given.arm], Settings(speed=given.speed, deadman=given.deadman), workspace)
    except InputError as error:
        parser.error(str(error))
    return given, guard


def main(words: list[str] | None = None) -> None:
    """Run the node until SIGINT or SIGTERM."""
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    given, guard = configured(words)
    latch = Latch(given.stop_file or place(given.address))
    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    ros = rclpy.create_node("robopref_arm")
    backend = FrankaBackend(given.address, guard.limits, realtime=given.realtime, gripper=not given.no_gripper)
    journal = Journal(guard, given.journal)
    node = ArmNode(guard, backend, RosTransport(ros, given.arm), journal, latch=latch)
    executor = SingleThreadedExecutor()
    executor.add_node(ros)

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            executor.spin()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.stop())
    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    print(
        f"arm node: {given.arm} at {given.address}, started at {time.monotonic():.3f}; {guard.workspace.told()}",
        flush=True,
    )
    if latch.held:
        print("stopped before this start: an operator must clear the stop", flush=True)
    node.run()
    journal.close()
    told = vars(node.counts) | {"bits": by_name(node.counts.bits), "held": by_name(node.counts.held)}
    print(json.dumps(told), flush=True)
    executor.shutdown(timeout_sec=1.0)
    rclpy.shutdown()


if __name__ == "__main__":
    main()
