"""The arm's own ROS driver beside our node: what it says of arm and hand, its recovery from a reflex, the hand moved by it.

Joint commands go through our guard alone. The hand follows the width that the guard allows, and only while it runs: start the arm node with
`--no-gripper`, so that one of the two moves it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np

from .link import BridgeError, Mailbox
from .reasons import State
from .rosbridge import SUCCEEDED, RosBridge
from .topics import Driver
from .views import opening_of

_STEP = 2e-3
"""Metres of the wanted width that are worth a new order."""
_SPEED = 0.1
_OLD = 1.0


class DriverLink:
    """`start` once, then `run` as a task; `status` gives the guard's status."""

    def __init__(self, bridge: RosBridge, driver: Driver, status: Callable[[], dict[str, Any]]) -> None:
        self._bridge, self.driver, self._status = bridge, driver, status
        self._state, self._fingers = Mailbox(), Mailbox()
        self._ordered: float | None = None
        self.moves = self.refused = self.recoveries = 0

    def start(self) -> None:
        """Listen; said again by the bridge after every reconnect."""
        self._bridge.subscribe(self.driver.robot_state, self.driver.robot_state_type, self._state, throttle_rate=100)
        self._bridge.subscribe(self.driver.gripper_states, "sensor_msgs/JointState", self._fingers, throttle_rate=30)
        if not self.driver.gripper_actions:
            self._bridge.advertise(self.driver.gripper_move, "std_msgs/Float64MultiArray")

    def opening(self) -> float | None:
        """The measured opening of the hand, 0 to 1; None while the driver does not say."""
        message = self._fingers.message
        fingers = message.get("position") if isinstance(message, dict) and self._fingers.age < _OLD else None
        try:
            width = float(np.sum(np.asarray(fingers, dtype=np.float64)))  # two fingers, half a width each
        except (TypeError, ValueError):
            return None
        return opening_of(width) if np.isfinite(width) else None

    def told(self) -> dict[str, Any]:
        """robot_mode and errors as the driver last said them; empty while it is silent."""
        message = self._state.message
        if not isinstance(message, dict) or self._state.age > _OLD:
            return {}
        errors = message.get("current_errors")
        named = [name for name, is_set in errors.items() if is_set is True] if isinstance(errors, dict) else []
        return {"robot_mode": message.get("robot_mode"), "errors": named}

    async def run(self) -> None:
        """Move the hand after the guard's width, and ask the driver to recover whenever the guard does; until cancelled."""
        before: object = None
        while True:
            status = self._status()
            state = status.get("state")
            if state == State.RECOVERING and before != State.RECOVERING:
                await self._recover()
            before = state
            await self._follow(status)
            await asyncio.sleep(0.05)

    async def _follow(self, status: dict[str, Any]) -> None:
        width = status.get("gripper")
        if status.get("state") != State.RUNNING or not isinstance(width, int | float):
            return
        if self._ordered is not None and abs(width - self._ordered) <= _STEP:
            return
        self._ordered = float(width)
        self.moves += 1
        if not self.driver.gripper_actions:
            self._bridge.publish(
                self.driver.gripper_move, {"layout": {"dim": [], "data_offset": 0}, "data": [float(width)]}
            )
            return
        try:
            kind, args = f"{self.driver.gripper_package}/Move", {"width": float(width), "speed": _SPEED}
            done = await self._bridge.send_goal(self.driver.gripper_move, kind, args, timeout=5.0)
            self.refused += done.status != SUCCEEDED
        except BridgeError:
            self.refused += 1
            self._ordered = None  # asked again while the guard still wants it

    async def _recover(self) -> None:
        try:
            done = await self._bridge.send_goal(self.driver.recovery, self.driver.recovery_type, {}, timeout=5.0)
            self.recoveries += done.status == SUCCEEDED
        except BridgeError:
            self.refused += 1
