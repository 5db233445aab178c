"""Goals of actions over rosbridge: in ROS 2 by its own operations, in ROS 1 by the five topics that an action is there."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from .link import BridgeError

SUCCEEDED, CANCELED, ABORTED = 4, 5, 6
_ROS1: dict[int, int] = {3: SUCCEEDED, 2: CANCELED, 8: CANCELED}
"""actionlib: 3 succeeded, 2 and 8 cancelled; all others (4 aborted, 5 rejected) count as aborted."""


@dataclass(frozen=True)
class Result:
    """How an action ended."""

    status: int
    values: dict[str, Any]


@dataclass
class _Goal:
    done: asyncio.Future[Result]
    feedback: Callable[[Any], None] | None


class Topical(Protocol):
    """What goals need of a bridge client: its dialect and its topics."""

    @property
    def dialect(self) -> str:
        """ros1 or ros2."""

    def spelled(self, kind: str, group: str) -> str:
        """A type name in the server's dialect."""

    def listens(self, topic: str) -> bool:
        """Whether somebody hears a topic."""

    def stands(self, key: str) -> bool:
        """Whether something is said again after every reconnect."""

    def advertise(self, topic: str, kind: str) -> None:
        """Announce a topic."""

    def subscribe(self, topic: str, kind: str, handler: Callable[[Any], None], *, queue_length: int) -> None:
        """Hear a topic."""

    def publish(self, topic: str, message: dict[str, Any]) -> bool:
        """Send now or not at all."""


class Goals:
    """The goals that one bridge client has sent and that have not ended."""

    def __init__(self, bridge: Topical, send: Callable[[dict[str, Any]], bool]) -> None:
        self._bridge, self._send = bridge, send
        self._goals: dict[str, _Goal] = {}
        self._ids = itertools.count(1)

    async def send(
        self, action: str, kind: str, args: dict[str, Any], feedback: Callable[[Any], None] | None, timeout: float
    ) -> Result:
        """Run an action to its end. Cancelling the task cancels the goal. Raises `BridgeError` without an answer in time."""
        name = f"goal:{next(self._ids)}"
        goal = _Goal(asyncio.get_running_loop().create_future(), feedback)
        self._goals[name] = goal
        start = self._ros1_goal if self._bridge.dialect == "ros1" else self._ros2_goal
        try:
            start(action, kind, args, name)
            return await asyncio.wait_for(goal.done, timeout)
        except TimeoutError as error:
            self._cancel(action, name)
            raise BridgeError(f"{action}: got no result within {timeout} s") from error
        except asyncio.CancelledError:
            self._cancel(action, name)
            raise
        finally:
            self._goals.pop(name, None)

    def _ros2_goal(self, action: str, kind: str, args: dict[str, Any], name: str) -> None:
        words = {
            "action": action,
            "action_type": self._bridge.spelled(kind, "action"),
            "args": args,
            "feedback": True,
            "id": name,
        }
        if not self._send({"op": "send_action_goal", **words}):
            raise BridgeError(f"{action}: not connected")

    def _ros1_goal(self, action: str, kind: str, args: dict[str, Any], name: str) -> None:
        """In ROS 1 an action is five topics."""
        bridge = self._bridge
        for end, heard in (("result", True), ("feedback", True), ("goal", False), ("cancel", False)):
            topic = f"{action}/{end}"
            if heard and not bridge.listens(topic):
                bridge.subscribe(topic, f"{kind}Action{end.title()}", self._ros1_heard, queue_length=10)
            elif not heard and not bridge.stands(f"advertise {topic}"):
                bridge.advertise(topic, f"{kind}ActionGoal" if end == "goal" else "actionlib_msgs/GoalID")
        stamped = {"goal_id": {"id": name, "stamp": {"secs": 0, "nsecs": 0}}, "goal": args}
        if not self._bridge.publish(f"{action}/goal", {"header": {}, **stamped}):
            raise BridgeError(f"{action}: not connected")

    def _ros1_heard(self, message: Any) -> None:
        status = _part(message, "status")
        goal = self._goals.get(str(_part(status, "goal_id").get("id")))
        if goal is None:
            return
        if "feedback" in message and goal.feedback is not None:
            goal.feedback(message["feedback"])
        if "result" in message and not goal.done.done():
            code = status.get("status")
            goal.done.set_result(
                Result(_ROS1.get(code, ABORTED) if isinstance(code, int) else ABORTED, _part(message, "result"))
            )

    def _cancel(self, action: str, name: str) -> None:
        if self._bridge.dialect == "ros1":
            self._bridge.publish(f"{action}/cancel", {"id": name, "stamp": {"secs": 0, "nsecs": 0}})
        else:
            self._send({"op": "cancel_action_goal", "action": action, "id": name})

    def hears(self, message: dict[str, Any]) -> None:
        """Take in feedback on a goal of ours, or its end."""
        goal = self._goals.get(str(message.get("id")))
        if goal is None:
            return
        if message["op"] == "action_feedback" and goal.feedback is not None:
            goal.feedback(message.get("values"))
        elif message["op"] == "action_result" and not goal.done.done():
            goal.done.set_result(_result(message))

    def lost(self) -> list[asyncio.Future[Result]]:
        """What nobody will answer any more, now that the connection is gone."""
        return [goal.done for goal in self._goals.values()]


def _part(message: Any, key: str) -> dict[str, Any]:
    """A map inside a message; an empty one where there is anything else."""
    part = message.get(key) if isinstance(message, dict) else None
    return part if isinstance(part, dict) else {}


def _result(message: dict[str, Any]) -> Result:
    """The end of an action; servers differ in what they call a cancelled goal, so the status decides where there is one."""
    status, values = message.get("status"), message.get("values")
    if not isinstance(status, int):
        status = SUCCEEDED if message.get("result") else ABORTED
    return Result(status, values if isinstance(values, dict) else {})
