"""How careful people are: checks, side bias, speed; flags for the organiser and weights for the learners. Nobody is deleted.

Tests look at every person's answers in order, so that a flag is raised as soon as the evidence is there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

from robopref.agreement import DawidSkene, bradley_terry_ability, dawid_skene, krippendorff_alpha

GOLD_RIGHT, REPEAT_SAME = 0.95, 0.8
"""What a careful person reaches on gold and on repeats; people agree with themselves in about 79 to 89% (FARPLS)."""
CHANCE = 0.5
_SURE, _SETTLED, _ENOUGH = -4.5, -1.5, 12
"""Flag at a log-likelihood ratio (careful against random) of -4.5 at any time, or below -1.5 after 12 checks."""
_RARE = 1e-4
"""Chance of a side bias or of haste at which they are flagged."""
_HASTE = 0.35
"""Answers before this share of the clip was seen are hasty; a careful person gives fewer than 30% of those."""


@dataclass(frozen=True)
class Said:
    """One counted answer, reduced to what quality is about."""

    rater: str
    unit: str
    """The question; a repeat's unit is the question that it repeats."""
    value: int | None
    """0, 1, 2: second, tie, first preferred; None for cannot tell and the like."""
    left: bool | None
    """Whether the left clip was chosen; None for no decision."""
    response_ms: float
    clip_ms: float
    repeat: bool = False
    gold: int | None = None
    """The right value, where it is known."""
    items: tuple[str, str] | None = None
    """Names of the two windows, first and second."""


@dataclass(frozen=True)
class Record:
    """One person, for the organiser's page."""

    name: str
    answers: int
    median_s: float
    left_share: float
    repeats: tuple[int, int]
    """(same, asked)."""
    gold: tuple[int, int]
    """(right, asked)."""
    no_answer: int
    weight: float
    flags: tuple[str, ...]
    ability: float = math.nan


def check_evidence(answers: Sequence[Said]) -> list[float]:
    """Log-likelihood ratio careful : random after each check of one person, in order."""
    first: dict[str, int | None] = {}
    total, path = 0.0, []
    for one in answers:
        if one.gold is not None:
            total += _ratio(one.value == one.gold, GOLD_RIGHT)
            path.append(total)
        elif one.repeat and one.unit in first:
            if one.value is not None and first[one.unit] is not None:
                total += _ratio(one.value == first[one.unit], REPEAT_SAME)
                path.append(total)
        else:
            first[one.unit] = one.value
    return path


def _ratio(right: bool, careful: float) -> float:
    return math.log(careful / CHANCE) if right else math.log((1 - careful) / CHANCE)


def flags(answers: Sequence[Said]) -> list[str]:
    """Why one person's answers should be looked at; empty for a careful one."""
    found = []
    path = check_evidence(answers)
    if any(v <= _SURE for v in path) or any(v < _SETTLED for v in path[_ENOUGH - 1 :]):
        found.append("checks")
    sides, count = _running([one.left for one in answers if one.left is not None])
    if (two_sided(sides, count)[9:] < _RARE).any():
        found.append("side bias")
    hasty, count = _running([one.response_ms < _HASTE * one.clip_ms for one in answers])
    if (upper_tail(hasty, count, 0.3)[7:] < _RARE).any():
        found.append("speeding")
    return found


