"""What the organiser sees: agreement, speed and flags; and a person's own history."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robopref.data.answer_rows import prob_first
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers
from robopref.labelling.accounts import enrolled
from robopref.labelling.export import export
from robopref.labelling.quality import Said, alphas, records, reliability

if TYPE_CHECKING:
    from robopref.labelling.project import Project

_HISTORY = 100
_VALUES = {"first": 2, "second": 0}


def said(answers: Answers, ms_per_step: float = 0.0) -> list[Said]:
    """The pairwise answers that count now, as quality control reads them. `ms_per_step`: how long a step lasts at normal speed, if known."""
    found = []
    for e in answers.current():
        if e["mode"] != "pairs":
            continue
        client, server = e["body"]["client"], e["body"]["server"]
        prob = prob_first(client["choice"], server["shown"])
        side = {"left": True, "right": False}.get(client["choice"])
        a, b = (f"{w.episode}:{w.start}:{w.end}" for w in e["windows"])
        clip_ms = ms_per_step * max(w.end - w.start for w in e["windows"]) / max(float(client.get("speed", 1.0)), 0.25)
        found.append(Said(
            e["annotator"], e["repeat_of"] or e["item"], None if math.isnan(prob) else round(2 * prob), side,
            float(client.get("response_ms", 0.0)) if "response_ms" in client else math.inf, clip_ms, bool(e["repeat_of"]), _VALUES.get(e["gold"]), (a, b),
        ))  # fmt: skip
    return found


def weights(answers: Answers) -> dict[str, float]:
    """Reliability of every person, as the sidecar's weights."""
    return reliability(said(answers))


def export_again(dataset: Path) -> int:
    """Write what the sidecar lacks, through a connection of its own; returns the number of new rows."""
    answers = Answers(dataset)
    try:
        return export(TrajectoryStore(dataset), answers, weights(answers))
    finally:
        answers.close()


def summary(project: Project, counts: dict[str, int]) -> dict[str, Any]:
    """Everything on the organiser's page, JSON-ready (nan becomes null), through a connection of its own: it runs beside the server's thread."""
    answers = Answers(project.options.dataset)
    try:
        return _summary(project, answers, counts)
    finally:
        answers.close()


def _summary(project: Project, answers: Answers, counts: dict[str, int]) -> dict[str, Any]:
    own = said(answers, project.clips.ms_per_step)
    people = {p.id: p.role for p in enrolled(answers.log)}
    rows = [asdict(r) | {"role": people.get(r.name, "")} for r in records(own)]
    silent = [{"name": n, "role": r, "answers": 0} for n, r in people.items() if n not in {row["name"] for row in rows}]
    choices: dict[str, int] = {}
    by_strategy: dict[str, int] = {}
    current = answers.current()
    for e in current:
        choice, strategy = e["body"]["client"]["choice"], e["body"]["server"].get("strategy", "")
        choices[choice] = choices.get(choice, 0) + 1
        by_strategy[strategy] = by_strategy.get(strategy, 0) + 1
    told = {
        "people": rows + silent, "alpha": alphas(own), "counts": counts, "target": project.target,
        "choices": choices, "strategies": by_strategy, "problems": answers.problems(), "head": answers.log.head()[:16],
        "times": _per_person_times(own), "timeline": _timeline(current), "failed": project.clips.failures[:10],
        "scored": project.scorer.rounds,
    }  # fmt: skip
    return json.loads(json.dumps(_finite(told)))


def history(project: Project, person: str) -> list[dict[str, Any]]:
    """A person's last events about questions, newest first, without a hint about checks."""
    rows = project.answers.log.db.execute(
        "SELECT uid, kind, item, slot, body, counted, t_ms, seq FROM event WHERE annotator = ? AND kind IN ('answer', 'skip', 'broken') "
        "ORDER BY seq DESC LIMIT ?",
        (person, _HISTORY),
    ).fetchall()
    undone = {
        r["supersedes"] for r in project.answers.log.db.execute("SELECT supersedes FROM event WHERE kind = 'undo' AND counted = 1 AND annotator = ?", (person,))
    }  # fmt: skip
    told = []
    for row in rows:
        client = json.loads(row["body"])["client"]
        told.append({
            "uid": row["uid"], "kind": row["kind"], "choice": client.get("choice", row["kind"]), "t_ms": row["t_ms"],
            "counted": bool(row["counted"]), "undone": row["uid"] in undone, "name": f"{row['item']}/{row['slot']}", "note": client.get("note", ""),
        })  # fmt: skip
    return told


def _per_person_times(own: Sequence[Said]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    for a in own:
        if math.isfinite(a.response_ms):
            times.setdefault(a.rater, []).append(round(a.response_ms / 1000, 2))
    return {name: values[-200:] for name, values in times.items()}


def _timeline(current: Sequence[dict[str, Any]]) -> list[int]:
    """Minutes since the first answer, one number per answer (at most the last 2000)."""
    times = [e["t_ms"] for e in current][-2000:]
    return [round((t - times[0]) / 60_000) for t in times]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
