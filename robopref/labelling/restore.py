"""Answers back from the preference sidecar into the database, for one that was lost: what is known already is left out.

A sidecar holds comparisons, rankings as the comparisons that they imply, and judgements of single windows; marks and the time of an
answer stay in the sidecar alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robopref.data.answer_rows import Comparison
from robopref.data.feedback import read_feedback
from robopref.data.pairs import Pair, Window
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers

_SEVERAL = ("ranking", "best_worst")


@dataclass(frozen=True)
class _Told:
    """One answer: its event's name, what was asked, who said what. The clips stand in the order of the question."""

    uid: str
    asked: Comparison
    annotator: str
    client: dict[str, Any]
    question_id: str = ""
    label_model: str = ""


def restore(dataset: Path) -> int:
    """`import_answers` for a dataset's folder; returns how many answers came back."""
    answers = Answers(dataset)
    try:
        return import_answers(TrajectoryStore(dataset), answers)
    finally:
        answers.close()


def import_answers(store: TrajectoryStore, answers: Answers) -> int:
    """People's answers of the sidecar that the log does not know, as counted answers; returns how many."""
    known = {event["uid"] for event in answers.log.events()}
    pairs = [p for p in PreferenceStore(store).pairs() if p.source == "human" and p.choice != "undo"]
    told = [_compared(p) for p in pairs if p.choice not in _SEVERAL]
    told += _ordered([p for p in pairs if p.choice in _SEVERAL])
    told += _judged(store.root / "meta/preferences")
    new = [one for one in told if one.uid not in known]
    answers.queue.add([one.asked for one in new], lambda w: store.episode_hash(w.episode))
    return sum(_restore(answers, one) for one in new)


def _compared(pair: Pair) -> _Told:
    choice = {"first": "left", "second": "right", "tie": "equal"}.get(pair.choice, pair.choice)
    if choice not in ("left", "right", "equal", "cant_tell", "both_bad"):
        sides = {0.5: "equal"}.get(pair.prob_first, "left" if pair.prob_first > 0.5 else "right")
        choice = sides if pair.answered else "cant_tell"
    asked = Comparison((pair.first, pair.second), strategy=pair.strategy or "random", propensity=pair.propensity)
    return _Told(
        _event(pair.uid), asked, pair.annotator, {"choice": choice} | _beside(pair), pair.question_id, pair.label_model
    )


def _ordered(pairs: list[Pair]) -> Iterator[_Told]:
    """Rankings, and best and worst, from the comparisons that they imply: rows `EVENT:I-J` about the windows I and J of a question."""
    events: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        events[_event(pair.uid)].append(pair)
    for uid, rows in events.items():
        windows: dict[int, Window] = {}
        wins: dict[int, float] = defaultdict(float)
        for row in rows:
            i, j = (int(n) for n in row.uid.partition("~")[0].rpartition(":")[2].split("-"))
            windows |= {i: row.first, j: row.second}
            wins[i] += row.prob_first
            wins[j] += 1 - row.prob_first
        order = sorted(windows, key=lambda n: (-wins[n], n))
        mode = rows[0].choice
        client: dict[str, Any] = {"choice": "chosen", "best": order[0], "worst": order[-1]}
        if mode == "ranking":
            client = {
                "choice": "ranked",
                "ranking": [[n for n in order if wins[n] == w] for w in sorted({*wins.values()}, reverse=True)],
            }
        asked = Comparison(
            tuple(windows[n] for n in range(len(windows))), mode, rows[0].strategy or "random", rows[0].propensity
        )
        yield _Told(uid, asked, rows[0].annotator, client | _beside(rows[0]), rows[0].question_id, rows[0].label_model)


def _judged(folder: Path) -> Iterator[_Told]:
    """Flags and ratings; `both_bad` came with its pair."""
    for row in read_feedback(folder, "unpaired"):
        said, window = row["quality_label"], Window(row["episode_index"], row["start"], row["end"])
        level = said.partition("/")[0]
        if said in ("success", "failure"):
            yield _Told(
                _event(row["uid"]),
                Comparison((window,), "flag"),
                row["annotator"],
                {"choice": said},
                row["question_id"],
            )
        elif level.isdecimal():
            client = {"choice": "rated", "rating": int(level)}
            yield _Told(
                _event(row["uid"]), Comparison((window,), "rating"), row["annotator"], client, row["question_id"]
            )


def _beside(pair: Pair) -> dict[str, Any]:
    client: dict[str, Any] = {}
    if pair.reasons:
        client["reasons"] = pair.reasons.split(",")
    if pair.strength == pair.strength:
        client["strength"] = int(pair.strength)
    if pair.response_time_s == pair.response_time_s:
        client["response_ms"] = round(1000 * pair.response_time_s)
    if pair.notes:
        client["note"] = pair.notes[:2000]
    return client


def _event(uid: str) -> str:
    """The event that a row of the sidecar comes from."""
    return uid.partition("~")[0].partition(":")[0]


def _restore(answers: Answers, told: _Told) -> int:
    """One answer, in a slot of its own if the question's slots are taken; 0 if its person has one there."""
    log, item, shown = answers.log, told.asked.id, list(range(len(told.asked.windows)))
    with log.write() as db:
        if db.execute("SELECT 1 FROM slot WHERE item = ? AND who = ?", (item, told.annotator)).fetchone():
            return 0
        slot = db.execute("SELECT coalesce(min(CASE WHEN state IN ('open', 'waiting') THEN slot END), max(slot) + 1) FROM slot WHERE item = ?", (item,)).fetchone()[0]  # fmt: skip
        server = {
            "shown": shown, "strategy": told.asked.strategy, "propensity": told.asked.propensity, "check": False, "imported": True,
            "question_id": told.question_id, "label_model": told.label_model,
        }  # fmt: skip
        db.execute(
            "INSERT INTO slot(item, slot, prio, state, who, token, shown, strategy, score, propensity) VALUES (?,?,0,'done',?,1,?,?,0,?) "
            "ON CONFLICT DO UPDATE SET state = 'done', who = excluded.who, shown = excluded.shown, token = token + 1",
            (item, slot, told.annotator, json.dumps(shown), told.asked.strategy, told.asked.propensity),
        )
        gen = answers.queue.slot(item, slot)["gen"]
        log.append(
            uid=told.uid, kind="answer", item=item, slot=slot, gen=gen, annotator=told.annotator,
            supersedes=None, counted=1, body={"client": told.client, "server": server},
        )  # fmt: skip
    return 1
