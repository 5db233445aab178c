"""Times and durations in the spelling of ROS 1 (`secs`, `nsecs`) and ROS 2 (`sec`, `nanosec`); the package speaks ROS 2 inside.

A ROS 1 server fills a time's fields by their names and leaves those it does not know: a duration in ROS 2 spelling arrives there as 0.
"""

from __future__ import annotations

from typing import Any

_TO_ROS1 = {"sec": "secs", "nanosec": "nsecs"}
_TO_ROS2 = {old: new for new, old in _TO_ROS1.items()}


def to_ros1(message: Any) -> Any:
    """A message with its times spelled for ROS 1; the given one stays as it is."""
    return _respelled(message, _TO_ROS1)


def to_ros2(message: Any) -> Any:
    """A message with its times spelled as in ROS 2; the given one stays as it is."""
    return _respelled(message, _TO_ROS2)


def _respelled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if value and value.keys() <= names.keys():
            return {names[key]: number for key, number in value.items()}
        return {key: _respelled(one, names) for key, one in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [_respelled(one, names) for one in value]
    return value
