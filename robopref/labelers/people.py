"""People: the store of their answers (events, undo, export to the sidecar and back), and the labeler that uses them.

An answer counts once, for the lease it was given under; whatever else arrives is kept and not counted. Undo is an
event too. Export turns every counted answer into rows of the preference sidecar; doing it again adds what is new.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.answer_rows import check_answer, check_event
from robopref.data.content import behaviour_hash
from robopref.data.eventlog import EventLog
from robopref.data.pairs import Window
from robopref.data.question_queue import LEASE_MS, SCHEMA, CheckPlan, QuestionQueue

HEADER = {"format": "robopref-answers", "version": 1}
FILE = "meta/preferences/answers.sqlite"


@dataclass(frozen=True)
class Receipt:
    """What became of one event: `counted`, `uncounted` (kept, with the reason) or `duplicate` (of a stored one)."""

    uid: str
    status: str
    reason: str = ""
    assignment: Mapping[str, Any] | None = None
    """After an undo: the lease under which the question can be answered anew."""


class Conflict(InputError):
    """The uid is taken by an event of other content."""


class Answers:
    """All that people said about one dataset. Raises `InputError` where the file cannot be safe, see `EventLog`."""

    def __init__(
        self, dataset: Path | str, target: int = 0, plan: CheckPlan | None = None, seed: int | None = None
    ) -> None:
        self.log = EventLog(Path(dataset) / FILE, HEADER, SCHEMA)
        self.queue = QuestionQueue(self.log, target, plan, seed)

    def record(self, annotator: str, event: Mapping[str, Any], server: Mapping[str, Any] | None = None) -> Receipt:
        """Store one event {uid, kind, item, slot, gen, token, supersedes, body} of a person; returns after the commit.

        Raises `Conflict` for a uid that is taken, `InputError` for content that no page sends; both store nothing.
        """
        uid, kind, body = check_event(event)
        with self.log.write() as db:
            if (known := self.log.find(uid)) is not None:
                same = known["kind"] == kind and known["annotator"] == annotator
                if not same or json.loads(known["body"])["client"] != body:
                    raise Conflict(f"event.uid: {uid} is taken by an event of other content.")
                return self._again(known, annotator)
            if kind == "undo":
                return self._undo(annotator, event, body, server)
            if kind == "note":
                return self._note(annotator, event, body, server)
            slot = db.execute(
                "SELECT s.*, c.mode, c.windows FROM slot s JOIN comparison c ON c.id = s.item WHERE item = ? AND slot = ?",
                (
                    str(event.get("item")),
                    event["slot"] if type(event.get("slot")) is int and 0 <= event["slot"] < 2**31 else -1,
                ),
            ).fetchone()
            if slot is None:
                raise InputError("event: got an unknown question.")
            if kind == "answer":
                check_answer(slot["mode"], len(json.loads(slot["windows"])), body)
            elif set(body) - {"note", "agent", "question_id"} or not all(
                isinstance(t, str) and len(t) <= 2000 for t in body.values()
            ):
                raise InputError(f"event.body: got more than a {kind} may say.")
            return self._store(annotator, event, body, server, slot)

    def _again(self, known: Mapping[str, Any], annotator: str) -> Receipt:
        """What a retry is told: as the first time, with the lease that an undo opened as long as it is there."""
        why = "" if known["counted"] else "not counted the first time"
        if known["kind"] != "undo" or why:
            return Receipt(known["uid"], "duplicate", why)
        slot = self.queue.slot(known["item"], known["slot"])
        if (slot["gen"], slot["state"], slot["who"]) != (known["gen"] + 1, "open", annotator):
            return Receipt(known["uid"], "duplicate", "it was answered anew already")
        return Receipt(known["uid"], "duplicate", "", self.queue.renewed(slot, annotator, slot["tab"]))

    def _store(self, annotator: str, event: Mapping[str, Any], body: Any, server: Any, slot: Any) -> Receipt:
        """Answer, skip or broken about a slot: counted only under the lease that is current."""
        wrong = next(
            (reason for reason, bad in (
                ("it was answered already", slot["state"] == "done"),
                ("it was closed", slot["state"] == "closed"),
                ("the lease passed to somebody else", slot["who"] != annotator or slot["token"] != event.get("token")),
                ("it was undone since", slot["gen"] != event.get("gen")),
            ) if bad), "",
        )  # fmt: skip
        told = {name: slot[name] for name in ("strategy", "score", "propensity", "state")} | {
            "shown": json.loads(slot["shown"] or "null"), "check": slot["only_for"] is not None
        }  # fmt: skip
        self._append(annotator, event, body, told | dict(server or {}), slot["gen"], not wrong)
        if not wrong:
            self._settle(str(event["kind"]), annotator, slot)
        return Receipt(str(event["uid"]), "uncounted" if wrong else "counted", wrong)

    def _settle(self, kind: str, annotator: str, slot: Any) -> None:
        """What a counted event does to its slot."""
        db, place = self.log.db, (slot["item"], slot["slot"])
        if kind == "answer":
            db.execute("UPDATE slot SET state = 'done' WHERE item = ? AND slot = ?", place)
        elif kind == "broken":
            db.execute(
                "UPDATE slot SET state = 'closed' WHERE item = ? AND state IN ('open', 'waiting')", (slot["item"],)
            )
        else:
            db.execute("INSERT OR IGNORE INTO skipped VALUES (?, ?)", (slot["item"], annotator))
            state = slot["state"] if slot["only_for"] is None else "closed"  # a check is for one person only
            db.execute(
                "UPDATE slot SET who = NULL, tab = NULL, expires_ms = 0, token = token + 1, state = ? WHERE item = ? AND slot = ?",
                (state, *place),
            )

    def _undo(self, annotator: str, event: Mapping[str, Any], body: Any, server: Any) -> Receipt:
        """Take back an own answer, skip or broken: a new generation of the slot, leased to the same person."""
        old = self.log.find(str(event.get("supersedes")))
        if old is None or old["annotator"] != annotator or old["kind"] not in ("answer", "skip", "broken"):
            raise InputError("event.supersedes: wanted an answer of your own.")
        db = self.log.db
        slot = self.queue.slot(old["item"], old["slot"])
        taken = db.execute(
            "SELECT 1 FROM event WHERE kind = 'undo' AND supersedes = ? AND counted = 1", (old["uid"],)
        ).fetchone()
        late = old["kind"] == "skip" and (slot["state"] == "done" or (slot["who"] or annotator) != annotator)
        stale = old["gen"] != slot["gen"] or not old["counted"] or taken is not None or late
        self._append(
            annotator,
            dict(event) | {"item": old["item"], "slot": old["slot"]},
            body,
            dict(server or {}),
            slot["gen"],
            not stale,
        )
        if stale:
            return Receipt(str(event["uid"]), "uncounted", "it was taken back or asked anew already")
        if old["kind"] == "broken":
            db.execute("UPDATE slot SET state = 'open' WHERE item = ? AND state = 'closed'", (old["item"],))
        db.execute("DELETE FROM skipped WHERE item = ? AND annotator = ?", (old["item"], annotator))
        tab = str(event.get("tab") or slot["tab"] or "")[:64]
        db.execute(
            "UPDATE slot SET gen = gen + 1, state = 'open', token = token + 1, who = ?, tab = ?, expires_ms = ? WHERE item = ? AND slot = ?",
            (annotator, tab, self.log.now() + LEASE_MS, old["item"], old["slot"]),
        )
        fresh = self.queue.slot(old["item"], old["slot"])
        return Receipt(str(event["uid"]), "counted", "", self.queue.renewed(fresh, annotator, tab))

    def _note(self, annotator: str, event: Mapping[str, Any], body: Any, server: Any) -> Receipt:
        old = self.log.find(str(event.get("supersedes")))
        text = body.get("note")
        if (
            old is None
            or old["annotator"] != annotator
            or set(body) != {"note"}
            or not isinstance(text, str)
            or len(text) > 2000
        ):
            raise InputError("event: wanted a note of at most 2000 characters on an answer of your own.")
        self._append(
            annotator,
            dict(event) | {"item": old["item"], "slot": old["slot"]},
            body,
            dict(server or {}),
            old["gen"],
            True,
        )
        return Receipt(str(event["uid"]), "counted")

    def _append(
        self, annotator: str, event: Mapping[str, Any], client: Any, server: Any, gen: int, counted: bool
    ) -> None:
        self.log.append(
            uid=event["uid"], kind=event["kind"], item=event.get("item"), slot=event.get("slot"), gen=gen, annotator=annotator,
            supersedes=event.get("supersedes") if event["kind"] in ("undo", "note") else None, counted=int(counted), body={"client": client, "server": server},
        )  # fmt: skip

    def close_broken(self, item: str, why: str) -> None:
        """A question whose clips cannot be made leaves the queue; the rest goes on."""
        with self.log.write() as db:
            uid = f"clip-{item}"
            if self.log.find(uid) is None:
                self.log.append(uid=uid, kind="broken", item=item, slot=None, gen=None, annotator="", supersedes=None,
                                counted=1, body={"client": {}, "server": {"reason": why[:500]}})  # fmt: skip
            db.execute("UPDATE slot SET state = 'closed' WHERE item = ? AND state IN ('open', 'waiting')", (item,))

    def reopen_unmade(self) -> None:
        """Questions that were closed because their clips could not be made, and for nothing else, wait for them once more."""
        with self.log.write() as db:
            db.execute(
                "UPDATE slot SET state = 'waiting' WHERE state = 'closed' AND only_for IS NULL "
                "AND item IN (SELECT item FROM event WHERE kind = 'broken' AND annotator = '') "
                "AND item NOT IN (SELECT item FROM event WHERE kind = 'broken' AND annotator <> '' AND counted = 1)"
            )

    def current(self) -> list[dict[str, Any]]:
        """The answers that count now, oldest first: event fields, `mode`, `windows`, `repeat_of`, `gold`, body as value."""
        rows = self.log.db.execute(
            "SELECT e.*, c.mode, c.windows, c.repeat_of, c.gold FROM event e JOIN slot s ON s.item = e.item AND s.slot = e.slot "
            "AND s.gen = e.gen AND s.state = 'done' JOIN comparison c ON c.id = e.item "
            "WHERE e.kind = 'answer' AND e.counted = 1 ORDER BY e.seq"
        )
        return [
            dict(r) | {"body": json.loads(r["body"]), "windows": [Window(*w) for w in json.loads(r["windows"])]}
            for r in rows
        ]

    def problems(self) -> list[str]:
        """What is wrong with the file: the chain, and slots that do not follow from the events."""
        found = self.log.problems()
        gen: dict[tuple[str, int], int] = {}
        done: dict[tuple[str, int], bool] = {}
        for event in self.log.events(("answer", "undo")):
            place = (event["item"], event["slot"])
            if event["counted"] and event["kind"] == "answer":
                done[place] = True
            elif event["counted"]:
                gen[place], done[place] = gen.get(place, 0) + 1, False
        for row in self.log.db.execute("SELECT item, slot, gen, state FROM slot"):
            place = (row["item"], row["slot"])
            if (row["gen"], row["state"] == "done") != (gen.get(place, 0), done.get(place, False)):
                found.append(f"slot {place}: got generation {row['gen']}, {row['state']}; its events say otherwise")
        return found

    def close(self) -> None:
        """Close the file."""
        self.log.close()


class People:
    """The labeler `people`: looks up what people answered about two trajectories; nan where nobody did.

    `dataset` is the store that was annotated. Several answers to one question are averaged by their raters' weights, and
    count together as much as they would alone.
    """

    def __init__(self, dataset: str | None = None) -> None:
        self.dataset = dataset
        self._known: dict[tuple[str, str], tuple[float, float]] | None = None

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64: P(first preferred), 0.5 a tie, nan for no answer."""
        return self._found(first, second)[:, 0]

    def weigh(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """Weight (N,) float64: the sum of the weights of those who answered; 0 where nobody did."""
        return self._found(first, second)[:, 1]

    def _found(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first and weight of each pair, (N, 2)."""
        known, found = self._answers(), np.empty((len(first), 2))
        for row, (one, other) in enumerate(zip(first, second, strict=True)):
            a, b = behaviour_hash(one), behaviour_hash(other)
            prob, weight = known.get((min(a, b), max(a, b)), (math.nan, 0.0))
            found[row] = (0.5, weight or 1.0) if a == b else (prob if a < b else 1 - prob, weight)
        return found

    def _answers(self) -> dict[tuple[str, str], tuple[float, float]]:
        """Unordered pair of contents -> P(the smaller hash preferred), weight."""
        if self._known is None:
            if not self.dataset:
                raise InputError(
                    "labeler=people: got no dataset, wanted dataset=DIR, a store that people compared.\n"
                    "Label one with `robopref annotate DIR` and export its answers."
                )
            from robopref.data.preferences import PreferenceStore
            from robopref.data.store import TrajectoryStore

            store = TrajectoryStore(self.dataset)
            totals: dict[tuple[str, str], list[tuple[float, float]]] = {}
            for pair in PreferenceStore(store).pairs():
                if pair.source == "human" and pair.answered and pair.weight > 0:
                    sides = [
                        behaviour_hash(store.read(w.episode).window(w.start, w.end)) for w in (pair.first, pair.second)
                    ]
                    prob = pair.prob_first if sides[0] < sides[1] else 1 - pair.prob_first
                    totals.setdefault((min(sides), max(sides)), []).append((prob, pair.weight))
            self._known = {
                k: (float(np.average([p for p, _ in v], weights=[w for _, w in v])), sum(w for _, w in v))
                for k, v in totals.items()
            }
        return self._known


def timestamp(t_ms: int) -> str:
    """ISO 8601 in UTC of an event's time."""
    return datetime.fromtimestamp(t_ms / 1000, UTC).isoformat(timespec="milliseconds")
