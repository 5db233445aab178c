"""Answers out to the preference sidecar. It can be repeated: it adds only what is not there yet.

Undone answers become rows too (choice `undo`, no probability), so that what was exported earlier is taken back. A changed
weight of an annotator supersedes the row it changes. Repeats and gold are checks, not data: they stay out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopref.data.answer_rows import marks, pair_rows, unpaired_rows
from robopref.data.feedback import append_feedback, take_back
from robopref.data.files import write_json
from robopref.data.pairs import Pair, Window
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers, timestamp

_SAME = 0.02
"""Weights closer than this are not worth a superseding row."""


def export(store: TrajectoryStore, answers: Answers, weights: Mapping[str, float] | None = None) -> int:
    """Append what the sidecar lacks; returns the number of new pair rows. `weights`: annotator -> reliability in [0, 1].

    The hash of the log's last event is written beside it (`answers-head.json`), so that a cut log is noticed.
    """
    sidecar, weights = PreferenceStore(store), dict(weights or {})
    held = {pair.uid: pair for pair in sidecar.rows()}
    head_of = _heads(held)
    rows: list[Pair] = []
    for event in _told(answers):
        for pair in _rows(event, weights, store):
            rows += _chain(pair, event, held, head_of)
    added = sidecar.append(rows)
    _export_rest(sidecar.folder, answers)
    if answers.log.head():
        write_json(sidecar.folder / "answers-head.json", {"head": answers.log.head()})
    return added


def _told(answers: Answers) -> list[dict[str, Any]]:
    """Counted answers and undos of answers in order, checks left out, with what their rows need."""
    questions = {r["id"]: r for r in answers.log.db.execute("SELECT * FROM comparison")}
    answered: dict[str, dict[str, Any]] = {}
    told = []
    for event in answers.log.events(("answer", "undo")):
        if not event["counted"]:
            continue
        if event["kind"] == "undo":
            if event["supersedes"] in answered:
                told.append(
                    answered[event["supersedes"]] | {"kind": "undo", "uid": event["uid"], "t_ms": event["t_ms"]}
                )
            continue
        question = questions[event["item"]]
        if question["repeat_of"] or question["gold"] or event["body"]["server"].get("check"):
            continue
        windows = [Window(*w) for w in json.loads(question["windows"])]
        answered[event["uid"]] = event | {"mode": question["mode"], "windows": windows}
        told.append(answered[event["uid"]])
    return told


def _rows(event: Mapping[str, Any], weights: Mapping[str, float], store: TrajectoryStore) -> list[Pair]:
    client, server = event["body"]["client"], event["body"]["server"]
    common = {
        "uid": event["uid"], "annotator": event["annotator"], "strategy": server.get("strategy", ""),
        "propensity": server.get("propensity", 1.0), "question_id": server.get("question_id", ""),
        "label_model": server.get("label_model", ""), "created_at": timestamp(event["t_ms"]),
        "weight": weights.get(event["annotator"], 1.0), "cross_task": len({store.episodes[w.episode].task for w in event["windows"]}) > 1,
    }  # fmt: skip
    rows = pair_rows(event["windows"], event["mode"], server["shown"], client, common)
    if event["kind"] == "undo":
        return [replace(row, prob_first=float("nan"), choice="undo") for row in rows]
    return rows


def _heads(held: Mapping[str, Pair]) -> dict[str, str]:
    """Any row -> the newest row of its chain."""
    after = {pair.supersedes: uid for uid, pair in held.items() if pair.supersedes}

    def newest(uid: str) -> str:
        while uid in after:
            uid = after[uid]
        return uid

    return {uid: newest(uid) for uid in held}


def _chain(pair: Pair, event: Mapping[str, Any], held: dict[str, Pair], head_of: dict[str, str]) -> list[Pair]:
    """The rows to append for one row: itself behind the last one about the same slot, or a new weight, or nothing."""
    part = pair.uid.partition(":")[2]
    place = f"{event['item']}/{event['slot']}:{part}"
    if pair.uid not in held:
        row = replace(pair, supersedes=head_of.get(place, ""))
    else:
        newest = held[head_of.get(pair.uid, pair.uid)]
        reweighed = newest.uid.startswith(pair.uid + "~") or newest.uid == pair.uid
        if not reweighed or pair.choice == "undo" or abs(newest.weight - pair.weight) <= _SAME:
            head_of[place] = newest.uid
            return []
        number = sum(uid.startswith(pair.uid + "~") for uid in held) + 1
        row = replace(pair, uid=f"{pair.uid}~{number}", supersedes=newest.uid)
    held[row.uid] = row
    head_of[place] = head_of[pair.uid] = row.uid
    return [row]


def _export_rest(folder: Path, answers: Answers) -> None:
    """Rankings, single judgements and keypoints of the answers that count now; those of answers that were taken back no longer hold."""
    ranks: list[dict[str, Any]] = []
    single: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    for event in answers.current():
        client, server, windows = event["body"]["client"], event["body"]["server"], event["windows"]
        if server.get("check"):
            continue
        who = {
            "annotator": event["annotator"],
            "question_id": server.get("question_id", ""),
            "created_at": timestamp(event["t_ms"]),
        }
        tiers = enumerate(client.get("ranking", []))
        placed = [(windows[server["shown"][p]], rank) for rank, places in tiers for p in places]
        found = [
            {"preference_group_id": event["uid"], "episode_index": w.episode, "start": w.start, "end": w.end, "preference_rank": rank}
            for w, rank in placed
        ]  # fmt: skip
        ranks += _named(found, event["uid"], who)
        single += _named(unpaired_rows(windows, event["mode"], server["shown"], client), event["uid"], who)
        points += _named(marks(windows, server["shown"], client), event["uid"], who)
    back = {event["supersedes"] for event in answers.log.events(("undo",)) if event["counted"]}
    for table, rows in (("ranks", ranks), ("unpaired", single), ("keypoints", points)):
        take_back(folder, table, back)
        append_feedback(folder, table, rows)


def _named(rows: list[dict[str, Any]], uid: str, who: dict[str, str]) -> list[dict[str, Any]]:
    return [row | who | {"uid": f"{uid}:{n}"} for n, row in enumerate(rows)]
