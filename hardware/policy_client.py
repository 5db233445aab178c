"""Ask a policy server without waiting: requests go out at once, replies end in a mailbox; it reconnects by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Any

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
            with contextlib.suppress(OSError, WebSocketException, TimeoutError, PackingError):
                async with connect(
                    self.url, additional_headers=self._headers, close_timeout=1.0, open_timeout=5.0, **options
                ) as socket:
                    self.metadata = unpack(await asyncio.wait_for(socket.recv(), 10.0))
                    pause, self._outbox, self._up = 0.1, asyncio.Queue(1), True
                    self.connects += 1
                    await self._talk(socket)
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


def chunk_of(reply: dict[str, Any], horizon: int, width: int) -> np.ndarray | None:
    """The chunk (H, A) of a reply, or None for anything that is not exactly one, finite and of numbers."""
    actions = reply.get("actions")
    if not isinstance(actions, np.ndarray) or actions.dtype.kind not in "fiu" or actions.shape != (horizon, width):
        return None
    return np.asarray(actions, dtype=np.float32) if np.isfinite(actions).all() else None
