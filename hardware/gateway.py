"""A door in front of the bridge for networks that are not private: TLS, a token, an allow-list, size limits, one way in.

rosbridge on ROS 2 has neither encryption nor passwords. The gateway listens where others can reach it and passes on to the bridge on
loopback only what the list allows: publishing to the command and control topics, hearing states, calling the stop.

    ROBOPREF_TOKEN=... python -m robopref.hardware.gateway --cert cert.pem --key key.pem --host 0.0.0.0
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import hmac
import http
import json
import os
import signal
import ssl as tls
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from robopref.arrays import InputError

from .frames import Decoder, FrameError, encode
from .topics import Topics


@dataclass(frozen=True)
class Rules:
    """What may pass, as shell patterns of names."""

    publish: tuple[str, ...] = (Topics().command, Topics().control)
    subscribe: tuple[str, ...] = (Topics().joint_states, Topics().status, str(Topics().camera))
    services: tuple[str, ...] = ("/robopref/estop",)
    inbound: int = 64 * 1024
    """Largest frame from outside, bytes."""
    rate: int = 200
    """Frames per second from one peer."""

    def refusal(self, message: dict[str, Any]) -> str:
        """Why a message from outside may not pass; an empty string if it may."""
        match message.get("op"):
            case "publish" | "advertise" | "unadvertise":
                return "" if _any(message.get("topic"), self.publish) else "topic not allowed for publishing"
            case "subscribe" | "unsubscribe":
                return "" if _any(message.get("topic"), self.subscribe) else "topic not allowed for hearing"
            case "call_service":
                return "" if _any(message.get("service"), self.services) else "service not allowed"
        return "operation not allowed"


@dataclass
class Passed:
    """What went through and what did not."""

    unauthorised: int = 0
    refused: int = 0
    oversized: int = 0
    throttled: int = 0
    inward: int = 0
    outward: int = 0
    reasons: list[str] = field(default_factory=list)


class Gateway:
    """`async with Gateway(bridge_url, token, ssl=context) as gateway:` listens at `gateway.url`."""

    def __init__(
        self, bridge: str, token: str, *, rules: Rules | None = None, ssl: tls.SSLContext | None = None,
        host: str = "127.0.0.1", port: int = 0,
    ) -> None:  # fmt: skip
        if len(token) < 16:
            raise InputError(f"gateway: got a token of {len(token)} characters, wanted at least 16. Make a random one.")
        if ssl is None and host not in ("127.0.0.1", "localhost", "::1"):
            raise InputError(f"gateway: got host={host} without TLS, wanted a certificate for anything but loopback.")
        self.bridge, self._token, self.rules, self._ssl = bridge, token, rules or Rules(), ssl
        self.host, self.port, self.passed = host, port, Passed()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'wss' if self._ssl else 'ws'}://{self.host}:{self.port}"

    async def __aenter__(self) -> Gateway:
        from websockets.asyncio.server import serve

        options: dict[str, Any] = {"compression": None, "max_size": self.rules.inbound, "ssl": self._ssl}
        self._server = await serve(self._peer, self.host, self.port, process_request=self._door, **options)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _door(self, connection: Any, request: Any) -> Any:
        said = request.headers.get("Authorization", "")
        if not hmac.compare_digest(said.encode(), f"Bearer {self._token}".encode()):
            self.passed.unauthorised += 1
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "a token is needed\n")
        return None

    async def _peer(self, socket: Any) -> None:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        try:
            async with connect(self.bridge, compression=None, max_size=None, open_timeout=3.0) as inner:
                ways = [
                    asyncio.create_task(self._inward(socket, inner)),
                    asyncio.create_task(self._outward(inner, socket)),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, WebSocketException, TimeoutError):
            await socket.close(1013, "the bridge is not there")

    async def _inward(self, socket: Any, inner: Any) -> None:
        from websockets.exceptions import ConnectionClosedError

        decoder, loop = Decoder(self.rules.inbound), asyncio.get_running_loop()
        second, count = loop.time(), 0
        try:
            async for frame in socket:
                if loop.time() - second >= 1.0:
                    second, count = loop.time(), 0
                count += 1
                if count > self.rules.rate:
                    self.passed.throttled += 1
                    continue
                try:
                    message = decoder.decode(frame)
                    refusal = self.rules.refusal(message) if message is not None else "fragments are not allowed"
                    # Written anew: what was checked is what passes.
                    passing = "" if refusal or message is None else encode(message)
                except FrameError as error:  # also CBOR of what JSON does not have
                    passing, refusal = "", str(error)
                if not passing:
                    self.passed.refused += 1
                    self.passed.reasons = [*self.passed.reasons[-19:], refusal]
                    await socket.send(encode({"op": "status", "level": "error", "msg": refusal}))
                    continue
                await inner.send(passing)
                self.passed.inward += 1
        except ConnectionClosedError as error:
            self.passed.oversized += error.sent is not None and error.sent.code == 1009

    async def _outward(self, inner: Any, socket: Any) -> None:
        async for frame in inner:
            await socket.send(frame)
            self.passed.outward += 1


def _any(name: object, patterns: tuple[str, ...]) -> bool:
    return isinstance(name, str) and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def main(words: list[str] | None = None) -> int:
    """Run a gateway until SIGINT or SIGTERM; 2 when the request was wrong. The token comes from ROBOPREF_TOKEN, never from the command line."""
    parser = argparse.ArgumentParser(prog="python -m robopref.hardware.gateway", description=__doc__.split("\n")[0])
    parser.add_argument("--bridge", default="ws://127.0.0.1:9090", help="the rosbridge server behind it (%(default)s)")
    parser.add_argument("--cert", help="certificate in PEM, with its chain; needed for anything but loopback")
    parser.add_argument("--key", help="its private key in PEM")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9443)
    parser.add_argument(
        "--subscribe", action="append", default=[], metavar="TOPIC", help="may be heard besides the usual ones"
    )
    given = parser.parse_args(words)
    try:
        rules = Rules(subscribe=(*Rules().subscribe, *given.subscribe))
        gateway = Gateway(
            given.bridge, os.environ.get("ROBOPREF_TOKEN", ""), rules=rules, ssl=_certificate(given.cert, given.key),
            host=given.host, port=given.port,
        )  # fmt: skip
        asyncio.run(_until_stopped(gateway))
    except InputError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    return 0


def _certificate(cert: str | None, key: str | None) -> tls.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise InputError("got one of --cert and --key, wanted both or neither.")
    context = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    context.minimum_version = tls.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key)
    except (OSError, tls.SSLError) as error:
        raise InputError(f"got --cert {cert} --key {key}, wanted a certificate and its key in PEM: {error}") from error
    return context


async def _until_stopped(gateway: Gateway) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with gateway:
            print(f"gateway at {gateway.url}, bridge behind it: {gateway.bridge}", flush=True)
            await stop.wait()
    except OSError as error:
        raise InputError(
            f"got {gateway.host}:{gateway.port}, wanted an address that can be listened on: {error}"
        ) from error
    print(json.dumps({k: v for k, v in vars(gateway.passed).items() if isinstance(v, int)}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
