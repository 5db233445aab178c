"""What every request must pass before a handler sees it: Host, Origin, kind and size of the body, and rate; and the headers of every reply."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MAX_BODY = 64 * 1024
CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self' blob:; connect-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
MOST_KEYS = 10_000


@dataclass
class Bucket:
    """A token bucket per key: `rate` a second, `burst` at once."""

    rate: float
    burst: float
    _held: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: str) -> bool:
        """Whether one more is allowed now."""
        now = time.monotonic()
        left, at = self._held.pop(key, (self.burst, now))
        left = min(self.burst, left + (now - at) * self.rate)
        allowed = left >= 1
        self._held[key] = (left - allowed, now)
        if len(self._held) > MOST_KEYS:  # strangers must not fill the memory: who was heard of longest ago is forgotten
            del self._held[next(iter(self._held))]
        return allowed


class Guard:
    """ASGI middleware. `hosts`: allowed Host names (any port); `scheme`: http or https.

    anywhere: the server listens on every address of its machine, and may be called by the one that a request arrived at: an address,
    unlike a name, cannot be rebound.
    """

    def __init__(self, app: Any, hosts: Collection[str], scheme: str = "http", anywhere: bool = False) -> None:
        self._app, self._hosts, self._scheme, self._anywhere = app, {h.lower() for h in hosts}, scheme, anywhere
        self._rate = Bucket(rate=200, burst=600)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass the request on, or answer with what is wrong with it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no websockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        wrong = self._wrong(scope)
        if wrong is None and scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                wrong = (413, f"the body is longer than {MAX_BODY} bytes")
            else:
                receive = _replay(body)
        if wrong is not None:
            await _refuse(send, *wrong)
            return

        async def sealed(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = {k for k, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message = dict(message) | {"headers": [*message["headers"], *extra]}
            await send(message)

        await self._app(scope, receive, sealed)

    def _wrong(self, scope: Any) -> tuple[int, str] | None:
        """(status, why) for a request that is not to be served."""
        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        hosts = headers.get("host", [])
        own = (scope.get("server") or ("", 0))[0].removeprefix("::ffff:")
        if len(hosts) != 1 or not (_name(hosts[0]) in self._hosts or (self._anywhere and _name(hosts[0]) == own)):
            return 400, "unknown host"
        client = (scope.get("client") or ("", 0))[0]
        if not self._rate.take(f"{client} {headers.get('cookie', [''])[0][:120]}"):
            return 429, "too many requests"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return 405, "method not allowed"
        origin, site = headers.get("origin", []), headers.get("sec-fetch-site", [])
        if origin and (len(origin) != 1 or origin[0].lower() != f"{self._scheme}://{hosts[0].lower()}"):
            return 403, "wrong origin"
        if site and site != ["same-origin"]:
            return 403, "cross-site request"
        if not origin and not site:
            return 403, "a POST names its origin"
        kind = headers.get("content-type", [""])[0].split(";")[0].strip().lower()
        if kind != "application/json":
            return 415, "wanted application/json"
        length = headers.get("content-length", ["0"])[0]
        if not length.isdigit() or int(length) > MAX_BODY:
            return 413, f"the body is longer than {MAX_BODY} bytes"
        return None


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


async def _body(receive: Any) -> bytes | None:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes) -> Any:
    sent = False

    async def receive() -> Any:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _refuse(send: Any, status: int, why: str) -> None:
    body = json.dumps({"error": why}).encode()
    headers = [(k.encode(), v.encode()) for k, v in {**HEADERS, "content-type": "application/json", "cache-control": "no-store", "connection": "close"}.items()]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
