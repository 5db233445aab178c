"""`kill -9` of the server and of the browser while people answer: what was acknowledged, or said to be kept, is there and is the key that was pressed.

And the time that an acknowledgement takes.
"""

from __future__ import annotations

import http.client
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.labelers.people import FILE, Answers
from robopref.labelling.project import AHEAD

from .active import STRATEGY
from .browser import SAVED, driver, kill_browser, opened, press, with_profile
from .rows import at_most
from .server import Client, Server, answer, dataset, serving

CHOICES = ("left", "right", "equal", "cant_tell")
TURN = 10
"""Kills of servers on one file of answers; then the questions run short."""
KEYS = {"a": "left", "d": "right", "w": "equal", "s": "cant_tell"}


def killed(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `killed_lost`, `killed_invented`, `killed_chain`: 300 kills of the server, at most `TURN` of them on one file of answers."""
    count = {"kills": 4 if quick else 300, "acknowledged": 0, "stored": 0}
    lost = invented = problems = 0
    with tempfile.TemporaryDirectory() as name:
        root = dataset(Path(name) / "store", 40)
        for begin in range(0, count["kills"], TURN):
            acknowledged, tried = _killed(root, range(begin, min(begin + TURN, count["kills"])))
            stored, wrong = _stored(root)
            lost += sum(stored.get(uid) != choice for uid, choice in acknowledged.items())
            invented += sum(tried.get(uid) != choice for uid, choice in stored.items())
            problems += wrong
            count["acknowledged"] += len(acknowledged)
            count["stored"] += len(stored)
            for file in (root / FILE).parent.glob(f"{Path(FILE).name}*"):
                file.unlink()  # the clips stay
    return {
        "killed_lost": at_most(lost, 0, **count), "killed_invented": at_most(invented, 0), "killed_chain": at_most(problems, 0)
    }  # fmt: skip


def _stored(root: Path) -> tuple[dict[str, str], int]:
    """uid -> choice of every stored answer, and how much is wrong with the file."""
    answers = Answers(root)
    stored = {e["uid"]: e["body"]["client"]["choice"] for e in answers.log.events(("answer",))}
    problems = answers.problems()
    answers.close()
    return stored, len(problems)


def _killed(root: Path, kills: Sequence[int]) -> tuple[dict[str, str], dict[str, str]]:
    """(acknowledged, tried) uid -> choice over many servers that are killed while three people answer."""
    acknowledged: dict[str, str] = {}
    tried: dict[str, str] = {}
    rng = random.Random(kills[0])
    for number in kills:
        server = Server(
            root, "annotators=a,b,c", "pairs=2300", "overlap=3", "repeats=0", "strategy=random", "minimum=0"
        )
        threads = [threading.Thread(target=_answer, args=(server, who, number, acknowledged, tried)) for who in "abc"]
        for thread in threads:
            thread.start()
        before, end = len(acknowledged), time.monotonic() + 120
        while len(acknowledged) == before and time.monotonic() < end:  # else a slow machine would kill idle servers
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 1.5))
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


def browser_killed(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `browser_killed_lost`, `browser_killed_invented`."""
    with tempfile.TemporaryDirectory() as name:
        return _browser_killed(Path(name), 3 if quick else 300)


def _browser_killed(folder: Path, kills: int) -> dict[str, dict[str, Any]]:
    """A far server, so that answers wait in the page; the browser is killed some milliseconds after the last key."""
    root, rng = dataset(folder / "browsed", 60), random.Random(1)
    words = ("delay=300", "pairs=1700", "repeats=0", "strategy=random", "minimum=0")
    told: list[tuple[list[str], int]] = []
    kept: list[list[str]] = []
    with driver() as playwright, serving(root, *words) as server:
        for number in range(kills + 1):
            page = opened(with_profile(playwright.chromium, folder / "profile", 240_000), server.link)
            page.wait_for_function(SAVED)  # what the killed browser had kept is sent first
            kept.append(_choices(root)[sum(map(len, kept)) :])
            if number == kills:
                page.context.close()
                break
            told.append(_pressed(page, rng))
            kill_browser(folder / "profile")
    kept = kept[1:]
    lost = sum(max(0, sure - len(found)) for (_, sure), found in zip(told, kept, strict=True))
    invented = sum(found != pressed[: len(found)] for (pressed, _), found in zip(told, kept, strict=True))
    return {
        "browser_killed_lost": at_most(lost, 0, kills=kills, said_to_be_kept=sum(sure for _, sure in told)),
        "browser_killed_invented": at_most(invented, 0),
    }


def _pressed(page: Any, rng: random.Random) -> tuple[list[str], int]:
    """One to four answers by key, and of how many the page says that they are kept."""
    keys = [rng.choice(list(KEYS)) for _ in range(rng.randint(1, 4))]
    for key in keys[:-1]:
        press(page, key)
    page.keyboard.press(keys[-1])
    time.sleep(rng.uniform(0.0, 0.1))
    said = page.inner_text("#saved")
    return [KEYS[key] for key in keys], len(keys) - (int(said.split()[1]) if said.startswith("writing") else 0)


def _choices(root: Path) -> list[str]:
    answers = Answers(root)
    found = [e["body"]["client"]["choice"] for e in answers.log.events(("answer",))]
    answers.close()
    return found


def acknowledgement(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `ack_p99_ms`; `chosen` is the same while the next question is chosen anew after every answer."""
    count = 60 if quick else 500
    with tempfile.TemporaryDirectory() as name:
        plain, chosen = (_acknowledgement(dataset(Path(name) / s, 40), count, s) for s in ("random", STRATEGY))
    return {"ack_p99_ms": at_most(plain, 10, chosen=round(chosen, 4))}


def _acknowledgement(root: Path, count: int, strategy: str) -> float:
    """99th percentile, in ms, of one event over a connection that stays open, nobody else there."""
    import json

    with serving(root, "pairs=5000", "repeats=0", f"strategy={strategy}") as server:
        client: Client = server.client()
        client.clips_made(AHEAD - 1)
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
