"""A small rosbridge v2 server of our own: a broker between its clients, for tests of both dialects and for injected faults.

It never tells what a robot does; conformance to the protocol is established against rosbridge-server-rs with the same suite.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from ..frames import Decoder, FrameError, encode, to_png
from ..rosbridge import Dialect


@dataclass(eq=False)
class _Client:
    socket: Any
    outbox: asyncio.Queue[str | bytes] = field(default_factory=lambda: asyncio.Queue(64))
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    def send(self, frame: str | bytes) -> None:
        if not self.outbox.full():
            self.outbox.put_nowait(frame)


Tamper = Callable[[str, dict[str, Any]], list[tuple[float, dict[str, Any]]]]
"""(direction `in` or `out`, message) -> [(delay in seconds, message), ...]: how a fault changes what passes."""


class BridgeServer:
    """`async with BridgeServer() as server:` listens on `server.url`.

    With dialect `ros1` as strict as a ROS 1 server: types are `pkg/Name`, times keep `secs` and `nsecs` only, headers count, and the
    operations for actions do not exist.
    """

    def __init__(self, port: int = 0, token: str | None = None, dialect: Dialect = "ros2") -> None:
        self.port, self.token, self.dialect = port, token, dialect
        self.tamper: Tamper | None = None
        self.frozen = False
        """A half-open connection: it stands, and nothing passes."""
        self.published: list[tuple[str, Any]] = []
        self._clients: set[_Client] = set()
        self._providers: dict[str, _Client] = {}
        self._waiting: dict[str, tuple[_Client, Any]] = {}
        self._types: dict[str, str] = {}
        self._ids = itertools.count()
        self._server: Any = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> BridgeServer:
        from websockets.asyncio.server import serve

        self._server = await serve(self._client, "127.0.0.1", self.port, compression=None, max_size=16 * 2**20)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _client(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        client, decoder = _Client(socket), Decoder()
        self._clients.add(client)
        writer = asyncio.create_task(self._write(client))
        try:
            async for frame in socket:
                if self.frozen:
                    continue
                try:
                    message = decoder.decode(frame)
                    if message is not None:
                        await self._passing("in", message, lambda m: self._handle(client, m))
                except FrameError as error:
                    self._status(client, str(error))
        except ConnectionClosed:
            pass
        finally:
            writer.cancel()
            self._clients.discard(client)
            self._providers = {k: v for k, v in self._providers.items() if v is not client}

    async def _write(self, client: _Client) -> None:
        while True:
            frame = await client.outbox.get()
            if not self.frozen:
                await client.socket.send(frame)

    async def _passing(self, way: str, message: dict[str, Any], then: Callable[[dict[str, Any]], None]) -> None:
        for delay, one in [(0.0, message)] if self.tamper is None else self.tamper(way, message):
            if delay:
                asyncio.get_running_loop().call_later(delay, then, one)
            else:
                then(one)

    def _handle(self, client: _Client, message: dict[str, Any]) -> None:
        operation = getattr(self, f"_on_{message['op']}", None)
        if operation is None or (self.dialect == "ros1" and "action" in message["op"]):
            self._status(client, f"unknown op {message['op'][:40]}", message.get("id"))
            return
        try:
            operation(client, message)
        except (KeyError, TypeError, AttributeError) as error:
            self._status(client, f"{message['op']}: {error!r}", message.get("id"))

    def _status(self, client: _Client, text: str, name: object = None) -> None:
        client.send(json.dumps({"op": "status", "level": "error", "msg": text, **({"id": name} if name else {})}))

    # Topics ----------------------------------------------------------------------------------------------------------

    def _on_advertise(self, client: _Client, message: dict[str, Any]) -> None:
        if self.dialect == "ros1" and message["type"].count("/") != 1:
            self._status(client, f"{message['type']} is no type", message.get("id"))
            return
        kind = self._types.setdefault(message["topic"], message["type"])
        if kind != message["type"]:
            self._status(client, f"{message['topic']} is {kind}, not {message['type']}", message.get("id"))

    def _on_unadvertise(self, client: _Client, message: dict[str, Any]) -> None:
        self._types.pop(message["topic"], None)

    def _on_subscribe(self, client: _Client, message: dict[str, Any]) -> None:
        client.subscriptions[message["topic"]] = message

    def _on_unsubscribe(self, client: _Client, message: dict[str, Any]) -> None:
        client.subscriptions.pop(message["topic"], None)

    def _on_publish(self, client: _Client, message: dict[str, Any]) -> None:
        topic, content = message["topic"], message["msg"]
        if topic not in self._types or not isinstance(content, dict):
            self._status(client, f"{topic}: not advertised, or no message", message.get("id"))
            return
        content = self._kept(content)
        self.published.append((topic, content))
        del self.published[:-1000]
        for other in list(self._clients):
            wanted = other.subscriptions.get(topic)
            if wanted is None:
                continue
            now, every = time.monotonic(), wanted.get("throttle_rate", 0) / 1000
            if now - other.last.get(topic, float("-inf")) < every:
                continue
            other.last[topic] = now
            for frame in self._frames(wanted, {"op": "publish", "topic": topic, "msg": content}):
                other.send(frame)

    def _frames(self, wanted: dict[str, Any], message: dict[str, Any]) -> list[str | bytes]:
        compression = wanted.get("compression", "none")
        if compression == "cbor":
            import cbor2

            return [cbor2.dumps({**message, "msg": _typed(message["msg"])})]
        text = encode(message)
        if compression == "png":
            return [json.dumps({"op": "png", "data": to_png(text)})]
        size = wanted.get("fragment_size")
        if size and len(text) > size:
            parts = [text[i : i + size] for i in range(0, len(text), size)]
            words = {"op": "fragment", "id": str(next(self._ids)), "total": len(parts)}
            return [json.dumps({**words, "num": i, "data": part}) for i, part in enumerate(parts)]
        return [text]

    # Services and actions: passed from caller to provider and back ----------------------------------------------------

    def _on_advertise_service(self, client: _Client, message: dict[str, Any]) -> None:
        self._providers[message["service"]] = client

    def _on_unadvertise_service(self, client: _Client, message: dict[str, Any]) -> None:
        self._providers.pop(message["service"], None)

    def _on_advertise_action(self, client: _Client, message: dict[str, Any]) -> None:
        self._providers[message["action"]] = client

    def _on_call_service(self, client: _Client, message: dict[str, Any]) -> None:
        if message["service"] not in self._providers:
            words = {"service": message["service"], "id": message.get("id")}
            client.send(encode({"op": "service_response", **words, "values": "no such service", "result": False}))
            return
        self._forward(client, message, self._providers[message["service"]])

    def _on_send_action_goal(self, client: _Client, message: dict[str, Any]) -> None:
        if message["action"] not in self._providers:
            words = {"action": message["action"], "id": message.get("id"), "values": {}, "status": 6}
            client.send(encode({"op": "action_result", **words, "result": False}))
            return
        self._forward(client, message, self._providers[message["action"]])

    def _on_cancel_action_goal(self, client: _Client, message: dict[str, Any]) -> None:
        for own, (caller, name) in self._waiting.items():
            if caller is client and name == message.get("id"):
                self._providers[message["action"]].send(encode({**message, "id": own}))

    def _kept(self, content: dict[str, Any]) -> dict[str, Any]:
        """What this server's messages hold of a content."""
        return _ros1(content, self._ids) if self.dialect == "ros1" else content

    def _forward(self, client: _Client, message: dict[str, Any], provider: _Client) -> None:
        if "args" in message:
            message = {**message, "args": self._kept(message["args"])}
        own = f"call:{next(self._ids)}"
        self._waiting[own] = (client, message.get("id"))
        provider.send(encode({**message, "id": own}))

    def _on_service_response(self, client: _Client, message: dict[str, Any]) -> None:
        caller, name = self._waiting.pop(message["id"])
        values = message.get("values")
        kept = {"values": self._kept(values)} if isinstance(values, dict) else {}
        caller.send(encode({**message, **kept, "id": name}))

    _on_action_result = _on_service_response

    def _on_action_feedback(self, client: _Client, message: dict[str, Any]) -> None:
        caller, name = self._waiting[message["id"]]
        caller.send(encode({**message, "id": name}))


def _typed(value: Any) -> Any:
    """Lists of floats as a little-endian float64 array, tag 86."""
    import cbor2

    if isinstance(value, dict):
        return {k: _typed(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(x, float) for x in value):
        return cbor2.CBORTag(86, np.asarray(value, dtype="<f8").tobytes())
    return value


def _ros1(value: Any, count: Iterator[int]) -> Any:
    """A message as ROS 1 holds it: of a time or duration only `secs` and `nsecs`, 0 where they are missing, and headers with a `seq`."""
    if isinstance(value, list):
        return [_ros1(one, count) for one in value]
    if not isinstance(value, dict):
        return value
    if value and value.keys() <= {"sec", "nanosec", "secs", "nsecs"}:
        return {"secs": int(value.get("secs", 0)), "nsecs": int(value.get("nsecs", 0))}
    kept = {key: _ros1(one, count) for key, one in value.items()}
    return {"seq": next(count), **kept} if "frame_id" in kept else kept
