"""What people are asked and what they answer, and how an answer becomes rows of the sidecar.

The page knows positions on the screen only. `shown[p]` is the window at position p, so directions are decided here, once.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from robopref.arrays import InputError
from robopref.data.eventlog import canonical
from robopref.data.pairs import Pair, Window

MODES = {"pairs": (2, 2), "ranking": (3, 8), "best_worst": (3, 8), "rating": (1, 1), "flag": (1, 1)}
"""Mode -> least and most clips of one question."""
CHOICES = {
    "pairs": ("left", "right", "equal", "cant_tell", "both_bad"),
    "ranking": ("ranked", "cant_tell"),
    "best_worst": ("chosen", "cant_tell"),
    "rating": ("rated", "cant_tell"),
    "flag": ("success", "failure", "cant_tell"),
}
KINDS = ("answer", "skip", "broken", "undo", "note")
LEVELS = 5
"""Ratings go from 1 (worst) to 5 (best)."""
REASONS = ("success", "safety", "efficiency", "smoothness")
_TEXT, _LIST = 2000, 64
_TIMES = ("shown_ms", "first_frame_ms", "answer_ms", "response_ms", "unfocused_ms", "resyncs", "speed", "strength", "exposure_ms")  # fmt: skip
_LISTS = ("spans", "keypoints", "loops", "ranking", "reasons")
_OTHERS = ("choice", "best", "worst", "rating", "note", "question_id", "agent", "key")


@dataclass(frozen=True)
class Comparison:
    """Something to ask: the windows in question, and how it came to be asked."""

    windows: tuple[Window, ...]
    mode: str = "pairs"
    strategy: str = "random"
    propensity: float = 1.0
    """Probability with which the strategy chose it, in (0, 1]."""
    priority: float = 0.0
    score: float = 0.0
    repeat_of: str = ""
    gold: str = ""
    """The right answer where it is known: `first` or `second`; nobody who labels is told."""
    salt: str = ""
    """Tells repeats of one question apart."""

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InputError(f"Comparison.mode: got {self.mode!r}, wanted one of {', '.join(MODES)}.")
        least, most = MODES[self.mode]
        if not least <= len(self.windows) <= most or len(set(self.windows)) != len(self.windows):
            raise InputError(
                f"Comparison: got {len(self.windows)} windows for the mode {self.mode}, wanted {least} to {most} different ones."
            )
        if not 0 < self.propensity <= 1 or not math.isfinite(self.priority):
            raise InputError(f"Comparison: got propensity {self.propensity}, wanted a probability in (0, 1].")
        if self.gold not in ("", "first", "second"):
            raise InputError(f"Comparison.gold: got {self.gold!r}, wanted first or second.")

    @property
    def id(self) -> str:
        """Name of the question: what is compared, not how it was chosen."""
        windows = [[w.episode, w.start, w.end] for w in self.windows]
        told = json.dumps([self.mode, windows, self.repeat_of, bool(self.gold), self.salt])
        return hashlib.sha256(told.encode()).hexdigest()[:24]


def check_event(event: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """uid, kind and body of an event that can be stored at all: text that is text, numbers that are finite, a name that is no other's."""
    try:
        canonical(dict(event)).encode()
    except ValueError:
        raise InputError(
            "event: got half a character or a number that is none, wanted text and finite numbers."
        ) from None
    uid, kind, body = event.get("uid"), event.get("kind"), event.get("body", {})
    if not isinstance(uid, str) or not re.fullmatch(r"(?!clip-)[A-Za-z0-9_-]{8,64}", uid):
        raise InputError("event.uid: wanted 8 to 64 letters, digits, - and _, made by the sender.")
    if kind not in KINDS or not isinstance(body, dict):
        raise InputError(f"event.kind: got {kind!r}, wanted one of {', '.join(KINDS)} with a body.")
    return uid, str(kind), body


def check_answer(mode: str, clips: int, body: Mapping[str, Any]) -> None:
    """Raise `InputError` unless `body` is what the page may say about a question of `clips` clips."""
    unknown = set(body) - {*_TIMES, *_LISTS, *_OTHERS}
    if unknown:
        raise InputError(f"answer: got the field {sorted(unknown)[0]!r}, which no answer has.")
    if body.get("choice") not in CHOICES[mode]:
        raise InputError(f"answer: got choice {body.get('choice')!r}, wanted one of {', '.join(CHOICES[mode])}.")
    for name in _TIMES:
        value = body.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise InputError(f"answer.{name}: got {value!r}, wanted a number >= 0.")
    for name in ("note", "question_id", "agent", "key"):
        if not isinstance(body.get(name, ""), str) or len(body.get(name, "")) > _TEXT:
            raise InputError(f"answer.{name}: wanted a text of at most {_TEXT} characters.")
    for name in _LISTS:
        if not isinstance(body.get(name, []), list) or len(body.get(name, [])) > _LIST:
            raise InputError(f"answer.{name}: wanted a list of at most {_LIST} entries.")
    if not all(isinstance(r, str) and 0 < len(r) <= 60 for r in body.get("reasons", [])):
        raise InputError("answer.reasons: wanted short names.")
    if body.get("strength", 0) not in (0, 1, 2, 3):
        raise InputError(f"answer.strength: got {body['strength']!r}, wanted 0, 1, 2 or 3.")
    _check_marks(clips, body)
    _check_places(mode, clips, body)


def _check_marks(clips: int, body: Mapping[str, Any]) -> None:
    for span in body.get("spans", []):
        whole = isinstance(span, list) and len(span) == 3 and all(type(n) is int for n in span)
        if not whole or not (0 <= span[0] < clips and 0 <= span[1] < span[2] < 1e7):
            raise InputError(f"answer.spans: got {span!r}, wanted [position, start, end) with start < end.")
    for point in body.get("keypoints", []):
        whole = isinstance(point, list) and len(point) == 2 and all(type(n) is int for n in point)
        if not whole or not (0 <= point[0] < clips and 0 <= point[1] < 1e7):
            raise InputError(f"answer.keypoints: got {point!r}, wanted [position, frame].")


