"""Messages of every wrong kind over real sockets, into every door: the bridge's client, the policy's client and server, the gateway.

After each flood the same connection must still do its work, and nothing may have ended: a client whose task has died still says
that it is connected, and an arm holds for good.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..frames import encode
from ..gateway import Gateway, Rules
from ..packing import pack, unpack
from ..policy_client import PolicyClient
from ..rosbridge import SUCCEEDED, Dialect, Result, RosBridge
from .bridge_server import BridgeServer

_OPS = (
    "publish", "service_response", "action_feedback", "action_result", "call_service", "send_action_goal", "cancel_action_goal",
    "status", "advertise", "subscribe", "fragment", "png", "set_level", "nothing",
)  # fmt: skip
_FIELDS = (
    "id", "topic", "service", "action", "msg", "args", "values", "result", "status", "level", "type", "data", "num", "total", "feedback",
    "goal_id", "header", "frame_id", "points", "joint_names", "positions", "state", "why", "reasons",
)  # fmt: skip
_NAMES = (
    "/t",
    "/s",
    "/a",
    "/a/result",
    "/a/feedback",
    "/joint_states",
    "/robopref/status",
    "/robopref/command",
    "goal:1",
)
_TOKEN = "a-token-of-the-fuzzing"


@dataclass
class Flooded:
    """What became of one flood."""

    sent: int = 0
    counted: int = 0
    """Of these, how many the other side counted as broken, failed or refused."""
    alive: bool = False
    """Whether the same connection still did its work afterwards."""
    passed: int = 0
    """What came through a door that should not have opened."""


def junk(rng: random.Random, depth: int = 3) -> Any:
    """Any value that JSON and msgpack can carry."""
    pick = rng.randrange(12)
    if pick < 3 and depth:
        return {_word(rng): junk(rng, depth - 1) for _ in range(rng.randrange(4))}
    if pick < 5 and depth:
        return [junk(rng, depth - 1) for _ in range(rng.randrange(4))]
    return rng.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            3,
            2**53,
            -(2**62),
            1e308,
            -0.0,
            0.5,
            "",
            "x",
            "\u20ac",
            "rp1 t=5",
            rng.choice(_NAMES),
        )
    )


def _word(rng: random.Random) -> str:
    return rng.choice(_FIELDS) if rng.random() < 0.8 else str(junk(rng, 0))


def _message(rng: random.Random) -> dict[str, Any]:
    """A message with a known operation, known names and unknown rest."""
    message: dict[str, Any] = {"op": rng.choice(_OPS) if rng.random() < 0.95 else junk(rng, 1)}
    for _ in range(rng.randrange(7)):
        message[rng.choice(_FIELDS)] = rng.choice(_NAMES) if rng.random() < 0.4 else junk(rng)
    return message


def _frame(rng: random.Random, message: Any) -> str | bytes:
    """The message as text or CBOR, whole or with changed, missing and new characters."""
    import cbor2

    if rng.random() < 0.2:
        if rng.random() < 0.5 and isinstance(message, dict):  # what CBOR carries and JSON does not
            message[rng.choice(_FIELDS)] = rng.choice((b"bytes", {3: 4}, cbor2.CBORTag(86, bytes(16)), float("nan")))
        return _torn(rng, cbor2.dumps(cbor2.CBORTag(rng.randrange(110), message) if rng.random() < 0.3 else message))
    text = json.dumps(message)
    return text if rng.random() < 0.6 else _torn(rng, text.encode()).decode("utf-8", errors="replace")


def _torn(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(changed) + 1)
        changed[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(4))
    return bytes(changed)


async def _until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = asyncio.get_running_loop().time() + seconds
    while not condition() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)
    return condition()


@asynccontextmanager
async def _server(first: bytes | None = None) -> AsyncIterator[tuple[str, list[Any]]]:
    """(url, sockets of who came): a server that says nothing but `first`."""
    from websockets.asyncio.server import serve

    sockets: list[Any] = []

    async def client(socket: Any) -> None:
        if first is not None:
            await socket.send(first)
        sockets.append(socket)
        async for _ in socket:
            pass

    async with serve(client, "127.0.0.1", 0, compression=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", sockets


async def flood_bridge_client(count: int, seed: int, dialect: Dialect = "ros2") -> Flooded:
    """`count` frames into a `RosBridge` that hears topics, offers a service and an action, and waits for goals."""
    rng, found, heard = random.Random(seed), Flooded(count), list[Any]()

    async def act(args: dict[str, Any], feedback: Callable[[Any], None]) -> Result:
        feedback({"order": args["order"] + 1})
        return Result(SUCCEEDED, {})

    async with _server() as (url, sockets), RosBridge(url, dialect) as bridge:
        await bridge.wait()
        for topic in ("/t", "/joint_states", "/robopref/status"):
            bridge.subscribe(topic, "std_msgs/String", lambda message: heard.append(message["data"] + "!"))
        bridge.serve("/s", "std_srvs/Trigger", lambda args: {"twice": 2 * args["n"]})
        bridge.offer_action("/a", "test/A", act)
        goals = [
            asyncio.create_task(bridge.send_goal("/a", "test/A", {}, feedback=lambda told: told.clear(), timeout=60))
            for _ in range(3)
        ]
        await _until(lambda: bool(sockets))
        for number in range(count):
            await sockets[0].send(_frame(rng, _message(rng)))
            if number % 100 == 0:
                await asyncio.sleep(0)
        await sockets[0].send(encode({"op": "publish", "topic": "/t", "msg": {"data": "still here"}}))
        found.alive = (
            await _until(lambda: "still here!" in heard) and bridge.connected and bridge.counters.connects == 1
        )
        found.counted = bridge.counters.broken + bridge.counters.failed
        for goal in goals:
            goal.cancel()
        await asyncio.gather(*goals, return_exceptions=True)
    return found


_REPLY = (
    "robopref/obs_id",
    "robopref/candidates",
    "robopref/policy_hash",
    "server_timing",
    "actions",
    "infer_ms",
    "horizon",
    "cameras",
)


def _packed(rng: random.Random, keys: tuple[str, ...], good: dict[str, Any]) -> bytes:
    """A good message with junk under some of its keys, at times damaged."""
    message = dict(good)
    arrays = (np.zeros((2, 2)), np.full(3, np.nan), np.zeros(0), np.array("x"), np.float64(2), np.full((16, 7), 1e300))
    for _ in range(rng.randrange(1, 4)):
        message[rng.choice(keys)] = rng.choice(arrays) if rng.random() < 0.3 else junk(rng)
    data = pack(message)
    return data if rng.random() < 0.6 else _torn(rng, data)


async def flood_policy_client(count: int, seed: int, read: Callable[[dict[str, Any]], object]) -> Flooded:
    """`count` replies into a `PolicyClient`; `read` is what its owner does with each."""
    rng, found = random.Random(seed), Flooded(count)
    good: dict[str, Any] = {
        "robopref/obs_id": 1,
        "actions": np.zeros((16, 7), np.float32),
        "server_timing": {"infer_ms": 3.0},
    }
    async with _server(pack({"horizon": 16, "execute": 8, "action": 7})) as (url, sockets), PolicyClient(url) as client:
        await _until(lambda: client.connected)
        for number in range(count):
            await sockets[0].send(_packed(rng, _REPLY, good))
            if number % 5 == 0:
                await asyncio.sleep(0)
            while client.replies:
                read(client.replies.pop(0)[1])
        await sockets[0].send(pack({**good, "robopref/obs_id": 77}))

        def came() -> bool:
            return any(reply.get("robopref/obs_id") == 77 for _, reply in client.replies)

        found.alive, found.counted = await _until(came) and client.connects == 1, client.broken
    return found


async def flood_policy_server(count: int, seed: int, url: str, good: dict[str, Any]) -> Flooded:
    """`count` requests into the policy server at `url`, on one connection; `good` is a request that it answers."""
    from websockets.asyncio.client import connect

    keys = (
        *good,
        "robopref/proto",
        "robopref/previous",
        "robopref/delay",
        "robopref/deadline_ms",
        "robopref/obs_id",
        "images",
        "prompt",
    )
    rng, found = random.Random(seed), Flooded(count)
    async with connect(url, compression=None) as socket:
        await socket.recv()

        async def listen() -> bool:
            async for frame in socket:
                found.counted += isinstance(frame, str)
                if isinstance(frame, bytes) and unpack(frame).get("robopref/obs_id") == 77:
                    return True
            return False

        listening = asyncio.create_task(listen())
        for _ in range(count):
            await socket.send(_packed(rng, keys, good))
        await asyncio.sleep(0.2)
        await socket.send(pack({**good, "robopref/obs_id": 77}))
        found.alive = await asyncio.wait_for(listening, 60.0)
    return found


async def flood_gateway(count: int, seed: int) -> Flooded:
    """`count` frames into a `Gateway` in front of a bridge; what passes must be on its list."""
    from websockets.asyncio.client import connect

    rng, rules = random.Random(seed), Rules(rate=10**9)
    found, allowed = Flooded(count), {*rules.publish}
    async with BridgeServer() as server, Gateway(server.url, _TOKEN, rules=rules) as gateway:
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        async with connect(gateway.url, compression=None, additional_headers=headers) as socket:
            listening = asyncio.create_task(_listen(socket))
            for _ in range(count):
                await socket.send(_frame(rng, _message(rng)))
            topic = sorted(allowed)[0]
            for message in (
                {"op": "advertise", "topic": topic, "type": "x/Y"},
                {"op": "publish", "topic": topic, "msg": {"data": "end"}},
            ):
                await socket.send(encode(message))
            found.alive = await _until(lambda: (topic, {"data": "end"}) in server.published)
            listening.cancel()
        found.counted = gateway.passed.refused
        found.passed = sum(name not in allowed for name, _ in server.published) + len(server._providers)
    return found


async def _listen(socket: Any) -> None:
    async for _ in socket:
        pass
