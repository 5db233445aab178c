"""Serve a policy over a websocket: openpi's wire protocol, one inference at a time, the newest request of each robot wins.

An openpi client works unchanged: it gets the metadata, sends an observation (`state`, and for a policy that looks or reads `images` by
camera and `prompt`), receives `actions`. Beyond that a request may carry `robopref/obs_id`, `robopref/deadline_ms`, `robopref/previous` (n, A) with `robopref/delay` (real-time chunking), and the reply says
`robopref/obs_id`, `robopref/policy_hash`, `robopref/t0`, and of how many candidates its chunk is the best, `robopref/candidates`. Requests that wait together run as one batch. No pickle, no traceback to
the peer; loopback unless told otherwise. Over plain HTTP: `/healthz` (503 until warm) and `/metrics`.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError

from .inference import PROTOCOL, Inference, Request, inference_of, read_request
from .packing import MAX_BYTES, PackingError, pack, unpack

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass
class Metrics:
    """Counters and recent latencies of a server."""

    requests: int = 0
    replies: int = 0
    superseded: int = 0
    expired: int = 0
    refused: int = 0
    batches: int = 0
    candidates: int = 0
    """Chunks that were drawn, of which replies are the best."""
    seconds: list[float] = field(default_factory=list)

    def text(self) -> str:
        """The metrics in Prometheus' text format."""
        names = ("requests", "replies", "superseded", "expired", "refused", "batches", "candidates")
        lines = [f"robopref_{name}_total {getattr(self, name)}" for name in names]
        recent = self.seconds[-1000:] or [0.0]
        lines += [f'robopref_inference_seconds{{quantile="{q}"}} {np.quantile(recent, q):.6f}' for q in (0.5, 0.99)]
        return "\n".join(lines) + "\n"


