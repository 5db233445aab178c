"""Requests that must be refused, against a running server: how many there are, and how many got through."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .rows import at_least, at_most
from .server import Client, answer, dataset, serving

PATHS = (
    "/../pyproject.toml", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/media/../../answers.sqlite", "/media/..%2fanswers.sqlite",
    "/media/" + "a" * 32, "/media/answers.sqlite", "/media/%00", "/media/..%5c..%5cx", "/answers.sqlite", "/.git/config", "/app.py",
)  # fmt: skip
HOSTS = (
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "169.254.169.254",
    "127.0.0.1@evil.example",
    "[::1",
    "0.0.0.0",
)
READS = ("/api/config", "/api/progress", "/api/history", "/api/quality", "/media/" + "0" * 32)
WRITES = ("next", "events", "renew", "release", "export", "enrol", "revoke", "logout")
FORGED: tuple[dict[str, str | None], ...] = (
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": None}, {"Origin": "http://127.0.0.1:1"}, {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"}, {"Content_Type": "text/plain"}, {"Content_Type": "application/x-www-form-urlencoded"}, {"Content_Type": None},
)  # fmt: skip
BODIES = (
    b"[" + b"1," * 40_000 + b"1]",
    b"{'a': 1}",
    b"[]",
    b'{"events":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    b"\x80\x04\x95",
    b'{"events": []}',
    b'{"events": NaN}',
)
EVENTS: tuple[dict[str, Any], ...] = (
    {"kind": "answer", "item": "x' OR 1=1 --", "slot": 0, "body": {"choice": "left"}}, {"kind": "login", "body": {}}, {"kind": "answer", "body": []},
    {"kind": "undo", "supersedes": "somebody-elses", "body": {}}, {"kind": "note", "supersedes": "somebody-elses", "body": {"note": "x"}},
    {"kind": "answer", "item": "\ud800", "slot": 0, "body": {"choice": "left"}}, {"kind": "answer", "item": "x", "slot": 10**30, "body": {"choice": "left"}},
    {"kind": "undo", "supersedes": ["x"], "body": {}},
)  # fmt: skip


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `attacks_tried` and `attacks_through`."""
    with (
        tempfile.TemporaryDirectory() as name,
        serving(dataset(Path(name) / "store", 4), "annotators=ada,bob", "repeats=0") as server,
    ):
        ada, stranger = server.client("ada"), Client(server.address)
        tried = [(f"path {p}", ada.ask("GET", p)[0]) for p in PATHS]
        tried += [
            (
                f"host {h} {m}",
                ada.ask(m, "/api/progress" if m == "GET" else "/api/next", {} if m == "POST" else None, Host=h)[0],
            )
            for h in HOSTS
            for m in ("GET", "POST")
        ]
        tried += [(f"stranger {p}", stranger.ask("GET", p)[0]) for p in READS]
        tried += [(f"stranger {p}", stranger.ask("POST", f"/api/{p}", {})[0]) for p in WRITES]
        tried += [(f"annotator {p}", ada.ask("POST", f"/api/{p}", {})[0]) for p in ("export", "enrol", "revoke")]
        tried += [(f"forged {f}", ada.ask("POST", "/api/events", {"events": [{}]}, None, **f)[0]) for f in FORGED]
        tried += [
            (f"method {m}", ada.ask(m, "/api/events", {})[0]) for m in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")
        ]
        tried += [(f"body {b[:12]!r}", ada.ask("POST", "/api/events", raw=b)[0]) for b in BODIES]
        for n, event in enumerate(EVENTS):
            status = ada.record(event | {"uid": f"attack-{n:05d}"})[0]["status"]
            tried.append((f"event {n}", 400 if status == "rejected" else 200))
        tried += _replayed(ada, server.client("bob"))
        through = [
            what for what, status in tried if not 400 <= status < 500
        ]  # a server that breaks has refused nothing
        return {"attacks_tried": at_least(len(tried), 60), "attacks_through": at_most(len(through), 0, which=through)}


def _replayed(ada: Client, bob: Client) -> list[tuple[str, int]]:
    """Answers sent once more, changed, by somebody else, or after they were taken back: none may count."""
    (given,) = ada.next()
    told = answer(given, "left", "replay-00000")
    (first,) = ada.record(told)
    undo = {"uid": "replay-undo0", "kind": "undo", "supersedes": told["uid"], "body": {}}
    ada.record(undo)
    (other,) = bob.next(tab="tab-00000002")
    tried = {
        "another choice": (ada, told | {"body": {"choice": "right"}}),
        "another uid": (ada, told | {"uid": "replay-00001"}),
        "another person": (bob, told),
        "another person's lease": (bob, told | {"uid": "replay-00002"}),
        "a script in a name of the event": (ada, told | {"uid": "<script>alert(1)</script>"}),
        "an undo twice": (ada, undo | {"uid": "replay-undo1"}),
        "somebody else's undo": (bob, undo | {"uid": "replay-undo2"}),
        "a lease that was not given": (ada, answer(other, "left", "replay-00003")),
        "a guessed token": (bob, answer(other | {"token": other["token"] + 1}, "left", "replay-00004")),
    }
    found = [
        (f"replay {what}", 200 if who.record(event)[0]["status"] == "counted" else 400)
        for what, (who, event) in tried.items()
    ]
    return [
        *found,
        (
            "replay itself",
            400 if first["status"] == "counted" and ada.record(told)[0]["status"] == "duplicate" else 200,
        ),
    ]
