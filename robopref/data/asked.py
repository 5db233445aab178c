"""Which of the stored questions a session asks, and how many of a person's questions are checks."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass

from robopref.data.eventlog import statements

SHORTCUTS = """
CREATE INDEX IF NOT EXISTS slot_leased ON slot(expires_ms) WHERE state = 'open' AND only_for IS NULL;
CREATE INDEX IF NOT EXISTS slot_check ON slot(only_for, item) WHERE only_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS comparison_gold ON comparison(id) WHERE gold <> '';
CREATE INDEX IF NOT EXISTS event_answered ON event(annotator, seq) WHERE kind = 'answer' AND counted = 1;
CREATE TABLE IF NOT EXISTS asked(mode TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (mode, item)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tally(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS slot_made AFTER INSERT ON slot WHEN new.only_for IS NULL
  BEGIN UPDATE tally SET n = n + 1 WHERE state = new.state; END;
CREATE TRIGGER IF NOT EXISTS slot_moved AFTER UPDATE OF state ON slot WHEN new.only_for IS NULL AND old.state <> new.state
  BEGIN UPDATE tally SET n = n + (state = new.state) - (state = old.state) WHERE state IN (old.state, new.state); END;
"""
"""What keeps a request from walking through every question: also made in a file that has none yet. Slots are never removed."""
STATES = ("waiting", "open", "done", "closed")


def shorten(db: sqlite3.Connection) -> None:
    """Make indices, tables and the tally where they are not there, the tally from what is. Inside a transaction."""
    for statement in statements(SHORTCUTS):
        db.execute(statement)
    if db.execute("SELECT count(*) FROM tally").fetchone()[0] == 0:
        found = dict(db.execute("SELECT state, count(*) FROM slot WHERE only_for IS NULL GROUP BY state").fetchall())
        db.executemany("INSERT INTO tally VALUES (?, ?)", [(state, found.get(state, 0)) for state in STATES])


@dataclass(frozen=True)
class CheckPlan:
    """How many of a person's questions are repeats or gold."""

    share: float = 0.1
    screen: int = 0
    """Checks among the first 30 questions; 0 leaves them to `share`."""

    def wanted(self, answers: int, after: int = 0) -> int:
        """Checks that should have been asked once `answers` questions were, if none can be among the first `after`."""
        if self.screen and answers <= 30:
            return int(self.screen * max(0, answers - after) / (30 - after))
        return self.screen + int(self.share * (answers - (30 if self.screen else 0)))


class Session:
    """What is asked now. A file may hold open questions of former sessions: of another mode, of windows of another length."""

    def __init__(self) -> None:
        self.mode = ""
        """Every mode until `begin`."""
        self.only = ""
        """SQL: and slot `s` is of a question that is asked; empty where all are."""

    def begin(self, db: sqlite3.Connection, items: Collection[str], mode: str) -> None:
        """Ask these questions, all of one mode, and no others; answers of other modes do not count towards the target."""
        db.execute("DELETE FROM asked WHERE mode = ?", (mode,))
        db.executemany("INSERT INTO asked VALUES (?, ?)", [(mode, item) for item in items])
        asked = f"SELECT item FROM asked WHERE mode = '{mode}'"
        others = db.execute(f"SELECT 1 FROM slot WHERE only_for IS NULL AND item NOT IN ({asked}) LIMIT 1").fetchone()
        self.mode, self.only = mode, f"AND +s.item IN ({asked})" if others else ""

    @property
    def slots(self) -> str:
        """SQL: FROM and WHERE of the slots `s` that the session is about, checks left out."""
        if not self.only:
            return "FROM slot s WHERE s.only_for IS NULL"
        own = "FROM slot s JOIN comparison c ON c.id = s.item WHERE s.only_for IS NULL"
        return f"{own} AND c.mode = '{self.mode}' AND (s.state = 'done' OR (s.item = c.id {self.only}))"

    def counts(self, db: sqlite3.Connection, now: int) -> dict[str, int]:
        """Slots by state, checks left out, and `leased` of the open ones."""
        if self.only:
            told = dict.fromkeys(STATES, 0)
            told |= {r[0]: r[1] for r in db.execute(f"SELECT s.state, count(*) {self.slots} GROUP BY s.state")}
            leased = f"SELECT count(*) {self.slots} AND s.state = 'open' AND s.expires_ms >= ?"
        else:
            told = {row["state"]: row["n"] for row in db.execute("SELECT state, n FROM tally")}
            leased = "SELECT count(*) FROM slot INDEXED BY slot_leased WHERE state = 'open' AND expires_ms >= ? AND only_for IS NULL"
        return told | {"leased": db.execute(leased, (now,)).fetchone()[0]}

    def includes(self, mode: str) -> bool:
        """Whether questions of a mode are asked at all."""
        return self.mode in ("", mode)
