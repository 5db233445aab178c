"""Who and what must be refused: connections without the token and oversized frames at the gateway, replayed and foreign commands at the guard."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np

_TOKEN = "a-token-of-the-benchmark"


def passed_through(count: int) -> dict[str, int]:
    """Kind of attempt -> how many of `count` were not refused."""
    return asyncio.run(_at_the_gateway(count)) | _at_the_guard(count)


async def _at_the_gateway(count: int) -> dict[str, int]:
    from robopref.hardware.gateway import Gateway
    from robopref.hardware.testing.bridge_server import BridgeServer
    from robopref.hardware.topics import Topics

    rng, passed = np.random.default_rng(0), {"unauthorised": 0, "oversized": 0}
    async with BridgeServer() as server, Gateway(server.url, _TOKEN) as gateway:
        for _ in range(count):
            passed["unauthorised"] += await _opens(gateway.url, _wrong(rng))
        large = {"op": "publish", "topic": Topics().command, "msg": {"data": "x" * 70_000}}
        for _ in range(count):
            await _sends(gateway.url, json.dumps(large))
        passed["oversized"] = gateway.passed.inward + len(server.published)
    return passed


def _wrong(rng: np.random.Generator) -> str | None:
    """No token, a prefix of it, one with a changed character, another scheme, or anything."""
    at = int(rng.integers(len(_TOKEN)))
    changed = _TOKEN[:at] + chr(33 + (ord(_TOKEN[at]) - 32) % 90) + _TOKEN[at + 1 :]
    choices = (
        None,
        f"Bearer {_TOKEN[:at]}",
        f"Bearer {changed}",
        f"Basic {_TOKEN}",
        "".join(map(chr, rng.integers(33, 126, 20))),
    )
    return choices[int(rng.integers(len(choices)))]


async def _opens(url: str, said: str | None) -> bool:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    try:
        async with connect(url, additional_headers={} if said is None else {"Authorization": said}):
            return True
    except InvalidStatus:
        return False


async def _sends(url: str, frame: str) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async with connect(url, compression=None, additional_headers={"Authorization": f"Bearer {_TOKEN}"}) as socket:
        await socket.send(frame)
        try:
            await asyncio.wait_for(socket.recv(), 5.0)
        except (ConnectionClosed, TimeoutError):
            return


def _at_the_guard(count: int) -> dict[str, int]:
    """Commands that were taken once are sent again; others name an epoch that is not the armed one."""
    from robopref.hardware.arm_reach import HOME
    from robopref.hardware.command import Command
    from robopref.hardware.guard import Guard
    from robopref.hardware.reasons import REFUSED

    guard, rng = Guard(), np.random.default_rng(0)
    guard.link(True, 0.0)
    guard.arm(7, HOME, 1, 0.0)
    passed: dict[str, Any] = {"replayed": 0, "wrong_epoch": 0}
    taken: list[Command] = []
    for number in range(count):
        now = 1.0 + 0.001 * number
        good = Command(7, number, now, now, target=HOME + rng.uniform(-0.1, 0.1, 7), duration=0.05)
        assert not guard.receive(good, now) & REFUSED, "what is good must be taken, or refusing shows nothing"
        taken.append(good)
        again = taken[int(rng.integers(max(0, len(taken) - 50), len(taken)))]
        passed["replayed"] += not guard.receive(again, now) & REFUSED
        foreign = Command(int(rng.choice([0, 6, 8, 70])), number + 1, now, now, target=HOME, duration=0.05)
        passed["wrong_epoch"] += not guard.receive(foreign, now) & REFUSED
    return passed
