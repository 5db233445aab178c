"""Ask people: the labelling page on a round's rollouts, until the answers that are wanted are there, then their export.

The page is the command `robopref annotate` in a process of its own; answers are in the store as soon as they are given, so
an interrupted run loses none and asks only for what is missing.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from robopref.arrays import InputError
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import FILE
from robopref.progress import track

Config = dict[str, Any]
_NOTHING_LEFT = 120.0
"""Seconds without an open question after which a round no longer waits for people: clips that fail, or too few rollouts."""


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
                _wait(store, number + 1, page, said, pause)
        finally:
            page.terminate()
            page.wait(timeout=30)
    _export(store)
    return answered(store)


def _export(store: Path) -> None:
    """Write what people answered since the last time to the sidecar. Raises `InputError` with what the command said."""
    command = [sys.executable, "-m", "robopref.cli", "annotate", str(store), "export=true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"labeler=people: the answers about {store} cannot be exported.\n{done.stderr.strip()}")


def answered_dataset(root: Path) -> Path:
    """The store itself, after the export of what people answered about it. Raises `InputError` if there is nothing."""
    store = TrajectoryStore(root)
    if answered(root) and os.access(root / FILE, os.W_OK):
        _export(root)
    if not any(p.source == "human" and p.answered for p in PreferenceStore(store).pairs()):
        raise InputError(
            f"labeler=people: got {root} without an answer of people, wanted some.\n"
            f"Label it with `robopref annotate {root}`."
        )
    return root.resolve()


def answered(store: Path) -> int:
    """Answers about a store that count now, checks left out."""
    return _slots(store, ("done",))


def _slots(store: Path, states: Sequence[str]) -> int:
    path = store / FILE
    if not path.exists():
        return 0
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
    try:
        wanted = ", ".join("?" * len(states))
        found = database.execute(
            f"SELECT count(*) FROM slot WHERE only_for IS NULL AND state IN ({wanted})", tuple(states)
        )
        return int(found.fetchone()[0])
    except sqlite3.OperationalError:  # the page has not made its tables yet
        return 0
    finally:
        database.close()


def _wait(store: Path, wanted: int, page: subprocess.Popen[bytes], said: TextIO, pause: float) -> None:
    left_at = time.monotonic()
    while answered(store) < wanted:
        if _slots(store, ("open", "waiting")):
            left_at = time.monotonic()
        ended = page.poll() is not None
        if ended or time.monotonic() - left_at > _NOTHING_LEFT:
            said.seek(0)
            why = (
                "ended early"
                if ended
                else f"has had nothing left to ask for {_NOTHING_LEFT:.0f} s after {answered(store)} answers"
            )
            raise InputError(f"human_in_the_loop: the labelling page {why}, wanted {wanted}.\n{said.read().strip()}")
        time.sleep(pause)
