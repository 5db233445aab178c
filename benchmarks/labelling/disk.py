"""A disk that is full, and a log whose tail is torn, under a real server: what was acknowledged is there, and nothing else."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

from robopref.labelers.people import FILE, Answers

from .rows import at_most
from .server import Client, Server, answer, dataset

ROOM = 60_000
"""Bytes by which the log may still grow when the disk is said to be full."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `disk_full_lost`, `torn_tail_lost`: answers that are missing, changed or invented, and faults of the chain."""
    count = 2 if quick else 10
    with tempfile.TemporaryDirectory() as name:
        root = dataset(Path(name) / "store", 30)
        full = [_full(root, n) for n in range(count)]
        torn = [_torn(root, n) for n in range(count)]
    return {
        "disk_full_lost": at_most(
            sum(f["wrong"] for f in full), 0, acknowledged=sum(f["acknowledged"] for f in full), refused=sum(f["refused"] for f in full)
        ),
        "torn_tail_lost": at_most(sum(t["wrong"] for t in torn), 0, acknowledged=sum(t["acknowledged"] for t in torn)),
    }  # fmt: skip


def _full(root: Path, number: int) -> dict[str, int]:
    """Answers while the files of the server may not grow, and again when they may; the last one refused is sent once more."""
    server = Server(root, "pairs=430", "repeats=0", "strategy=random", "minimum=0")
    client = server.client()
    client.clips_made(20)
    tried: dict[str, str] = {}
    acknowledged: set[str] = set()
    refused = _answer(client, f"full-{number:03d}-a", 3, tried, acknowledged)
    log = root / f"{FILE}-wal"
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (log.stat().st_size + ROOM, resource.RLIM_INFINITY))
    refused += _answer(client, f"full-{number:03d}-b", 14, tried, acknowledged)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    again = _answer(client, f"full-{number:03d}-c", 3, tried, acknowledged)
    server.kill()
    found = _compared(root, f"full-{number:03d}", tried, acknowledged)
    return found | {"refused": refused, "wrong": found["wrong"] + again + (refused == 0)}


def _torn(root: Path, number: int) -> dict[str, int]:
    """The server is killed and half a page of what it would have written next stands at the end of the log."""
    server = Server(root, "pairs=430", "repeats=0", "strategy=random", "minimum=0")
    client = server.client()
    client.clips_made(8)
    tried: dict[str, str] = {}
    acknowledged: set[str] = set()
    refused = _answer(client, f"torn-{number:03d}", 8, tried, acknowledged)
    server.kill()
    log = root / f"{FILE}-wal"
    log.write_bytes(log.read_bytes() + bytes(range(256)) * 9)
    found = _compared(root, f"torn-{number:03d}", tried, acknowledged)
    return found | {"wrong": found["wrong"] + refused}


def _answer(client: Client, prefix: str, count: int, tried: dict[str, str], acknowledged: set[str]) -> int:
    """Give `count` answers with long notes; returns how many were refused."""
    refused = 0
    for n in range(count):
        status, body, _ = client.ask("POST", "/api/next", {"n": 1, "tab": "tab-00000001", "held": []})
        if status != 200 or not body["assignments"]:
            refused += 1
            continue
        told = answer(body["assignments"][0], ("left", "right")[n % 2], f"{prefix}-{n:05d}")
        told["body"]["note"] = "n" * 1900
        tried[told["uid"]] = told["body"]["choice"]
        status, body, _ = client.ask("POST", "/api/events", {"events": [told]})
        if status == 200 and body["receipts"][0]["status"] == "counted":
            acknowledged.add(told["uid"])
        else:
            refused += 1
    return refused


def _compared(root: Path, prefix: str, tried: dict[str, str], acknowledged: set[str]) -> dict[str, int]:
    answers = Answers(root)
    stored = {
        e["uid"]: e["body"]["client"]["choice"] for e in answers.log.events(("answer",)) if e["uid"].startswith(prefix)
    }
    wrong = len(answers.problems()) + sum(uid not in stored for uid in acknowledged)
    wrong += sum(tried.get(uid) != choice for uid, choice in stored.items())
    answers.close()
    return {"wrong": wrong, "acknowledged": len(acknowledged)}