def _running(happened: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """How often it had happened after 1, 2, ... N times, (N,), and those numbers."""
    return np.cumsum(np.array(happened, dtype=np.int64)), np.arange(1, len(happened) + 1)


def two_sided(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Exact two-sided binomial p-value of k of n for p = 1/2, (N,)."""
    return np.minimum(1.0, 2 * upper_tail(np.maximum(k, n - k), n, 0.5))


def upper_tail(k: np.ndarray, n: np.ndarray, p: float) -> np.ndarray:
    """P(at least k of n), (N,)."""
    return np.asarray(np.where(k > 0, bdtrc(np.maximum(k, 1) - 1, n, p), 1.0))


def records(answers: Sequence[Said]) -> list[Record]:
    """One record per person, by name."""
    weights, abilities = reliability(answers), _abilities(answers)
    made = []
    for name in sorted({a.rater for a in answers}):
        own = [a for a in answers if a.rater == name]
        sides = [a.left for a in own if a.left is not None]
        gold = [a.value == a.gold for a in own if a.gold is not None]
        made.append(Record(
            name, len(own), float(np.median([a.response_ms for a in own])) / 1000, float(np.mean(sides)) if sides else math.nan,
            _repeated(own), (sum(gold), len(gold)), sum(a.value is None for a in own), weights[name], tuple(flags(own)), abilities.get(name, math.nan),
        ))  # fmt: skip
    return made


def _repeated(own: Sequence[Said]) -> tuple[int, int]:
    before = {a.unit: a.value for a in own if not a.repeat and a.gold is None}
    again = [a for a in own if a.repeat and a.value is not None and before.get(a.unit) is not None]
    return sum(a.value == before[a.unit] for a in again), len(again)


def reliability(answers: Sequence[Said]) -> dict[str, float]:
    """Weight in [0, 1] per person: (2 accuracy - 1)^2, what an answer with that flip rate is worth beside a sure one.

    Accuracy comes from Dawid-Skene over everybody's answers with gold as known truth, and from the person's own repeats:
    agreement a means a flip rate of (1 - sqrt(2 a - 1)) / 2. A few believed-in right answers keep newcomers near 1.
    """
    names = sorted({a.rater for a in answers})
    model, support = _together(answers, names)
    weights = {}
    for number, name in enumerate(names):
        same, asked = _repeated([a for a in answers if a.rater == name])
        agreement = (same + 4.6) / (asked + 5)
        from_repeats = (1 + math.sqrt(max(0.0, 2 * agreement - 1))) / 2
        n = support.get(name, 0)
        shared = float(model.accuracy[number]) if model is not None and n else 1.0
        accuracy = (n * shared + asked * from_repeats + 5 * 0.97) / (n + asked + 5)
        weights[name] = round(max(0.0, 2 * accuracy - 1) ** 2, 4)
    return weights


def _together(answers: Sequence[Said], names: list[str]) -> tuple[DawidSkene | None, dict[str, int]]:
    """Dawid-Skene over units that two people answered or whose truth is known; how many answers of each person that used."""
    heard: dict[str, set[str]] = {}
    for a in answers:
        if a.value is not None and not a.repeat:
            heard.setdefault(a.unit, set()).add(a.rater)
    gold = {a.unit: a.gold for a in answers if a.gold is not None}
    used = [a for a in answers if a.value is not None and not a.repeat and (a.unit in gold or len(heard[a.unit]) > 1)]
    if not used:
        return None, {}
    units = {u: n for n, u in enumerate(sorted({a.unit for a in used}))}
    triples = [(units[a.unit], names.index(a.rater), int(a.value or 0)) for a in used]
    known = {units[u]: v for u, v in gold.items() if u in units}
    model = dawid_skene(triples, known=known, raters=len(names), smoothing=4.0)  # few answers per person
    return model, {name: sum(a.rater == name for a in used) for name in names}


def _abilities(answers: Sequence[Said]) -> dict[str, float]:
    """Bradley-Terry ability per person from all decided pairs, also those that only one person saw; empty for a single person."""
    used = [a for a in answers if a.value is not None and a.items is not None]
    names = sorted({a.rater for a in used})
    if len(names) < 2:
        return {}
    known = {w: n for n, w in enumerate(sorted({w for a in used for w in a.items or ()}))}
    sides = np.array([[known[w] for w in a.items or ()] for a in used])
    prob = np.array([(a.value or 0) / 2 for a in used])
    _, ability = bradley_terry_ability(sides[:, 0], sides[:, 1], prob, np.array([names.index(a.rater) for a in used]))
    return dict(zip(names, ability.tolist(), strict=True))


def alphas(answers: Sequence[Said]) -> dict[str, float]:
    """Krippendorff's alpha, nominal and ordinal, over questions that several people answered; nan where there are none."""
    own = [a for a in answers if a.value is not None and not a.repeat]
    raters = {r: n for n, r in enumerate(sorted({a.rater for a in own}))}
    units = {u: n for n, u in enumerate(sorted({a.unit for a in own}))}
    table = np.full((max(1, len(raters)), max(1, len(units))), np.nan)
    for a in own:
        table[raters[a.rater], units[a.unit]] = a.value
    return {level: krippendorff_alpha(table, level) for level in ("nominal", "ordinal")}
