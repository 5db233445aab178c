"""`kill -9` of the server while people answer: every acknowledged answer is there and is the key that was pressed; and the time of an acknowledgement."""

from __future__ import annotations

import http.client
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from robopref.labelers.people import Answers

from .rows import at_most
from .server import Client, Server, answer, dataset, serving

CHOICES = ("left", "right", "equal", "cant_tell")


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `killed_lost`, `killed_invented`, `killed_chain`, `ack_p99_ms`."""
    with tempfile.TemporaryDirectory() as name:
        root = dataset(Path(name) / "store", 40)
        kills = 4 if quick else 300
        acknowledged, tried = _killed(root, kills)
        answers = Answers(root)
        stored = {e["uid"]: e["body"]["client"]["choice"] for e in answers.log.events(("answer",))}
        problems = answers.problems()
        answers.close()
        lost = sum(stored.get(uid) != choice for uid, choice in acknowledged.items())
        invented = sum(tried.get(uid) != choice for uid, choice in stored.items())
        told = {"kills": kills, "acknowledged": len(acknowledged), "stored": len(stored)}
        rows = {
            "killed_lost": at_most(lost, 0, **told),
            "killed_invented": at_most(invented, 0),
            "killed_chain": at_most(len(problems), 0),
        }
        return rows | {"ack_p99_ms": at_most(_acknowledgement(root, 60 if quick else 500), 10)}


def _killed(root: Path, kills: int) -> tuple[dict[str, str], dict[str, str]]:
    """(acknowledged, tried) uid -> choice over many servers that are killed while three people answer."""
    acknowledged: dict[str, str] = {}
    tried: dict[str, str] = {}
    rng = random.Random(0)
    for number in range(kills):
        server = Server(root, "annotators=a,b,c", "pairs=700", "repeats=0", "strategy=random", "minimum=0")
        threads = [threading.Thread(target=_answer, args=(server, who, number, acknowledged, tried)) for who in "abc"]
        for thread in threads:
            thread.start()
        time.sleep(rng.uniform(0.3, 2.0))
        server.kill()
        for thread in threads:
            thread.join()
    return acknowledged, tried


def _answer(server: Server, who: str, number: int, acknowledged: dict[str, str], tried: dict[str, str]) -> None:
    try:
        client = server.client(who)
        for n in range(10_000):
            for given in client.next(tab=f"tab-{number:06d}-{who}"):
                uid, choice = f"{who}-{number:05d}-{n:05d}", random.choice(CHOICES)
                tried[uid] = choice
                if client.record(answer(given, choice, uid))[0]["status"] in ("counted", "uncounted"):
                    acknowledged[uid] = choice
    except (OSError, http.client.HTTPException, ValueError):
        return  # the server was killed


def _acknowledgement(root: Path, count: int) -> float:
    """99th percentile, in ms, of one event over a connection that stays open, nobody else there."""
    import json

    with serving(root, "pairs=5000", "repeats=0", "strategy=random") as server:
        client: Client = server.client()
        times = []
        connection = http.client.HTTPConnection(*server.address)
        headers = {"Origin": client.origin, "Cookie": client.cookie, "Content-Type": "application/json"}
        for n in range(count):
            given = client.next(tab="tab-acknowledge")
            if not given:
                break
            body = json.dumps({"events": [answer(given[0], "left", f"ack-{n:08d}")]})
            begin = time.perf_counter()
            connection.request("POST", "/api/events", body, headers)
            connection.getresponse().read()
            times.append(1000 * (time.perf_counter() - begin))
        return float(np.quantile(times[1:], 0.99))
