"""Who is asked what next: slots of questions, leased to one person at a time, so that none is counted twice.

A slot is one answer wanted for one question. A lease carries a fencing token: an answer counts only with the token,
the generation and the person of the lease that is current. Everything runs inside transactions of the event log.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.data.answer_rows import Comparison
from robopref.data.asked import SHORTCUTS, CheckPlan, Session, shorten
from robopref.data.eventlog import EventLog
from robopref.data.pairs import Window

__all__ = ["LAG", "LEASE_MS", "SCHEMA", "SHORTCUTS", "CheckPlan", "QuestionQueue"]

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
LEASE_MS = 120_000
LAG = 10
"""Answers of a person between a question and its repeat, at least."""


class QuestionQueue:
    """The queue of one event log. `target` answers are wanted in all (0: as many as there are slots)."""

    def __init__(self, log: EventLog, target: int = 0, plan: CheckPlan | None = None, seed: int | None = None) -> None:
        self.log, self.target, self.plan = log, target, plan or CheckPlan(0.0)
        self._rng = np.random.default_rng(seed)
        with log.write() as db:
            shorten(db)
        self.session = Session()
        self.shows: Callable[[tuple[Window, ...]], bool] = lambda windows: True
        """Whether these windows can be shown: checks are drawn from among such."""

    def begin(self, items: Collection[str], mode: str) -> None:
        """Ask these questions and no others from now on, see `Session`; leases of a server whose clock ran ahead end when any would."""
        with self.log.write() as db:
            self.session.begin(db, items, mode)
            latest = self.log.now() + LEASE_MS
            db.execute("UPDATE slot SET expires_ms = ? WHERE expires_ms > ?", (latest, latest))

    def add(self, comparisons: Iterable[Comparison], hashes: Callable[[Window], str], overlap: int = 1, ready: bool = True) -> int:  # fmt: skip
        """Add questions, and slots, that are not there yet, `overlap` each; returns how many questions were new.

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
                elif overlap > 1 and not one.gold:
                    self._widen(db, one, overlap, state)
        return new

    def _widen(self, db: sqlite3.Connection, one: Comparison, overlap: int, state: str) -> None:
        """More slots for a question that was added with fewer, unless it was closed."""
        held = {r["slot"]: r["state"] for r in db.execute("SELECT slot, state FROM slot WHERE item = ?", (one.id,))}
        if "closed" not in held.values():
            for slot in set(range(overlap)) - set(held):
                self._insert(db, one, slot, state)

    def waiting(self, count: int) -> list[str]:
        """The next questions whose clips are waited for."""
        rows = self.log.db.execute(
            f"SELECT s.item FROM slot s WHERE s.state = 'waiting' {self.session.only} ORDER BY s.prio DESC, s.item, s.slot LIMIT ?",
            (count,),
        )
        return [row["item"] for row in rows]

    def hold_back(self, shown: Callable[[str], bool]) -> None:
        """Let open questions that cannot be shown wait for their clips (again); leases on them stay good."""
        with self.log.write() as db:
            items = {row["item"] for row in db.execute("SELECT item FROM slot WHERE state = 'open'")}
            db.executemany(
                "UPDATE slot SET state = 'waiting' WHERE item = ? AND state = 'open'",
                [(i,) for i in items if not shown(i)],
            )

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
                "SELECT s.*, c.mode FROM slot s JOIN comparison c ON c.id = s.item "
                "WHERE s.who = ? AND s.state = 'open' AND s.tab = ? AND s.expires_ms >= ? ORDER BY s.item, s.slot",
                (annotator, tab, now),
            ).fetchall()
            mine = [row for row in mine if self.session.includes(row["mode"])]
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
                    "UPDATE slot SET expires_ms = ? WHERE item = ? AND slot = ? AND who = ? AND state IN ('open', 'waiting')",
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
        return self.session.counts(self.log.db, self.log.now())

    def checks(self) -> int:
        """Checks that were answered."""
        found = self.log.db.execute(
            "SELECT count(*) FROM slot INDEXED BY slot_check WHERE only_for IS NOT NULL AND state = 'done'"
        )
        return int(found.fetchone()[0])

    def answered_by(self, annotator: str) -> int:
        """Answers of a person that count now, checks among them."""
        if not self.session.only:
            mine = "SELECT count(*) FROM slot WHERE who = ? AND state = 'done'"
            return int(self.log.db.execute(mine, (annotator,)).fetchone()[0])
        mine = "SELECT c.mode FROM slot s JOIN comparison c ON c.id = s.item WHERE s.who = ? AND s.state = 'done'"
        return sum(self.session.includes(row["mode"]) for row in self.log.db.execute(mine, (annotator,)))

    def windows(self, item: str) -> tuple[Window, ...]:
        """The windows of a question. Raises `InputError` for an unknown one."""
        row = self.log.db.execute("SELECT windows FROM comparison WHERE id = ?", (item,)).fetchone()
        if row is None:
            raise InputError(f"question {item!r}: got an unknown one.")
        return tuple(Window(*w) for w in json.loads(row["windows"]))

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
            f"SELECT * FROM slot s WHERE state = 'open' AND expires_ms < ? AND only_for IS NULL {self.session.only} "
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
        if (row := self._drawn(rows)) is None:
            return None
        slot = db.execute("SELECT coalesce(max(slot), -1) + 1 FROM slot WHERE item = ?", (row["id"],)).fetchone()[0]
        one = Comparison(tuple(Window(*w) for w in json.loads(row["windows"])), row["mode"], "gold", gold=row["gold"])
        self._insert(db, one, slot, "open", annotator)
        return self.slot(row["id"], slot)

    def _drawn(self, rows: Sequence[sqlite3.Row]) -> sqlite3.Row | None:
        """One of the rows whose windows can be shown, at random."""
        for n in self._rng.permutation(len(rows)):
            if self.shows(tuple(Window(*w) for w in json.loads(rows[n]["windows"]))):
                return rows[n]
        return None

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
        if (row := self._drawn(rows)) is None:
            return None
        windows = tuple(Window(*w) for w in json.loads(row["windows"]))
        one = Comparison(windows, strategy="repeat", repeat_of=row["item"], salt=annotator)
        held = db.execute("SELECT hashes FROM comparison WHERE id = ?", (row["item"],)).fetchone()["hashes"]
        db.execute(
            "INSERT OR IGNORE INTO comparison VALUES (?,?,?,?,?,?)",
            (one.id, "pairs", row["windows"], held, row["item"], ""),
        )
        self._insert(db, one, 0, "open", annotator, json.dumps(json.loads(row["shown"])[::-1]))
        return self.slot(one.id, 0)

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

    def renewed(self, row: sqlite3.Row, annotator: str, tab: str) -> dict[str, Any]:
        """The lease on a slot that the person has already, with the same token and sides, for another while. Inside a transaction."""
        return self._lease(self.log.db, row, annotator, tab, self.log.now(), keep=True)

    def slot(self, item: str, slot: int) -> sqlite3.Row:
        """A slot as it is now."""
        row: sqlite3.Row = self.log.db.execute(
            "SELECT * FROM slot WHERE item = ? AND slot = ?", (item, slot)
        ).fetchone()
        return row
