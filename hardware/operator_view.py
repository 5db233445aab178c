"""The operator's page: state, reasons, latencies, camera, stop and re-arm. One file, loopback, a token in its address.

The stop button goes the same way as every control message, so it needs the bridge; the button on the arm needs nothing.
"""

from __future__ import annotations

import base64
import hmac
import http
import json
import secrets
import socket
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from .agent import Agent

ORDERS = ("estop", "reset", "arm", "disarm", "pause", "resume")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>robopref: arm</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline';
script-src 'unsafe-inline'; img-src data:; connect-src 'self' ws:">
<style>
body{font:16px system-ui,sans-serif;margin:1.5rem auto;max-width:60rem;color:#1b2430;background:#f7f8fa;padding:0 1rem}
#state{font-size:2.6rem;font-weight:700;padding:.4rem 1rem;border-radius:.5rem;background:#dde2ea;display:inline-block}
#state.RUNNING{background:#bfe8c8}#state.HOLD{background:#ffe3a6}#state.ESTOP,#state.REFLEX{background:#f7b9b0}
main{display:flex;gap:2rem;flex-wrap:wrap}img{width:336px;height:336px;background:#e8ebf0;border-radius:.5rem}
td{padding:.15rem 1rem .15rem 0}td:last-child{font-variant-numeric:tabular-nums;font-weight:600}
button{font:inherit;padding:.7rem 1.2rem;margin:.2rem;border:1px solid #9aa5b5;border-radius:.5rem;background:#fff}
#estop{background:#c8281e;color:#fff;font-weight:700;font-size:1.5rem;padding:1.2rem 2.2rem;border:0}
button:focus-visible{outline:3px solid #2459c9}
</style>
<p><span id="state" role="status" aria-live="assertive">...</span> <span id="why"></span></p>
<main><div><button id="estop" data-op="estop">STOP (space)</button><br>
<button data-op="reset">Clear stop</button><button data-op="arm">Arm</button><button data-op="disarm">Disarm</button>
<button data-op="pause">Pause policy</button><button data-op="resume">Resume</button>
<table id="numbers"></table></div><img id="camera" alt="camera"></main>
<p id="link"></p>
<script>
const at = id => document.getElementById(id);
let socket;
function order(op) { if (socket && socket.readyState === 1) socket.send(JSON.stringify({op})); else at("link").textContent = "NOT CONNECTED: use the button on the arm"; }
function connect() {
  socket = new WebSocket(`ws://${location.host}/live${location.search}`);
  socket.onmessage = event => {
    const told = JSON.parse(event.data);
    at("state").textContent = told.state; at("state").className = told.state;
    at("why").textContent = told.why.join(", ");
    at("numbers").replaceChildren(...Object.entries(told.numbers).map(([name, value]) => {
      const row = document.createElement("tr");
      for (const text of [name, value]) { const cell = document.createElement("td"); cell.textContent = text; row.append(cell); }
      return row;
    }));
    if (told.picture) at("camera").src = "data:image/jpeg;base64," + told.picture;
    at("link").textContent = "";
  };
  socket.onclose = () => { at("state").textContent = "NO LINK"; at("state").className = "ESTOP"; setTimeout(connect, 1000); };
}
document.querySelectorAll("button").forEach(b => b.onclick = () => order(b.dataset.op));
document.addEventListener("keydown", e => { if (e.code === "Space") { e.preventDefault(); order("estop"); } });
connect();
</script></html>
"""


class OperatorView:
    """`async with OperatorView(agent) as view:` serves the page at `view.url` on loopback."""

    def __init__(self, agent: Agent, port: int = 0, sock: socket.socket | None = None) -> None:
        """`sock`: a socket that listens already, for a page outside of the network that the chain runs in."""
        self._agent, self.port, self._sock, self._token = agent, port, sock, secrets.token_urlsafe(16)
        self.extra: dict[str, str] = {}
        """Further lines of the table, for example what the recorder says."""

    @property
    def url(self) -> str:
        """The page's address, with its token."""
        return f"http://127.0.0.1:{self.port}/?token={self._token}"

    async def __aenter__(self) -> OperatorView:
        from websockets.asyncio.server import serve

        options: dict[str, Any] = {"compression": None, "max_size": 1000, "process_request": self._http}
        where = {"sock": self._sock} if self._sock is not None else {"host": "127.0.0.1", "port": self.port}
        self._server = await serve(self._live, **where, **options)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _http(self, connection: Any, request: Any) -> Any:
        """The page, or the way to its websocket; nothing without the token, nothing for other origins."""
        parts = urlsplit(request.path)
        said = parse_qs(parts.query).get("token", [""])[0]
        origin = request.headers.get("Origin")
        here = (None, f"http://127.0.0.1:{self.port}", f"http://localhost:{self.port}")
        if not hmac.compare_digest(said.encode(), self._token.encode()) or origin not in here:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "open the address that was printed\n")
        if parts.path == "/live":
            return None
        response = connection.respond(http.HTTPStatus.OK, PAGE)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "text/html; charset=utf-8"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    async def _live(self, page: Any) -> None:
        """State five times a second, orders whenever they come."""
        import asyncio

        async def tell() -> None:
            while True:
                await page.send(json.dumps(self.state()))
                await asyncio.sleep(0.2)

        task = asyncio.create_task(tell())
        try:
            async for frame in page:
                self.order(frame)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def order(self, frame: str | bytes) -> None:
        """Carry out one order of the page; anything else is nothing."""
        try:
            operation = json.loads(frame).get("op")
        except (ValueError, AttributeError, RecursionError):
            return
        if operation not in ORDERS:
            return
        if operation in ("pause", "resume"):
            self._agent.paused = operation == "pause"
        elif operation == "arm":
            self._agent.rearm()
        else:
            self._agent.control(operation)

    def state(self) -> dict[str, Any]:
        """What the page shows."""
        agent, tally = self._agent, self._agent.tally
        picture = agent.picture()
        return {
            "state": agent.status.get("state", "NO STATUS"),
            "why": agent.status.get("why", []) + (["policy paused"] if agent.paused else []),
            "numbers": {
                "bridge": "connected" if agent.bridge.connected else "lost",
                "policy server": "connected" if agent.client.connected else "lost",
                "policy": str(agent.client.metadata.get("robopref/policy_hash", ""))[:16],
                "epoch / sequence": f"{agent.status.get('epoch', '-')} / {agent.status.get('seq', '-')}",
                "inference + transport p50 / p99": _pair(tally.adopted_ages),
                "overhead p50 / p99": _pair(tally.overheads),
                "observation age p50 / p99": _pair(tally.ages),
                "commands, refused": f"{agent.status.get('commands', '-')}, {agent.status.get('refused', '-')}",
                "late or bad chunks": f"{tally.stale_replies}, {tally.bad_replies}",
                "reflexes": str(agent.status.get("reflexes", "-")),
                **self.extra,
            },
            "picture": base64.b64encode(picture).decode() if picture else "",
        }


def _pair(values: list[float]) -> str:
    if not values:
        return "-"
    recent = values[-300:]
    return f"{1000 * np.quantile(recent, 0.5):.1f} / {1000 * np.quantile(recent, 0.99):.1f} ms"
