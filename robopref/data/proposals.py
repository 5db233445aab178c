"""Pairs that whoever recorded a store proposes to ask about first (`meta/preferences/candidates.json`), and how they are mixed with random ones.

A fifth of the questions is drawn uniformly whatever is proposed, so that the answers hold an honest sample; every question keeps the
probability with which it was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.data.files import read_json
from robopref.data.store import TrajectoryStore

FILE = "meta/preferences/candidates.json"
RANDOM_SHARE = 0.2
Pair = tuple[int, int]


def proposed(store: TrajectoryStore) -> list[Pair]:
    """Proposed pairs of different episodes of one task, best first; none without the file. Raises `InputError` for a broken one."""
    path = store.root / FILE
    if not path.exists():
        return []
    told: Any = read_json(path)
    rows = told.get("pairs") if isinstance(told, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(
            f"{path}: got no list of pairs, wanted {{pairs: [{{first, second}}, ...]}}.\nDelete it to do without."
        )
    found: dict[Pair, None] = {}
    for row in rows:
        ends = [row.get("first"), row.get("second")]
        if not all(isinstance(end, int) and 0 <= end < len(store) for end in ends) or ends[0] == ends[1]:
            raise InputError(
                f"{path}: got the pair {ends}, wanted two different episodes of 0 to {len(store) - 1}.\nDelete it to do without."
            )
        first, second = sorted(ends)
        if store.episodes[first].task == store.episodes[second].task:
            found[first, second] = None
    return list(found)


def mixed(
    proposals: Sequence[Pair], episodes: int, count: int, rng: np.random.Generator
) -> list[tuple[int, int, str, float]]:
    """At most `count` different pairs until no proposal is left: (first, second, strategy, probability of having been chosen).

    At each place with probability 0.2 a uniform draw from all pairs of `episodes` that are left, else the next proposal.
    """
    possible, waiting = episodes * (episodes - 1) // 2, list(dict.fromkeys((min(one), max(one)) for one in proposals))
    chosen: dict[Pair, tuple[int, int, str, float]] = {}
    while waiting and len(chosen) < min(count, possible):
        left, best = possible - len(chosen), waiting[0]
        random = bool(rng.random() < RANDOM_SHARE)
        pick = _uniform(chosen, episodes, rng) if random else best
        chance = RANDOM_SHARE / left + (1 - RANDOM_SHARE) * (pick == best)
        chosen[pick] = (*pick, "random" if random else "proposed", chance)
        waiting = [one for one in waiting if one != pick]
    return list(chosen.values())


def _uniform(chosen: dict[Pair, Any], episodes: int, rng: np.random.Generator) -> Pair:
    while True:
        first, second = sorted(int(i) for i in rng.choice(episodes, size=2, replace=False))
        if (first, second) not in chosen:
            return first, second
