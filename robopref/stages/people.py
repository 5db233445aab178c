"""Ask people: the labelling page on a round's rollouts, until the answers that are wanted are there, then their export.

The page is the command `robopref annotate` in a process of its own; answers are in the store as soon as they are given, so
an interrupted run loses none and asks only for what is missing.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from robopref.arrays import InputError
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import FILE
from robopref.progress import track

Config = dict[str, Any]


def are_people(config: Config) -> bool:
    """Whether the rater of a configuration is people."""
    return str(config["labeler"].get("_target_", "")).endswith(".People")


def ask_people(config: Config, store: Path, count: int, pause: float = 1.0) -> int:
    """Serve the page for `store` until `count` answers are given, export them, and return how many there are.

    Raises `InputError` when the page ends before that, with what it said.
    """
    settings = config["people"]
    words = [str(store), f"pairs={count}", f"port={settings['port']}", f"seed={config['seed']}", *settings["options"]]
    command = [sys.executable, "-m", "robopref.cli", "annotate", *words, "--no-browser"]
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would stop the page when it is full
        page = subprocess.Popen(command, stderr=said)
        try:
            for number in track(range(count), "answers of people"):
                _wait(lambda: answered(store), number + 1, page, said, pause)
        finally:
            page.terminate()
            page.wait(timeout=30)
    subprocess.run(
        [sys.executable, "-m", "robopref.cli", "annotate", str(store), "export=true"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return answered(store)


def answered_dataset(root: Path) -> Path:
    """The store itself, after a look whether people's answers about it were exported. Raises `InputError` if there are none."""
    store = TrajectoryStore(root)
    if not any(p.source == "human" and p.answered for p in PreferenceStore(store).pairs()):
        raise InputError(
            f"labeler=people: got {root} without an answer of people, wanted some.\n"
            f"Label it with `robopref annotate {root}`, then `robopref annotate {root} export=true`."
        )
    return root.resolve()


def answered(store: Path) -> int:
    """Answers about a store that count now, checks left out."""
    path = store / FILE
    if not path.exists():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        return int(
            database.execute("SELECT count(*) FROM slot WHERE state = 'done' AND only_for IS NULL").fetchone()[0]
        )
    except sqlite3.OperationalError:  # the page has not made its tables yet
        return 0
    finally:
        database.close()


def _wait(count: Callable[[], int], wanted: int, page: subprocess.Popen[bytes], said: TextIO, pause: float) -> None:
    while count() < wanted:
        if page.poll() is not None:
            said.seek(0)
            raise InputError(f"human_in_the_loop: the labelling page ended early.\n{said.read().strip()}")
        time.sleep(pause)
