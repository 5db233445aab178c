"""Who is asked what next: slots of questions, leased to one person at a time, so that none is counted twice.

A slot is one answer wanted for one question. A lease carries a fencing token: an answer counts only with the token,
the generation and the person of the lease that is current. Everything runs inside transactions of the event log.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.data.answer_rows import Comparison
from robopref.data.eventlog import EventLog, statements
from robopref.data.pairs import Window

SCHEMA = """
CREATE TABLE comparison(id TEXT PRIMARY KEY, mode TEXT NOT NULL, windows TEXT NOT NULL, hashes TEXT NOT NULL,
  repeat_of TEXT NOT NULL, gold TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE slot(item TEXT NOT NULL REFERENCES comparison(id), slot INTEGER NOT NULL, prio REAL NOT NULL,
  gen INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL CHECK (state IN ('waiting', 'open', 'done', 'closed')),
  who TEXT, tab TEXT, only_for TEXT, expires_ms INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0,
  shown TEXT, strategy TEXT NOT NULL, score REAL NOT NULL, propensity REAL NOT NULL, PRIMARY KEY (item, slot))
  WITHOUT ROWID;
CREATE INDEX slot_queue ON slot(state, prio DESC, item, slot);
CREATE UNIQUE INDEX slot_person ON slot(item, who) WHERE who IS NOT NULL;
CREATE INDEX slot_who ON slot(who, state);
CREATE TABLE skipped(item TEXT NOT NULL, annotator TEXT NOT NULL, PRIMARY KEY (item, annotator)) WITHOUT ROWID;
"""
SHORTCUTS = """
CREATE INDEX IF NOT EXISTS slot_leased ON slot(expires_ms) WHERE state = 'open' AND only_for IS NULL;
CREATE INDEX IF NOT EXISTS slot_check ON slot(only_for, item) WHERE only_for IS NOT NULL;
CREATE INDEX IF NOT EXISTS comparison_gold ON comparison(id) WHERE gold <> '';
CREATE INDEX IF NOT EXISTS event_answered ON event(annotator, seq) WHERE kind = 'answer' AND counted = 1;
CREATE TABLE IF NOT EXISTS tally(state TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS slot_made AFTER INSERT ON slot WHEN new.only_for IS NULL
  BEGIN UPDATE tally SET n = n + 1 WHERE state = new.state; END;
CREATE TRIGGER IF NOT EXISTS slot_moved AFTER UPDATE OF state ON slot WHEN new.only_for IS NULL AND old.state <> new.state
  BEGIN UPDATE tally SET n = n + (state = new.state) - (state = old.state) WHERE state IN (old.state, new.state); END;
"""
"""What keeps a request from walking through every question: also made in a file that has none yet. Slots are never removed."""
STATES = ("waiting", "open", "done", "closed")
LEASE_MS = 120_000
LAG = 10
"""Answers of a person between a question and its repeat, at least."""


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


class QuestionQueue:
    """The queue of one event log. `target` answers are wanted in all (0: as many as there are slots)."""

    def __init__(self, log: EventLog, target: int = 0, plan: CheckPlan | None = None, seed: int | None = None) -> None:
        self.log, self.target, self.plan = log, target, plan or CheckPlan(0.0)
        self._rng = np.random.default_rng(seed)
        self._shorten()

    def add(self, comparisons: Iterable[Comparison], hashes: Callable[[Window], str], overlap: int = 1, ready: bool = True) -> int:  # fmt: skip
        """Add questions that are not there yet, with `overlap` slots each; returns how many were new.

        `hashes` gives the content hash of a window's episode. `ready=False` keeps them back until `release_waiting`.
        """
        state, new = "open" if ready else "waiting", 0
        with self.log.write() as db:
            for one in comparisons:
                windows = [[w.episode, w.start, w.end] for w in one.windows]
                row = (one.id, one.mode, json.dumps(windows), json.dumps([hashes(w) for w in one.windows]), one.repeat_of, one.gold)  # fmt: skip
                new += (fresh := db.execute("INSERT OR IGNORE INTO comparison VALUES (?,?,?,?,?,?)", row).rowcount)
                if fresh and not one.gold:
                    for slot in range(overlap):
                        self._insert(db, one, slot, state)
        return new

    def release_waiting(self, items: Collection[str]) -> None:
        """Open the slots of questions whose clips exist now."""
        with self.log.write() as db:
            db.executemany("UPDATE slot SET state = 'open' WHERE item = ? AND state = 'waiting'", [(i,) for i in items])

    def next(self, annotator: str, tab: str, count: int, held: Collection[str] = ()) -> list[dict[str, Any]]:
        """Up to `count` assignments for a browser tab: first leases of its own that it lost, then the best open slots."""
        given: list[dict[str, Any]] = []
        with self.log.write() as db:
            now = self.log.now()
            mine = db.execute(
                "SELECT * FROM slot WHERE who = ? AND state = 'open' AND tab = ? AND expires_ms >= ? ORDER BY item, slot",
                (annotator, tab, now),
            ).fetchall()
            for row in [r for r in mine if f"{r['item']}/{r['slot']}" not in held][:count]:
                given.append(self._lease(db, row, annotator, tab, now, keep=True))
            while len(given) < count:
                row = self._check(db, annotator, now) or self._best(db, annotator, now)
                if row is None:
                    break
                given.append(self._lease(db, row, annotator, tab, now))
        return given

    def renew(self, annotator: str, held: Collection[str]) -> list[str]:
        """Extend leases named "item/slot"; returns those that are still held."""
        kept = []
        with self.log.write() as db:
            now = self.log.now()
            for name in held:
                item, _, slot = name.rpartition("/")
                found = db.execute(
                    "UPDATE slot SET expires_ms = ? WHERE item = ? AND slot = ? AND who = ? AND state = 'open'",
                    (now + LEASE_MS, item, slot, annotator),
                )
                if found.rowcount:
                    kept.append(name)
        return kept

    def release(self, annotator: str, held: Collection[str]) -> None:
        """Give leases back at once; the person may be given them again."""
        with self.log.write() as db:
            for name in held:
                item, _, slot = name.rpartition("/")
                db.execute(
                    "UPDATE slot SET who = NULL, tab = NULL, expires_ms = 0, token = token + 1 "
                    "WHERE item = ? AND slot = ? AND who = ? AND state = 'open'",
                    (item, slot, annotator),
                )

    def rescore(self, rows: Sequence[tuple[str, str, float, float, float]]) -> int:
        """New (item, strategy, score, propensity, prio) from a background worker; leased and answered slots stay as they are."""
        with self.log.write() as db:
            now = self.log.now()
            changed = [
                db.execute(
                    "UPDATE slot SET strategy = ?, score = ?, propensity = ?, prio = ? WHERE item = ? "
                    "AND state IN ('open', 'waiting') AND expires_ms < ? AND only_for IS NULL",
                    (strategy, score, propensity, prio, item, now),
                ).rowcount
                for item, strategy, score, propensity, prio in rows
            ]
        return sum(changed)

    def counts(self) -> dict[str, int]:
        """Slots by state, checks left out, and `leased` of the open ones."""
        found = {row["state"]: row["n"] for row in self.log.db.execute("SELECT state, n FROM tally")}
        leased = "SELECT count(*) FROM slot INDEXED BY slot_leased WHERE state = 'open' AND expires_ms >= ? AND only_for IS NULL"
        return found | {"leased": self.log.db.execute(leased, (self.log.now(),)).fetchone()[0]}

    def windows(self, item: str) -> tuple[Window, ...]:
        """The windows of a question. Raises `InputError` for an unknown one."""
        row = self.log.db.execute("SELECT windows FROM comparison WHERE id = ?", (item,)).fetchone()
        if row is None:
            raise InputError(f"question {item!r}: got an unknown one.")
        return tuple(Window(*w) for w in json.loads(row["windows"]))

    def _shorten(self) -> None:
        """Make the indices and the tally where they are not there, the tally from what is."""
        with self.log.write() as db:
            for statement in statements(SHORTCUTS):
                db.execute(statement)
            if db.execute("SELECT count(*) FROM tally").fetchone()[0] == 0:
                found = dict(
                    db.execute("SELECT state, count(*) FROM slot WHERE only_for IS NULL GROUP BY state").fetchall()
                )
                db.executemany("INSERT INTO tally VALUES (?, ?)", [(state, found.get(state, 0)) for state in STATES])

    def _insert(self, db: sqlite3.Connection, one: Comparison, slot: int, state: str, only_for: str | None = None, shown: str | None = None) -> None:  # fmt: skip
        db.execute(
            "INSERT INTO slot(item, slot, prio, state, only_for, shown, strategy, score, propensity) VALUES (?,?,?,?,?,?,?,?,?)",
            (one.id, slot, one.priority, state, only_for, shown, one.strategy, one.score, one.propensity),
        )

    def _best(self, db: sqlite3.Connection, annotator: str, now: int) -> sqlite3.Row | None:
        """The open slot of highest priority whose question this person neither holds, answered nor skipped."""
        if self.target:
            counts = self.counts()
            if counts["done"] + counts["leased"] >= self.target:
                return None
        found: sqlite3.Row | None = db.execute(
            "SELECT * FROM slot s WHERE state = 'open' AND expires_ms < ? AND only_for IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM slot o WHERE o.item = s.item AND o.who = ? AND o.slot <> s.slot) "
            "AND NOT EXISTS (SELECT 1 FROM skipped k WHERE k.item = s.item AND k.annotator = ?) "
            "ORDER BY prio DESC, item, slot LIMIT 1",
            (now, annotator, annotator),
        ).fetchone()
        return found

    def _check(self, db: sqlite3.Connection, annotator: str, now: int) -> sqlite3.Row | None:
        """A repeat or gold question for this person, when the plan says that one is due."""
        if not self.plan.share and not self.plan.screen:
            return None
        asked, checks = db.execute(
            "SELECT count(*), coalesce(sum(only_for IS NOT NULL), 0) FROM slot WHERE who = ? AND (state = 'done' OR expires_ms >= ?)",
            (annotator, now),
        ).fetchone()
        lost = db.execute(
            "SELECT * FROM slot INDEXED BY slot_check WHERE only_for = ? AND state = 'open' AND expires_ms < ? LIMIT 1",
            (annotator, now),
        ).fetchone()
        if checks < self.plan.wanted(asked + 1) and (found := lost or self._gold(db, annotator)) is not None:
            return found
        # Repeats need something to repeat; asked as soon as they can be, they would use it up.
        return self._repeat(db, annotator) if checks < self.plan.wanted(asked + 1, LAG) else None

    def _gold(self, db: sqlite3.Connection, annotator: str) -> sqlite3.Row | None:
        rows = db.execute(
            "SELECT c.* FROM comparison c WHERE gold <> '' AND NOT EXISTS "
            "(SELECT 1 FROM slot s WHERE s.item = c.id AND s.only_for = ?) ORDER BY id",
            (annotator,),
        ).fetchall()
        if not rows:
            return None
        row = rows[int(self._rng.integers(len(rows)))]
        slot = db.execute("SELECT coalesce(max(slot), -1) + 1 FROM slot WHERE item = ?", (row["id"],)).fetchone()[0]
        one = Comparison(tuple(Window(*w) for w in json.loads(row["windows"])), row["mode"], "gold", gold=row["gold"])
        self._insert(db, one, slot, "open", annotator)
        return self._row(db, row["id"], slot)

    def _repeat(self, db: sqlite3.Connection, annotator: str) -> sqlite3.Row | None:
        """An own answer of long enough ago, asked again with the sides swapped."""
        rows = db.execute(
            "SELECT e.item, s.shown, c.windows FROM event e JOIN slot s ON s.item = e.item AND s.slot = e.slot AND s.gen = e.gen "
            "JOIN comparison c ON c.id = e.item WHERE e.annotator = ? AND e.kind = 'answer' AND e.counted = 1 "
            "AND s.state = 'done' AND s.only_for IS NULL AND c.mode = 'pairs' AND c.repeat_of = '' "
            "AND e.item NOT IN (SELECT r.repeat_of FROM slot t JOIN comparison r ON r.id = t.item WHERE t.only_for = ?) "
            "AND e.seq <= (SELECT seq FROM event WHERE annotator = ? AND kind = 'answer' AND counted = 1 ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (annotator, annotator, annotator, LAG - 1),
        ).fetchall()
        if not rows:
            return None
        row = rows[int(self._rng.integers(len(rows)))]
        windows = tuple(Window(*w) for w in json.loads(row["windows"]))
        one = Comparison(windows, strategy="repeat", repeat_of=row["item"], salt=annotator)
        held = db.execute("SELECT hashes FROM comparison WHERE id = ?", (row["item"],)).fetchone()["hashes"]
        db.execute(
            "INSERT OR IGNORE INTO comparison VALUES (?,?,?,?,?,?)",
            (one.id, "pairs", row["windows"], held, row["item"], ""),
        )
        self._insert(db, one, 0, "open", annotator, json.dumps(json.loads(row["shown"])[::-1]))
        return self._row(db, one.id, 0)

    def _lease(self, db: sqlite3.Connection, row: sqlite3.Row, annotator: str, tab: str, now: int, keep: bool = False) -> dict[str, Any]:  # fmt: skip
        """Give a slot to a person: a new token, and sides drawn anew unless they are fixed (a repeat) or kept."""
        fixed = keep or (row["shown"] is not None and row["strategy"] == "repeat")
        question = db.execute("SELECT mode, windows FROM comparison WHERE id = ?", (row["item"],)).fetchone()
        windows = json.loads(question["windows"])
        shown = json.loads(row["shown"]) if fixed else self._rng.permutation(len(windows)).tolist()
        token, expires = row["token"] + (not keep), now + LEASE_MS
        db.execute(
            "UPDATE slot SET who = ?, tab = ?, expires_ms = ?, token = ?, shown = ? WHERE item = ? AND slot = ?",
            (annotator, tab, expires, token, json.dumps(shown), row["item"], row["slot"]),
        )
        return {
            "item": row["item"], "slot": row["slot"], "gen": row["gen"], "token": token, "expires_ms": expires,
            "mode": question["mode"], "windows": [Window(*windows[n]) for n in shown],
        }  # fmt: skip

    def _row(self, db: sqlite3.Connection, item: str, slot: int) -> sqlite3.Row:
        row: sqlite3.Row = db.execute("SELECT * FROM slot WHERE item = ? AND slot = ?", (item, slot)).fetchone()
        return row