def _check_places(mode: str, clips: int, body: Mapping[str, Any]) -> None:
    """Positions of a ranking or of best and worst, and the level of a rating."""
    choice, everyone = body["choice"], list(range(clips))
    if choice == "ranked":
        tiers = body.get("ranking", [])
        flat: list[Any] = [p for tier in tiers for p in (tier if isinstance(tier, list) else [None])]
        if not all(type(p) is int for p in flat) or sorted(map(int, flat)) != everyone or not all(tiers):
            raise InputError(
                f"answer.ranking: got {tiers!r}, wanted every position 0 to {clips - 1} once, best tier first."
            )
    if choice == "chosen":
        best, worst = body.get("best"), body.get("worst")
        if type(best) is not int or type(worst) is not int or best == worst or not {best, worst} <= set(everyone):
            raise InputError(f"answer: got best {best!r} and worst {worst!r}, wanted two different positions.")
    if choice == "rated" and (type(body.get("rating")) is not int or not 1 <= body["rating"] <= LEVELS):
        raise InputError(f"answer.rating: got {body.get('rating')!r}, wanted 1 to {LEVELS}.")


def prob_first(choice: str, shown: Sequence[int]) -> float:
    """P(first preferred) of a screen answer: 1, 0, 0.5 for equal, nan where no preference was given."""
    if choice == "equal":
        return 0.5
    if choice not in ("left", "right"):
        return math.nan
    return float(shown[0 if choice == "left" else 1] == 0)


def in_pair_words(choice: str, shown: Sequence[int]) -> str:
    """left/right as first/second, `equal` as tie; the rest as it is."""
    if choice in ("left", "right"):
        return ("first", "second")[shown[0 if choice == "left" else 1]]
    return "tie" if choice == "equal" else choice


def comparisons_of(mode: str, shown: Sequence[int], body: Mapping[str, Any]) -> list[tuple[int, int, float]]:
    """(first, second, prob_first) over window numbers that an answer of any mode implies."""
    if mode == "pairs":
        return [(0, 1, prob_first(body["choice"], shown))]
    if body["choice"] == "ranked":
        tier = {shown[p]: number for number, places in enumerate(body["ranking"]) for p in places}
        return [
            (i, j, 0.5 if tier[i] == tier[j] else float(tier[i] < tier[j])) for i, j in combinations(sorted(tier), 2)
        ]
    if body["choice"] == "chosen":
        best, worst = shown[body["best"]], shown[body["worst"]]
        rows = [(best, other, 1.0) for other in sorted(shown) if other != best]
        return rows + [(other, worst, 1.0) for other in sorted(shown) if other not in (best, worst)]
    return []


def pair_rows(
    windows: Sequence[Window], mode: str, shown: Sequence[int], body: Mapping[str, Any], common: Mapping[str, Any]
) -> list[Pair]:
    """Rows of the sidecar for one answer; a ranking of k shares a weight of k - 1 over its pairs, as k - 1 answers would.

    `common` holds what all rows share: uid, annotator, weight, strategy, propensity, question_id, label_model, ...
    """
    implied = comparisons_of(mode, shown, body)
    share = 1.0 if mode == "pairs" else (len(windows) - 1) / max(1, len(implied))
    strength = body.get("strength") or math.nan
    rows = []
    for first, second, prob in implied:
        own = dict(common) if mode == "pairs" else dict(common) | {"uid": f"{common['uid']}:{first}-{second}"}
        own["weight"] = common.get("weight", 1.0) * share
        rows.append(
            Pair(
                windows[first], windows[second], prob, source="human",
                choice=in_pair_words(body["choice"], shown) if mode == "pairs" else mode,
                strength=float(strength), reasons=",".join(body.get("reasons", [])), notes=body.get("note", ""),
                response_time_s=body.get("response_ms", math.nan) / 1000, segment_policy="", **own,
            )
        )  # fmt: skip
    return rows


def unpaired_rows(
    windows: Sequence[Window], mode: str, shown: Sequence[int], body: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Judgements of single windows: flags, ratings (the middle one is neither good nor bad), and two negatives for `both_bad`."""
    choice = body["choice"]
    if mode == "pairs" and choice == "both_bad":
        judged: list[tuple[int, bool, str]] = [(0, False, "both_bad"), (1, False, "both_bad")]
    elif choice in ("success", "failure"):
        judged = [(0, choice == "success", choice)]
    elif choice == "rated":
        above = 2 * body["rating"] - (LEVELS + 1)
        judged = [(0, above > 0, f"{body['rating']}/{LEVELS}")] if above else []
    else:
        return []
    return [
        {"episode_index": windows[n].episode, "start": windows[n].start, "end": windows[n].end, "label": good, "quality_label": word}
        for n, good, word in judged
    ]  # fmt: skip


def marks(windows: Sequence[Window], shown: Sequence[int], body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Keypoints and span ends as rows (episode_index, frame, kind, weight); frames are steps of the episode."""
    rows = []
    for position, frame in body.get("keypoints", []):
        rows.append((windows[shown[position]], frame, "keypoint"))
    for position, start, end in body.get("spans", []):
        rows += [(windows[shown[position]], start, "span_start"), (windows[shown[position]], end, "span_end")]
    return [
        {
            "episode_index": w.episode,
            "frame": min(w.start + frame, w.end - (kind != "span_end")),
            "kind": kind,
            "weight": 1.0,
        }
        for w, frame, kind in rows
    ]
