"""Ask a policy server without waiting: requests go out at once, replies end in a mailbox; it reconnects by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeGuard

import numpy as np

from .packing import MAX_BYTES, PackingError, pack, unpack


class PolicyClient:
    """`async with PolicyClient(url) as client:`; `ask` sends, `replies` holds what came since it was last emptied."""

    def __init__(self, url: str, token: str | None = None, expected_hash: str | None = None) -> None:
        self.url, self._expected = url, expected_hash
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.metadata: dict[str, Any] = {}
        self.replies: list[tuple[float, dict[str, Any]]] = []
        self.connects = self.broken = self.wrong_policy = 0
        self.complaint = ""
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._up = False
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether a connection stands now."""
        return self._up

    async def __aenter__(self) -> PolicyClient:
        self._task = asyncio.create_task(self._stay())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def ask(self, message: dict[str, Any]) -> bool:
        """Send a request; a request that still waits to be sent is replaced. False without a connection."""
        if not self._up:
            return False
        with contextlib.suppress(asyncio.QueueEmpty):
            self._outbox.get_nowait()
        self._outbox.put_nowait(pack(message))
        return True

    async def _stay(self) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        pause = 0.1
        options: dict[str, Any] = {
            "compression": None,
            "max_size": MAX_BYTES,
            "ping_interval": 1.0,
            "ping_timeout": 5.0,
        }
        while True:
            try:
                async with connect(
                    self.url, additional_headers=self._headers, close_timeout=1.0, open_timeout=5.0, **options
                ) as socket:
                    self.metadata = metadata_of(unpack(await asyncio.wait_for(socket.recv(), 10.0)))
                    pause, self._outbox, self._up = 0.1, asyncio.Queue(1), True
                    self.connects += 1
                    await self._talk(socket)
            except PackingError as error:
                self.broken, self.complaint = self.broken + 1, str(error)[:300]
            except (OSError, WebSocketException, TimeoutError):
                pass  # `connected` says so; the next attempt follows
            finally:
                self._up = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    async def _talk(self, socket: Any) -> None:
        async def write() -> None:
            while True:
                await socket.send(await self._outbox.get())

        writer = asyncio.create_task(write())
        try:
            async for frame in socket:
                self._heard(frame)
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _heard(self, frame: str | bytes) -> None:
        if isinstance(frame, str):  # an error in openpi's protocol
            self.broken, self.complaint = self.broken + 1, frame[:300]
            return
        try:
            reply = unpack(frame)
        except PackingError:
            self.broken += 1
            return
        if self._expected and reply.get("robopref/policy_hash") != self._expected:
            self.wrong_policy += 1
            return
        self.replies.append((time.monotonic(), reply))
        del self.replies[:-8]


@dataclass(frozen=True)
class Reply:
    """What a policy server answered, as far as it makes sense."""

    number: int
    """Of the question; -1 where it names none."""
    chunk: np.ndarray | None
    """(H, A) float32; None where there is none that can run."""
    seconds: float = 0.0
    """Spent on inference, as the server says."""
    candidates: int = 1
    """Of how many chunks this is the best."""


def reply_of(message: dict[str, Any], horizon: int, width: int) -> Reply:
    """What is meant by a message from a server; never raises, whatever is in it."""
    number, candidates = (message.get(key) for key in ("robopref/obs_id", "robopref/candidates"))
    timing = message.get("server_timing")
    took = timing.get("infer_ms") if isinstance(timing, dict) else None
    return Reply(
        number if _whole(number) else -1,
        chunk_of(message, horizon, width),
        float(took) / 1000.0 if _finite(took) else 0.0,
        candidates if _whole(candidates) and candidates > 0 else 1,
    )


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def chunk_of(reply: dict[str, Any], horizon: int, width: int) -> np.ndarray | None:
    """The chunk (H, A) of a reply, or None for anything that is not exactly one, finite and of numbers."""
    actions = reply.get("actions")
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu" or actions.shape != (horizon, width):
        return None
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        chunk = np.asarray(actions, dtype=np.float32)
    return chunk if np.isfinite(chunk).all() else None


def metadata_of(message: dict[str, Any]) -> dict[str, Any]:
    """What a server told of its policy. Raises `PackingError` where a part that is there is not what it should be."""
    for key in ("horizon", "execute", "action", "history", "observation", "words", "candidates"):
        if key in message and not (_whole(message[key]) and 0 <= message[key] < 1_000_000):
            raise PackingError(f"metadata: got {key}={str(message[key])[:50]!r}, wanted a whole number")
    cameras, size = message.get("cameras", []), message.get("size", [])
    if not (isinstance(cameras, list) and all(isinstance(name, str) for name in cameras)):
        raise PackingError(f"metadata: got cameras={str(cameras)[:50]!r}, wanted names")
    if not (isinstance(size, list) and all(_whole(n) and 0 <= n < 10_000 for n in size)):
        raise PackingError(f"metadata: got size={str(size)[:50]!r}, wanted height and width")
    if cameras and not (len(size) == 2 and min(size) > 0):
        raise PackingError(f"metadata: got size={size} with cameras, wanted height and width")
    return message
