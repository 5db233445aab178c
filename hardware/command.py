"""A joint command on the wire: `trajectory_msgs/JointTrajectory` with one point, its bookkeeping in `header.frame_id`.

`rp1 e=3 s=1207 t=81234567 o=81199000 n=2 c=88 k=5d2f01ab`: epoch, sequence, newest robot-side stamp the sender had seen, robot-side
stamp of the observation the action was computed from (both microseconds of the robot's monotonic clock, echoed), which step of its
chunk this is, the chunk, and a CRC-32 of all of it with positions and duration: a digit that changed on the way makes another valid
command, which nobody sent. ROS 2 headers have no sequence, and a server fills an empty stamp with "now": ages are judged by the echoed
stamps only, so that no two clocks are ever compared.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .limits import JOINTS
from .reasons import Reason

PROTOCOL = "rp1"
FINGERS = "finger_joint1"
_DIGITS = 9
"""Decimals of a position on the wire."""
_PATTERN = re.compile(
    r"(rp1 e=(\d{1,9}) s=(\d{1,12}) t=(\d{1,18}) o=(\d{1,18}) n=(\d{1,4}) c=(\d{1,12})) k=([0-9a-f]{8})"
)


@dataclass(frozen=True)
class Command:
    """One target for the arm. Times are seconds of the robot's monotonic clock."""

    epoch: int
    seq: int
    seen: float
    """Newest robot-side stamp the sender had seen when it sent this."""
    observed: float
    """Robot-side stamp of the observation behind the action."""
    step: int = 0
    chunk: int = 0
    target: np.ndarray = field(default_factory=lambda: np.full(JOINTS, np.nan))
    """(7,) joint positions, rad."""
    gripper: float | None = None
    """Width between the fingers, metres."""
    duration: float = 0.0
    """Seconds in which the target should be reached."""
    fault: Reason = Reason.NONE
    """What was already wrong when the message was read."""


def joint_names(arm: str) -> list[str]:
    """Names of the seven joints, as the arm's ROS driver has them."""
    return [f"{arm}_joint{i + 1}" for i in range(JOINTS)]


def header(epoch: int, seq: int, seen: float, observed: float, step: int = 0, chunk: int = 0) -> str:
    """The `frame_id` of a command without its checksum; times in seconds of the robot's clock."""
    return f"{PROTOCOL} e={epoch} s={seq} t={round(seen * 1e6)} o={round(observed * 1e6)} n={step} c={chunk}"


def checksum(head: str, positions: np.ndarray, duration: float) -> str:
    """CRC-32 in hexadecimal over `header`, positions ((7,) or (8,) with the gripper) and duration in seconds.

    Over billionths of a radian: a bridge may read a decimal as the float64 beside the nearest one (a command is sent with as many digits).
    """
    with np.errstate(over="ignore"):
        whole = np.rint(positions * 1e9) + 0.0  # no negative zero
    numbers = np.where(np.isnan(whole), np.nan, whole).astype("<f8").tobytes()  # one NaN: JSON has only null
    return f"{zlib.crc32(head.encode() + numbers + str(round(duration * 1e9)).encode()):08x}"


def message(command: Command, arm: str = "fr3") -> dict[str, Any]:
    """The command as a JointTrajectory dictionary in ROS 2 spelling."""
    names, positions = joint_names(arm), [round(float(x), _DIGITS) for x in command.target]
    if command.gripper is not None:
        names, positions = [*names, f"{arm}_{FINGERS}"], [*positions, round(float(command.gripper), _DIGITS)]
    seconds = int(command.duration)
    point = {
        "positions": positions,
        "time_from_start": {"sec": seconds, "nanosec": round((command.duration - seconds) * 1e9)},
    }
    frame = header(command.epoch, command.seq, command.seen, command.observed, command.step, command.chunk)
    frame += f" k={checksum(frame, np.array(positions), _seconds(point['time_from_start']) or 0.0)}"
    return {
        "header": {"stamp": {"sec": 0, "nanosec": 1}, "frame_id": frame},
        "joint_names": names,
        "points": [point],
    }


def read(frame_id: str, names: Sequence[str], points: Sequence[Mapping[str, Any]], arm: str = "fr3") -> Command:
    """A command from the fields of a JointTrajectory. Never raises: what is wrong becomes the command's `fault`."""
    match = _PATTERN.fullmatch(frame_id) if isinstance(frame_id, str) else None
    if match is None:
        return Command(-1, -1, 0.0, 0.0, fault=Reason.EPOCH)
    head, *numbered, told = match.groups()
    epoch, seq, seen, observed, step, chunk = map(int, numbered)

    def command(**rest: Any) -> Command:
        return Command(epoch, seq, seen * 1e-6, observed * 1e-6, step, chunk, **rest)

    wanted, listed = joint_names(arm), list(names)
    if listed not in (wanted, [*wanted, f"{arm}_{FINGERS}"]):
        return command(fault=Reason.NAMES)
    if len(points) != 1:
        return command(fault=Reason.SHAPE)
    positions = points[0].get("positions")
    if not isinstance(positions, Sequence | np.ndarray) or isinstance(positions, str | bytes):
        return command(fault=Reason.DTYPE)
    if len(positions) != len(listed):
        return command(fault=Reason.SHAPE)
    # JSON has no NaN: servers write null.
    numbers = [float("nan") if x is None else x for x in positions]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers):
        return command(fault=Reason.DTYPE)
    try:
        target = np.array(numbers, dtype=np.float64)
    except OverflowError:  # an integer beyond float64
        return command(fault=Reason.NONFINITE)
    duration = _seconds(points[0].get("time_from_start", 0.0))
    if duration is None:
        return command(fault=Reason.DTYPE)
    if checksum(head, target, duration) != told:
        return command(fault=Reason.DAMAGED)
    gripper = float(target[JOINTS]) if len(target) > JOINTS else None
    return command(target=target[:JOINTS], gripper=gripper, duration=duration)


def _seconds(value: Any) -> float | None:
    """A duration in ROS 2 or ROS 1 spelling, or plain seconds; None if it is neither."""
    if isinstance(value, Mapping):
        parts = value.get("sec", value.get("secs", 0)), value.get("nanosec", value.get("nsecs", 0))
    else:
        parts = value, 0
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e18 for x in parts):
        return None
    return float(parts[0]) + 1e-9 * float(parts[1])
