"""An asyncio client of the rosbridge v2 protocol for ROS 1 and ROS 2 servers: topics, services, actions.

It reconnects with growing pauses, then advertises and subscribes again and tells `on_connect`; what was missed meanwhile stays
missed. Inbound topics end in mailboxes of one, where the latest message wins. A lost publish is silent in this protocol: only an
answer from the other side proves delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl as tls
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Literal

from robopref.arrays import InputError

from .dialects import to_ros1, to_ros2
from .frames import MAX_BYTES, FrameError
from .goals import ABORTED, CANCELED, SUCCEEDED, Goals, Result
from .link import MALFORMED, BridgeError, Link, Mailbox

Dialect = Literal["ros1", "ros2"]
Handler = Callable[[Any], None]
Service = Callable[[dict[str, Any]], Awaitable[dict[str, Any]] | dict[str, Any]]
__all__ = ["ABORTED", "CANCELED", "SUCCEEDED", "BridgeError", "Dialect", "Mailbox", "Result", "RosBridge"]


class RosBridge:
    """`async with RosBridge(url) as bridge:` connects and stays connected; `bridge.connected` is the current state."""

    def __init__(
        self,
        url: str,
        dialect: Dialect = "ros2",
        *,
        token: str | None = None,
        ssl: tls.SSLContext | None = None,
        ping: float = 1.0,
        backoff: tuple[float, float] = (0.1, 2.0),
        limit: int = MAX_BYTES,
    ) -> None:
        if dialect not in ("ros1", "ros2"):
            raise InputError(f"RosBridge.dialect: got {dialect!r}, wanted ros1 or ros2.")
        self.url = url
        self.dialect: Dialect = dialect
        self._link = Link(
            url, self._dispatch, self._down, token=token, ssl=ssl, ping=ping, backoff=backoff, limit=limit
        )
        self.counters, self.on_connect = self._link.counters, self._link.on_connect
        self._send, self._stand, self._fall = self._link.send, self._link.stand, self._link.fall
        self._task: asyncio.Task[None] | None = None
        self._ids = itertools.count(1)
        self._topics: dict[str, list[Handler]] = {}
        self._services: dict[str, Service] = {}
        self._actions: dict[str, Callable[[dict[str, Any], Handler], Awaitable[Result]]] = {}
        self._calls: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._goals = Goals(self, self._send)
        self._jobs: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether a connection stands now."""
        return self._link.up.is_set()

    async def __aenter__(self) -> RosBridge:
        self._task = asyncio.create_task(self._link.stay())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)  # their errors were counted
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def wait(self, timeout: float = 10.0) -> None:
        """Wait for a connection. Raises `BridgeError` when none comes."""
        try:
            await asyncio.wait_for(self._link.up.wait(), timeout)
        except TimeoutError as error:
            raise BridgeError(f"{self.url}: got no connection within {timeout} s") from error

    # Topics ----------------------------------------------------------------------------------------------------------

    def advertise(self, topic: str, kind: str, *, latch: bool = False, queue_size: int = 1) -> None:
        """Announce a topic; said again after every reconnect."""
        words = {"topic": topic, "type": self.spelled(kind), "latch": latch, "queue_size": queue_size}
        self._stand(f"advertise {topic}", {"op": "advertise", **words})

    def unadvertise(self, topic: str) -> None:
        """Take the announcement back."""
        self._fall(f"advertise {topic}", {"op": "unadvertise", "topic": topic})

    def publish(self, topic: str, message: dict[str, Any]) -> bool:
        """Send now or not at all; False when there is no connection or it is congested. Raises `FrameError` for NaN.

        Times are spelled `sec`, `nanosec` here whatever the server's dialect, in what is heard, too.
        """
        return self._send({"op": "publish", "topic": topic, "msg": self._said(message)})

    def subscribe(
        self,
        topic: str,
        kind: str,
        handler: Handler,
        *,
        throttle_rate: int = 0,
        queue_length: int = 1,
        compression: Literal["none", "png", "cbor", "cbor-raw"] = "none",
        fragment_size: int | None = None,
    ) -> None:
        """Call `handler` with every message; said again after every reconnect. `throttle_rate` in milliseconds."""
        self._topics.setdefault(topic, []).append(handler)
        words: dict[str, Any] = {"topic": topic, "type": self.spelled(kind), "throttle_rate": throttle_rate}
        words |= {"queue_length": queue_length, "compression": compression}
        if fragment_size is not None:
            words["fragment_size"] = fragment_size
        self._stand(f"subscribe {topic}", {"op": "subscribe", **words})

    def unsubscribe(self, topic: str) -> None:
        """Hear nothing of a topic any more."""
        self._topics.pop(topic, None)
        self._fall(f"subscribe {topic}", {"op": "unsubscribe", "topic": topic})

    # Services --------------------------------------------------------------------------------------------------------

    async def call(
        self, service: str, kind: str, args: dict[str, Any] | None = None, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Call a service. Raises `BridgeError` when it fails, is unknown, or does not answer."""
        name = f"call_service:{next(self._ids)}"
        self._calls[name] = asyncio.get_running_loop().create_future()
        words = {"service": service, "type": self.spelled(kind, "srv"), "args": self._said(args or {}), "id": name}
        try:
            if not self._send({"op": "call_service", **words}):
                raise BridgeError(f"{service}: not connected")
            answer = await asyncio.wait_for(self._calls[name], timeout)
        except TimeoutError as error:
            raise BridgeError(f"{service}: got no answer within {timeout} s") from error
        finally:
            self._calls.pop(name, None)
        if not answer.get("result", True):
            raise BridgeError(f"{service}: {answer.get('values')}")
        values = answer.get("values")
        return values if isinstance(values, dict) else {}

    def serve(self, service: str, kind: str, handler: Service) -> None:
        """Offer a service; said again after every reconnect."""
        self._services[service] = handler
        words = {"service": service, "type": self.spelled(kind, "srv")}
        self._stand(f"service {service}", {"op": "advertise_service", **words})

    # Actions ---------------------------------------------------------------------------------------------------------

    async def send_goal(
        self, action: str, kind: str, args: dict[str, Any], *, feedback: Handler | None = None, timeout: float = 30.0
    ) -> Result:
        """Run an action to its end. Cancelling the task cancels the goal. Raises `BridgeError` without an answer in time."""
        return await self._goals.send(action, kind, args, feedback, timeout)

    def offer_action(
        self, action: str, kind: str, handler: Callable[[dict[str, Any], Handler], Awaitable[Result]]
    ) -> None:
        """Offer an action (ROS 2): `handler(args, feedback) -> Result`; a cancelled goal cancels the handler's task."""
        self._actions[action] = handler
        words = {"action": action, "type": self.spelled(kind, "action")}
        self._stand(f"action {action}", {"op": "advertise_action", **words})

    def listens(self, topic: str) -> bool:
        """Whether somebody here hears a topic."""
        return topic in self._topics

    def stands(self, key: str) -> bool:
        """Whether something (`advertise TOPIC`) is said again after every reconnect."""
        return self._link.stands(key)

    def spelled(self, kind: str, group: str = "msg") -> str:
        """A type name in the server's dialect: `pkg/Name` in ROS 1, `pkg/msg/Name` in ROS 2."""
        package, _, rest = kind.partition("/")
        name = rest.rpartition("/")[2]
        return f"{package}/{name}" if self.dialect == "ros1" else f"{package}/{group}/{name}"

    def _said(self, message: Any) -> Any:
        return to_ros1(message) if self.dialect == "ros1" else message

    def _down(self) -> None:
        unanswered: list[asyncio.Future[Any]] = [*self._calls.values()]
        unanswered.extend(self._goals.lost())
        for waiting in unanswered:
            if not waiting.done():
                waiting.set_exception(BridgeError(f"{self.url}: the connection was lost"))

    def _dispatch(self, message: dict[str, Any]) -> None:
        name = str(message.get("id"))
        if self.dialect == "ros1":
            message = to_ros2(message)
        match message["op"]:
            case "publish":
                for handler in self._topics.get(str(message.get("topic")), ()):
                    self._hear(handler, message.get("msg"))
            case "service_response" if name in self._calls and not self._calls[name].done():
                self._calls[name].set_result(message)
            case "action_feedback" | "action_result":
                self._goals.hears(message)
            case "call_service" if (service := str(message.get("service"))) in self._services:
                self._start(self._answer(service, message))
            case "send_action_goal" if (action := str(message.get("action"))) in self._actions:
                self._start(self._perform(action, message), name=f"perform {name}")
            case "cancel_action_goal":
                for job in self._jobs:
                    if job.get_name() == f"perform {name}":
                        job.cancel()
            case "status":
                self.counters.statuses = [*self.counters.statuses[-19:], str(message.get("msg"))[:500]]

    def _hear(self, handler: Handler, message: Any) -> None:
        try:
            handler(message)
        except MALFORMED as error:
            self.counters.failure(error)

    def _start(self, work: Any, name: str | None = None) -> None:
        job = asyncio.create_task(work, name=name)
        self._jobs.add(job)
        job.add_done_callback(self._ended)

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            self.counters.failure(error)

    async def _answer(self, service: str, message: dict[str, Any]) -> None:
        """Call an offered service; the caller gets an answer whatever happens."""
        words = {"op": "service_response", "service": service, "id": message.get("id")}
        values: Any = None
        try:
            values = self._services[service](_args(message))
            if not isinstance(values, dict):
                values = await values
        finally:
            done = isinstance(values, dict)
            self._tell({**words, "values": self._said(values) if done else "the service failed", "result": done})

    async def _perform(self, action: str, message: dict[str, Any]) -> None:
        """Run an offered action; the goal ends with a result whatever happens."""
        name, result = message.get("id"), Result(ABORTED, {})

        def feedback(values: Any) -> None:
            self._send({"op": "action_feedback", "action": action, "id": name, "values": values})

        try:
            said: Any = await self._actions[action](_args(message), feedback)
            result = said if isinstance(said, Result) else result
        except asyncio.CancelledError:
            result = Result(CANCELED, {})
        finally:
            words = {"op": "action_result", "action": action, "id": name, "values": result.values}
            self._tell({**words, "status": result.status, "result": result.status == SUCCEEDED})

    def _tell(self, answer: dict[str, Any]) -> None:
        """Send an answer; one that JSON cannot carry becomes a failure."""
        try:
            self._send(answer)
        except FrameError as error:
            self.counters.failure(error)
            failed: dict[str, Any] = {"values": {}, "status": ABORTED} if "status" in answer else {"values": str(error)}
            self._send({**answer, **failed, "result": False})


def _args(message: dict[str, Any]) -> dict[str, Any]:
    args = message.get("args")
    return args if isinstance(args, dict) else {}
