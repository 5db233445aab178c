"""Names of topics and services per ROS driver of the arm: ours, franka_ros2, franka_ros, crisp."""

from __future__ import annotations

from dataclasses import dataclass

from .choices import chosen
from .rosbridge import Dialect


@dataclass(frozen=True)
class Topics:
    """Where the agent listens and speaks."""

    joint_states: str = "/joint_states"
    status: str = "/robopref/status"
    command: str = "/robopref/command"
    control: str = "/robopref/control"
    camera: str | None = "/robopref/camera/compressed"
    arm: str = "fr3"
    dialect: Dialect = "ros2"


@dataclass(frozen=True)
class Driver:
    """What a driver of the arm publishes and offers. `deploy driver=NAME` uses its states, recovery and gripper (`driver.DriverLink`);
    joint commands still go through our guard, so `trajectory` is only named."""

    joint_states: str
    robot_state: str
    robot_state_type: str
    trajectory: str
    recovery: str
    recovery_type: str
    gripper_move: str
    gripper_grasp: str
    gripper_package: str
    gripper_states: str
    """sensor_msgs/JointState of the fingers, half a width each."""
    gripper_actions: bool
    """Whether the hand is moved by an action; else by a topic of widths."""
    dialect: Dialect


FRANKA_ROS2 = Driver(
    joint_states="/joint_states",
    robot_state="/franka_robot_state_broadcaster/robot_state",
    robot_state_type="franka_msgs/FrankaRobotState",
    trajectory="/joint_trajectory_controller/joint_trajectory",
    recovery="/action_server/error_recovery",
    recovery_type="franka_msgs/ErrorRecovery",
    gripper_move="/franka_gripper/move",
    gripper_grasp="/franka_gripper/grasp",
    gripper_package="franka_msgs",
    gripper_states="/franka_gripper/joint_states",
    gripper_actions=True,
    dialect="ros2",
)
FRANKA_ROS = Driver(
    joint_states="/joint_states",
    robot_state="/franka_state_controller/franka_states",
    robot_state_type="franka_msgs/FrankaState",
    trajectory="/position_joint_trajectory_controller/command",
    recovery="/franka_control/error_recovery",
    recovery_type="franka_msgs/ErrorRecovery",
    gripper_move="/franka_gripper/move",
    gripper_grasp="/franka_gripper/grasp",
    gripper_package="franka_gripper",
    gripper_states="/franka_gripper/joint_states",
    gripper_actions=True,
    dialect="ros1",
)
CRISP = Driver(
    joint_states="/joint_states",
    robot_state="/current_pose",
    robot_state_type="geometry_msgs/PoseStamped",
    trajectory="/target_joint",
    recovery="/action_server/error_recovery",
    recovery_type="franka_msgs/ErrorRecovery",
    gripper_move="/gripper/gripper_position_controller/commands",
    gripper_grasp="",
    gripper_package="std_msgs",
    gripper_states="/gripper/joint_states",
    gripper_actions=False,
    dialect="ros2",
)
DRIVERS = {"franka_ros2": FRANKA_ROS2, "franka_ros": FRANKA_ROS, "crisp": CRISP}


def driver(name: str) -> Driver:
    """A driver's map by name. Raises `InputError` for an unknown one."""
    return chosen("driver", name, DRIVERS)
