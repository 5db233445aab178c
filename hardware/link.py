"""A websocket that stays connected: it comes back with growing pauses, says again what must stand, and never waits to send."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl as tls
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .frames import Decoder, FrameError, encode


class BridgeError(RuntimeError):
    """The server said no, or did not answer in time."""


MALFORMED = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a message that is not as it should be raises in whoever reads it."""


class Mailbox:
    """A box for one message: a newer one replaces it. Ages are seconds of a clock, the local monotonic one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.message: Any = None
        self.received = float("-inf")
        self.count = 0
        self._news = asyncio.Event()

    def __call__(self, message: Any) -> None:
        self.message, self.received = message, self._clock()
        self.count += 1
        self._news.set()

    @property
    def age(self) -> float:
        """Seconds since the message came; infinite before the first."""
        return self._clock() - self.received

    async def next(self, timeout: float | None = None) -> Any:
        """Wait for a message newer than now. Raises `TimeoutError`."""
        self._news.clear()
        await asyncio.wait_for(self._news.wait(), timeout)
        return self.message


@dataclass
class Counters:
    """What the connection went through."""

    connects: int = 0
    received: int = 0
    sent: int = 0
    dropped: int = 0
    """Publishes without a connection."""
    broken: int = 0
    """Frames that were no message."""
    failed: int = 0
    """Messages that whoever heard them could not read, and services and actions of ours that failed."""
    failures: list[str] = field(default_factory=list)
    """The last of these errors."""
    statuses: list[str] = field(default_factory=list)
    """The last complaints of the server."""

    def failure(self, error: BaseException) -> None:
        """Count one message or call of ours that failed."""
        self.failed += 1
        self.failures = [*self.failures[-19:], f"{type(error).__name__}: {str(error)[:200]}"]


class Link:
    """One connection to a rosbridge server. `heard` gets every message, `lost` is called when the connection ends."""

    def __init__(
        self,
        url: str,
        heard: Callable[[dict[str, Any]], None],
        lost: Callable[[], None],
        *,
        token: str | None,
        ssl: tls.SSLContext | None,
        ping: float,
        backoff: tuple[float, float],
        limit: int,
    ) -> None:
        self.url, self.counters = url, Counters()
        self.on_connect: list[Callable[[], None]] = []
        self.up = asyncio.Event()
        self._heard, self._lost = heard, lost
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._ssl, self._ping, self._backoff, self._limit = ssl, ping, backoff, limit
        self._ids = itertools.count(1)
        self._standing: dict[str, dict[str, Any]] = {}
        """What is said again after every reconnect, by key."""
        self._outbox: asyncio.Queue[str] = asyncio.Queue(64)

    def send(self, message: dict[str, Any]) -> bool:
        """Send now or not at all; False when there is no connection or it is congested. Raises `FrameError` for NaN."""
        frame = encode({"id": f"{message['op']}:{next(self._ids)}", **message})
        if not self.up.is_set() or self._outbox.full():
            self.counters.dropped += 1
            return False
        self._outbox.put_nowait(frame)
        return True

    def stands(self, key: str) -> bool:
        """Whether something is said again after a reconnect."""
        return key in self._standing

    def stand(self, key: str, words: dict[str, Any]) -> None:
        """Say something now, if connected, and after every reconnect."""
        self._standing[key] = {"id": key, **words}
        if self.up.is_set():
            self.send(self._standing[key])

    def fall(self, key: str, words: dict[str, Any]) -> None:
        """Take back what stood, with the words for it."""
        if self._standing.pop(key, None) is not None and self.up.is_set():
            self.send({"id": key, **words})

    async def stay(self) -> None:
        """Connect, listen, and connect again, with pauses that grow while nobody answers."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        pause = self._backoff[0]
        while True:
            try:
                options: dict[str, Any] = {"compression": None, "max_size": self._limit, "ping_interval": self._ping}
                options |= {"ping_timeout": 2 * self._ping, "close_timeout": 1.0, "open_timeout": 3.0}
                options |= {"ssl": self._ssl} if self._ssl else {}  # else wss:// asks the machine's own authorities
                async with connect(self.url, additional_headers=self._headers, **options) as socket:
                    pause = self._backoff[0]
                    await self._talk(socket)
            except (OSError, WebSocketException, TimeoutError):
                pass  # the state says so; the next attempt follows
            finally:  # also where this task ends: nobody may believe that it is connected
                self.up.clear()
                self._lost()
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._backoff[1])

    async def _talk(self, socket: Any) -> None:
        self._outbox = asyncio.Queue(64)
        for words in self._standing.values():
            await socket.send(encode(words))
        self.counters.connects += 1
        self.up.set()
        for listener in self.on_connect:
            listener()
        writer = asyncio.create_task(self._write(socket))
        decoder = Decoder(self._limit)
        try:
            async for frame in socket:
                self.counters.received += 1
                try:
                    message = decoder.decode(frame)
                    if message is not None:
                        self._heard(message)
                except FrameError:
                    self.counters.broken += 1
                except MALFORMED as error:
                    self.counters.failure(error)
        finally:
            writer.cancel()

    async def _write(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(await self._outbox.get())
                self.counters.sent += 1
