"""The operator's page: state, reasons, latencies, camera, stop, re-arm and a button to hold down. One file, loopback, a token in its address.

The stop button goes the same way as every control message, so it needs the bridge; the button on the arm needs nothing.
"""

from __future__ import annotations

import base64
import hmac
import http
import json
import secrets
import socket
import time
from collections import deque
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from .agent import Agent
from .arming import waits
from .reasons import REFUSED, Reason, State, names

ORDERS = ("estop", "reset", "arm", "disarm", "pause", "resume", "press", "letgo")
_LOOK = 2.0
"""Seconds over which reasons are counted."""
_STATES = Reason(0x1FF) | Reason(0xFF << 19)
"""Bits that say why the arm stands or a command was refused, not what changed one."""
_OLD, _SAME = 0.5, 2.0
"""Seconds after which a picture is too old, and after which one that never changes is suspicious."""
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
#run{background:#dbe7fb;font-weight:700;touch-action:none}#run.held{background:#2459c9;color:#fff}
button.due{border:3px solid #2459c9}figure{margin:0}figure.old img{filter:grayscale(1) opacity(.35)}figure.old figcaption{color:#c8281e;font-weight:700}
button:focus-visible{outline:3px solid #2459c9}
</style>
<p><span id="state" role="status" aria-live="assertive">...</span> <span id="why"></span></p>
<main><div><button id="estop" data-op="estop">STOP (space)</button><br>
<button data-op="reset">Clear stop</button><button id="arm" data-op="arm">Re-arm</button><button data-op="disarm">Disarm</button>
<button data-op="pause">Pause policy</button><button data-op="resume">Resume</button>
<br><button id="run">HOLD TO RUN (where the arm asks for it)</button>
<table id="numbers"></table></div><figure id="shown"><img id="camera" alt="camera"><figcaption id="age"></figcaption></figure></main>
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
    at("arm").className = told.waits ? "due" : "";
    at("shown").className = told.camera_old ? "old" : ""; at("age").textContent = told.camera;
    if (told.picture) at("camera").src = "data:image/jpeg;base64," + told.picture;
    at("link").textContent = "";
  };
  socket.onclose = () => { letgo(); at("state").textContent = "NO LINK"; at("state").className = "ESTOP"; setTimeout(connect, 1000); };
}
let beat = 0;
function press() { if (beat) return; at("run").className = "held"; order("press"); beat = setInterval(() => order("press"), 100); }
function letgo() { if (!beat) return; clearInterval(beat); beat = 0; at("run").className = ""; order("letgo"); }
at("run").addEventListener("pointerdown", e => { at("run").setPointerCapture(e.pointerId); press(); });
for (const what of ["pointerup", "pointercancel", "lostpointercapture", "contextmenu"]) at("run").addEventListener(what, letgo);
for (const what of ["blur", "pagehide"]) window.addEventListener(what, letgo);
document.addEventListener("visibilitychange", () => { if (document.hidden) letgo(); });
document.querySelectorAll("button[data-op]").forEach(b => b.onclick = () => order(b.dataset.op));
document.addEventListener("keydown", e => { if (e.code === "Space") { e.preventDefault(); order("estop"); } });
connect();
</script></html>
"""


class OperatorView:
    """`async with OperatorView(agent) as view:` serves the page at `view.url` on loopback."""

    def __init__(self, agent: Agent, port: int = 0, sock: socket.socket | None = None) -> None:
        """`sock`: a socket that listens already, for a page outside of the network that the chain runs in."""
        self._agent, self.port, self._sock, self._token = agent, port, sock, secrets.token_urlsafe(16)
        self._past: dict[str, deque[tuple[float, dict[str, int]]]] = {}
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
            self._agent.press(False)  # a page that is gone holds nothing down
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
        elif operation in ("press", "letgo"):
            self._agent.press(operation == "press")
        else:
            self._agent.control(operation)

    def state(self) -> dict[str, Any]:
        """What the page shows."""
        agent, tally = self._agent, self._agent.tally
        picture, why = agent.picture(), agent.status.get("why", [])
        came, changed = agent.picture_ages()
        old = came > _OLD or (changed > _SAME and agent.status.get("state") == State.RUNNING)
        return {
            "state": agent.status.get("state", "NO STATUS"),
            "why": why + (["policy paused"] if agent.paused else []) + (["waits for Re-arm"] if waits(why) else []),
            "waits": waits(why),
            "camera": _camera(came, changed),
            "camera_old": old,
            "numbers": {
                "bridge": "connected" if agent.bridge.connected else "lost",
                "policy server": "connected" if agent.client.connected else "lost",
                "policy": str(agent.client.metadata.get("robopref/policy_hash", ""))[:16],
                "epoch / sequence": f"{agent.status.get('epoch', '-')} / {agent.status.get('seq', '-')}",
                "inference + transport p50 / p99": _pair(tally.adopted_ages),
                "overhead p50 / p99": _pair(tally.overheads),
                "observation age p50 / p99": _pair(tally.ages),
                "commands, refused": f"{agent.status.get('commands', '-')}, {agent.status.get('refused', '-')}",
                f"refused commands, last {_LOOK:.0f} s": self._recent("bits", REFUSED, ""),
                f"changed commands, last {_LOOK:.0f} s": self._recent("bits", ~REFUSED, ""),
                f"held back, last {_LOOK:.0f} s": self._recent("held", ~_STATES, " ms"),
                "gripper measured / told": f"{_width(agent.status.get('width'))} / {_width(agent.status.get('gripper'))}",
                "gripper errors": f"{agent.status.get('gripper_errors', 0)} {agent.status.get('gripper_error', '')}",
                "late or bad chunks": f"{tally.stale_replies}, {tally.bad_replies}",
                "reflexes": str(agent.status.get("reflexes", "-")),
                **self.extra,
            },
            "picture": base64.b64encode(picture).decode() if picture else "",
        }

    def _recent(self, kind: str, of: Reason, unit: str) -> str:
        """How often each reason came up in the last seconds: commands (`bits`), or milliseconds of the arm (`held`)."""
        now, told = time.monotonic(), dict(self._agent.status.get(kind, {}))
        past = self._past.setdefault(kind, deque())
        past.append((now, told))
        while len(past) > 2 and past[1][0] <= now - _LOOK:
            past.popleft()
        before, wanted = past[0][1], names(of)
        more = {name: count - before.get(name, 0) for name, count in told.items() if name in wanted}
        shown = sorted((-count, name) for name, count in more.items() if count > 0)
        return ", ".join(f"{name} {-count}{unit}" for count, name in shown) or "-"


def _camera(came: float, changed: float) -> str:
    """What is said below the picture."""
    if came == float("inf"):
        return "no picture"
    still = f", the same for {changed:.0f} s" if changed > _SAME else ""
    return f"{'NO NEW PICTURE: ' if came > _OLD else ''}{came:.1f} s old{still}"


def _width(metres: object) -> str:
    return f"{1000 * metres:.1f} mm" if isinstance(metres, int | float) else "-"


def _pair(values: list[float]) -> str:
    if not values:
        return "-"
    recent = values[-300:]
    return f"{1000 * np.quantile(recent, 0.5):.1f} / {1000 * np.quantile(recent, 0.99):.1f} ms"