class PolicyServer:
    """`async with PolicyServer(inference) as server:` answers on `server.url` until the block ends."""

    def __init__(self, inference: Inference, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> None:
        if host not in _LOOPBACK and not token:
            raise InputError(f"serve: got host={host} without a token, wanted token=... for anything but loopback.")
        self.inference, self.host, self.port, self._token = inference, host, port, token
        self.metrics, self.ready = Metrics(), False
        self._pending: dict[Any, tuple[Request, float]] = {}
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://{self.host}:{self.port}"

    async def __aenter__(self) -> PolicyServer:
        from websockets.asyncio.server import serve

        options: dict[str, Any] = {"compression": None, "max_size": MAX_BYTES, "process_request": self._http}
        self._server = await serve(self._robot, self.host, self.port, **options)
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks = [asyncio.create_task(self._run())]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._server.close()
        await self._server.wait_closed()
        self._thread.shutdown()

    async def work(self) -> None:
        """Serve until cancelled. Raises what ended the inference, if anything does."""
        await asyncio.gather(*self._tasks)

    def _http(self, connection: Any, request: Any) -> Any:
        """Answer plain HTTP, and let only known peers open a websocket."""
        if request.path == "/healthz":
            status = http.HTTPStatus.OK if self.ready else http.HTTPStatus.SERVICE_UNAVAILABLE
            return connection.respond(status, "OK\n" if self.ready else "warming up\n")
        said = request.headers.get("Authorization", "").rpartition(" ")[2]
        if self._token and not hmac.compare_digest(said.encode(), self._token.encode()):
            self.metrics.refused += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        if request.path == "/metrics":
            return connection.respond(http.HTTPStatus.OK, self.metrics.text())
        return None

    async def _robot(self, socket: Any) -> None:
        """One robot's connection: metadata first, then a reply per request that was not overtaken."""
        from websockets.exceptions import ConnectionClosed

        spec = self.inference.spec
        told = {
            "robopref/proto": PROTOCOL, "robopref/policy_hash": self.inference.policy_hash,
            "horizon": spec.horizon, "execute": spec.execute, "history": spec.history,
            "observation": spec.dims.observation, "action": spec.dims.action,
            "cameras": list(spec.pictures.cameras), "size": list(spec.pictures.size), "words": spec.words,
            "candidates": self.inference.pace.most,
        }  # fmt: skip
        try:
            await socket.send(pack(told))
            async for frame in socket:
                self.metrics.requests += 1
                try:
                    request = read_request(unpack(frame), spec, time.monotonic())
                except (PackingError, InputError) as error:
                    self.metrics.refused += 1
                    await socket.send(f"request: {error}")  # text is an error in openpi's protocol
                    continue
                self.metrics.superseded += socket in self._pending
                self._pending[socket] = (request, time.monotonic())
                self._work.set()
        except ConnectionClosed:
            pass
        finally:
            self._pending.pop(socket, None)

    async def _run(self) -> None:
        """Warm up, then answer whatever waits, all robots in one batch."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self.inference.warm_up)
        self.ready = True
        while True:
            await self._work.wait()
            self._work.clear()
            waiting, self._pending = self._pending, {}
            begin = time.monotonic()
            live = {socket: pair for socket, pair in waiting.items() if pair[0].deadline > begin}
            self.metrics.expired += len(waiting) - len(live)
            if not live:
                continue
            requests = [request for request, _ in live.values()]
            chunks = await loop.run_in_executor(self._thread, self.inference.answer, requests)
            took = time.monotonic() - begin
            drawn = self.inference.drawn
            self.metrics.batches += 1
            self.metrics.candidates += drawn * len(requests)
            self.metrics.seconds = [*self.metrics.seconds[-999:], took]
            for (socket, (request, came)), chunk in zip(live.items(), chunks, strict=True):
                await self._reply(socket, request, chunk, came, took, drawn)

    async def _reply(
        self, socket: Any, request: Request, chunk: np.ndarray, came: float, took: float, drawn: int
    ) -> None:
        from websockets.exceptions import ConnectionClosed

        timing = {"infer_ms": 1000 * took, "wait_ms": 1000 * (time.monotonic() - came - took)}
        told = {
            "robopref/obs_id": request.obs_id,
            "robopref/policy_hash": self.inference.policy_hash,
            "robopref/t0": came,
            "robopref/candidates": drawn,
        }
        try:
            await socket.send(pack({"actions": chunk, "server_timing": timing, **told}))
            self.metrics.replies += 1
        except ConnectionClosed:
            pass


def main(options: dict[str, str]) -> int:
    """`robopref serve checkpoint=DIR [host= port= device= precision= compile=] [reference= | reward=] [candidates= budget=]`.

    The token comes from ROBOPREF_TOKEN.
    """
    import os

    if "checkpoint" not in options:
        raise InputError("serve: got no checkpoint, wanted checkpoint=DIR\nsee `robopref serve --help`")
    port, candidates = (_number(options, key, int, default) for key, default in (("port", "8000"), ("candidates", "0")))
    inference = inference_of(
        Path(options["checkpoint"]),
        reference=Path(options["reference"]) if "reference" in options else None,
        reward=Path(options["reward"]) if "reward" in options else None,
        candidates=candidates if "candidates" in options else None,
        budget=_number(options, "budget", float, "0.1"),
        device=options.get("device", "cuda" if torch.cuda.is_available() else "cpu"),
        precision=options.get("precision", "float32"),
        compile=options.get("compile", "false") == "true",
    )
    host, most = options.get("host", "127.0.0.1"), inference.pace.most
    best = f", best of up to {most}" if most > 1 else ""

    async def run() -> None:
        async with PolicyServer(inference, host, port, os.environ.get("ROBOPREF_TOKEN")) as server:
            print(
                f"policy {inference.policy_hash} on {inference.device} at {server.url}{best}; stop with Ctrl-C",
                flush=True,
            )
            await server.work()

    asyncio.run(run())
    return 0


def _number(options: dict[str, str], key: str, kind: type, default: str) -> Any:
    try:
        return kind(options.get(key, default))
    except ValueError as error:
        raise InputError(f"{key}: got {options[key]!r}, wanted a number") from error
