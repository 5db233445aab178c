"""Fifty (and a hundred) people who label at once, one answer every two seconds each: doubles, errors, waiting times."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from robopref.labelers.people import Answers
from robopref.labelling.project import AHEAD

from .rows import at_least, at_most
from .server import Client, Server, answer, dataset, serving


def fifty(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `crowd50_*`; answers: four of five that are due."""
    seconds = 15 if quick else 600
    found = _crowd(50, seconds)
    return {
        "crowd50_doubles": at_most(found["doubles"], 0, answers=found["answers"], seconds=seconds), "crowd50_errors": at_most(found["errors"], 0),
        "crowd50_answers": at_least(found["answers"], 0.8 * 50 * seconds / 2), "crowd50_p99_ms": at_most(found["p99"], 150),
    }  # fmt: skip


def hundred(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `crowd100_doubles`."""
    seconds = 15 if quick else 120
    found = _crowd(100, seconds)
    return {"crowd100_doubles": at_most(found["doubles"], 0, answers=found["answers"], seconds=seconds)}


def _crowd(people: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        root = dataset(Path(name) / "store", 60 if seconds < 60 else 250, 12)
        names = [f"p{n}" for n in range(people)]
        wanted = int(people * seconds)
        with serving(
            root,
            f"annotators={','.join(names)}",
            f"pairs={wanted}",
            f"pool={min(20_000, wanted)}",
            "repeats=0",
            "strategy=random",
        ) as server:
            clients = [server.client(n) for n in names]
            clients[0].clips_made(min(wanted // 2, AHEAD))  # the server makes no more before somebody answers
            found = asyncio.run(_all(server, clients, seconds))
        answers = Answers(root)
        counted = [(e["item"], e["slot"]) for e in answers.current()]
        doubles = len(counted) - len(set(counted)) + len(answers.problems())
        answers.close()
        times = [t for _, spent in found for t in spent]
        return {
            "doubles": doubles,
            "errors": sum(e for e, _ in found),
            "p99": float(np.quantile(times, 0.99)),
            "answers": len(counted),
        }


async def _all(server: Server, clients: list[Client], seconds: float) -> list[tuple[int, list[float]]]:
    end = time.perf_counter() + seconds
    return await asyncio.gather(*(_labeller(server, c, n, len(clients), end) for n, c in enumerate(clients)))


async def _labeller(server: Server, client: Client, number: int, people: int, end: float) -> tuple[int, list[float]]:
    """(errors, milliseconds of each request) of one person with one open connection."""
    errors, times = 0, []
    await asyncio.sleep(2 * number / people)
    reader, writer = await asyncio.open_connection(*server.address)

    async def post(path: str, body: Any) -> Any:
        nonlocal errors
        text = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {client.host}\r\nOrigin: {client.origin}\r\nCookie: {client.cookie}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        begin = time.perf_counter()
        writer.write(head.encode() + text)
        status = int((await reader.readline()).split()[1])
        length = 0
        while line := (await reader.readline()).strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        reply = json.loads(await reader.readexactly(length))
        times.append(1000 * (time.perf_counter() - begin))
        errors += status != 200
        return reply

    held: list[dict[str, Any]] = []
    count = 0
    while time.perf_counter() < end:
        tick = time.perf_counter()
        if len(held) < 2:
            reply = await post("/api/next", {"n": 2, "tab": f"tab-{number:08d}", "held": [h["name"] for h in held]})
            held += reply.get("assignments", [])
        if held:
            told = answer(held.pop(0), ("left", "right")[count % 2], f"crowd-{number:04d}-{count:06d}")
            reply = await post("/api/events", {"events": [told]})
            errors += reply["receipts"][0]["status"] != "counted"
            count += 1
        await asyncio.sleep(max(0.0, 2.0 - (time.perf_counter() - tick)))
    writer.close()
    return errors, times
