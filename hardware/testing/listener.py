"""What the arm says of itself, beside the bridge, so that a killed bridge hides nothing: joint states as lines of JSON.

Run in the robot's ROS environment: python -m robopref.hardware.testing.listener FILE; each line is [stamp in microseconds, q, dq].
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any


def main(path: Path) -> None:
    """Write until SIGINT."""
    import rclpy
    from rclpy.executors import ExternalShutdownException
    from sensor_msgs.msg import JointState

    rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    node = rclpy.create_node("robopref_listener")
    stopping: list[bool] = []
    signal.signal(signal.SIGINT, lambda *_: stopping.append(True))
    with path.open("w", encoding="utf-8", buffering=1) as file:

        def heard(message: Any) -> None:
            stamp = int(message.header.frame_id.rpartition("=")[2])
            file.write(json.dumps([stamp, list(message.position), list(message.velocity)]) + "\n")

        node.create_subscription(JointState, "/joint_states", heard, 100)
        try:
            while not stopping:
                rclpy.spin_once(node, timeout_sec=0.1)
        except ExternalShutdownException:
            pass
    rclpy.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
