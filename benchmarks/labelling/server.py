"""A real labelling server in a process of its own, a dataset for it, and a client that speaks plain HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from robopref.envs.point_mass import PointMass

from robopref.arrays import Trajectory
from robopref.data.store import StoreWriter


def dataset(root: Path, episodes: int = 12, horizon: int = 30, states: bool = True) -> Path:
    """Point-mass episodes, two of each reset: a careful and a careless one, of different lengths."""
    with StoreWriter(root, fps=20) as writer:
        for n in range(episodes):
            writer.add(acted(PointMass(horizon=horizon - 10 * (n % 2), image_size=64), n // 2, 0.7 * (n % 2), states))
    return root


def acted(env: PointMass, seed: int, noise: float, states: bool = True) -> Trajectory:
    """One episode of the scripted expert with noise on its actions."""
    rng = np.random.default_rng([seed, int(10 * noise)])
    seen: list[Any] = []
    done: list[Any] = []
    reward: list[float] = []
    success: list[bool] = []
    state: list[Any] = []
    observation, over = env.reset(seed=seed)[0], False
    while not over:
        seen.append(observation)
        state.append(env.get_state())
        done.append(np.clip(env.expert(observation) + noise * rng.normal(size=2), -1, 1).astype(np.float32))
        observation, got, _, over, info = env.step(done[-1])
        reward.append(got)
        success.append(info["success"])
    return Trajectory(
        np.stack(seen), np.stack(done), np.array(reward, np.float32), np.array(success), env.task, seed, f"noise {noise}", "pointmass",
        np.stack(state) if states else None,
    )  # fmt: skip


class Client:
    """One browser's worth of HTTP: keeps the cookie, names its origin. With `trusted`, HTTPS to servers that it trusts."""

    def __init__(
        self, address: tuple[str, int], token: str | None = None, origin: str | None = None, trusted: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.address, self.host, self.trusted = address, f"{address[0]}:{address[1]}", trusted
        self.origin = origin or f"{'https' if trusted else 'http'}://{self.host}"
        self.cookie = ""
        if token:
            status, _, headers = self.ask("POST", "/api/login", {"token": token})
            _accepted(status, "login")
            self.cookie = headers["set-cookie"].split(";")[0]
            self.set_cookie = headers["set-cookie"]

    def ask(
        self, method: str, path: str, body: Any = None, raw: bytes | None = None, **headers: str | None
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, parsed body or bytes, headers); a header given as None is left out."""
        sent: dict[str, str | None] = {
            "Host": self.host,
            "Origin": self.origin,
            "Cookie": self.cookie,
            "Content-Type": "application/json",
        }
        sent |= {k.replace("_", "-"): v for k, v in headers.items()}
        if method == "GET":
            sent.pop("Content-Type")
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else None)
        connection = (
            http.client.HTTPSConnection(*self.address, timeout=60, context=self.trusted)
            if self.trusted
            else http.client.HTTPConnection(*self.address, timeout=60)
        )
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            if value is not None and value != "":
                connection.putheader(name, value)
        if data is not None and "Content-Length" not in sent and "Transfer-Encoding" not in sent:
            connection.putheader("Content-Length", str(len(data)))
        connection.endheaders(data)
        reply = connection.getresponse()
        text, told = reply.read(), {k.lower(): v for k, v in reply.getheaders()}
        connection.close()
        return (
            reply.status,
            json.loads(text) if told.get("content-type", "").startswith("application/json") else text,
            told,
        )

    def next(self, n: int = 1, tab: str = "tab-00000001", held: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Assignments; waits until the clips of `n` questions exist."""
        end = time.monotonic() + 240
        while time.monotonic() < end:
            status, body, _ = self.ask("POST", "/api/next", {"n": n, "tab": tab, "held": list(held)})
            _accepted(status, body)
            if len(body["assignments"]) >= n or body["progress"]["done"] >= body["progress"]["target"]:
                return list(body["assignments"])
            time.sleep(0.1)
        raise RuntimeError("no question became ready")

    def clips_made(self, wanted: int) -> None:
        """Wait until `wanted` questions can be asked, or all: who finds nothing to do finds no fault either, and making clips is work."""
        self.next()
        end = time.monotonic() + 90
        while time.monotonic() < end:
            progress = self.ask("GET", "/api/progress")[1]
            if not progress["waiting"] or progress["ready"] >= wanted:
                return
            time.sleep(0.2)
        raise RuntimeError(
            f"clips of {progress['waiting']} questions were not made in 90 s, wanted {wanted} questions ready"
        )

    def record(self, *events: Any) -> list[dict[str, Any]]:
        """Receipts of events."""
        status, body, _ = self.ask("POST", "/api/events", {"events": list(events)})
        _accepted(status, body)
        return list(body["receipts"])


def _accepted(status: int, body: Any) -> None:
    if status != 200:
        raise RuntimeError(f"the labelling server: got {status} ({body}), wanted 200")


class Server:
    """`robopref annotate` as a child process."""

    def __init__(self, root: Path, *words: str) -> None:
        command = [sys.executable, "-m", "robopref.cli", "annotate", str(root), "--port", "0", "--no-browser", *words]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        people = 1 + sum(len(w.split("=", 1)[1].split(",")) for w in words if w.startswith("annotators="))
        self.links = {}
        for _ in range(people):
            assert self.process.stdout is not None
            line = self.process.stdout.readline().strip()
            if not line:
                raise RuntimeError(f"the server ended: {self.process.communicate()[1]}")
            name, _, link = line.rpartition(": ") if people > 1 else ("me", "", line)
            self.links[name] = link
        self.link = next(iter(self.links.values()))
        host = self.link.split("/")[2]
        self.address = (host.rpartition(":")[0].strip("[]"), int(host.rpartition(":")[2]))

    def client(self, name: str | None = None, trusted: ssl.SSLContext | None = None) -> Client:
        """Somebody who has opened their link."""
        link = self.links[name] if name else self.link
        return Client(self.address, link.split("#t=")[1], trusted=trusted)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def stop(self) -> None:
        """As Ctrl-C would."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.kill()


def answer(assignment: dict[str, Any], choice: str, uid: str, kind: str = "answer") -> dict[str, Any]:
    """What the page sends."""
    told = {k: assignment[k] for k in ("item", "slot", "gen", "token")}
    return told | {"uid": uid, "kind": kind, "body": {"choice": choice} if kind == "answer" else {}}


@contextmanager
def serving(root: Path, *words: str) -> Iterator[Server]:
    """A server that is stopped at the end."""
    server = Server(root, *words)
    try:
        yield server
    finally:
        server.stop()
