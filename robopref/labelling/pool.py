"""What could be asked about a store: windows of its episodes, and questions about them drawn at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from robopref.arrays import InputError
from robopref.data.answer_rows import MODES, Comparison
from robopref.data.pairs import Window
from robopref.data.store import Episode


def windows_of(episodes: Sequence[Episode], segment: int = 0) -> list[Window]:
    """Whole episodes, or with `segment` windows of that many steps (episodes that are shorter stay whole)."""
    if segment < 0:
        raise InputError(f"segment: got {segment}, wanted the steps of a window, or 0 for whole episodes.")
    found = []
    for e in episodes:
        starts = range(0, e.length - segment + 1, segment) if 0 < segment < e.length else (0,)
        found += [Window(e.index, s, s + segment if 0 < segment < e.length else e.length) for s in starts]
    return found


def questions(
    episodes: Sequence[Episode], mode: str, size: int, seed: int, segment: int = 0, clips: int = 4, target: int = 0
) -> list[Comparison]:
    """At most `size` different questions of one task each; by turns about one reset (what differs is the behaviour) and any.

    Every question's priority is random, so that the order of asking is a random sample; its propensity is the share of
    all possible questions that will be asked. Raises `InputError` when there is nothing to compare.
    """
    least, most = MODES[mode]
    count = least if least == most else clips
    if not least <= count <= most:
        raise InputError(f"clips: got {clips}, wanted {least} to {most} for mode={mode}.")
    rng = np.random.default_rng([seed, 11])
    windows = windows_of(episodes, segment)
    tasks: dict[str, list[int]] = defaultdict(list)
    resets: dict[tuple[str, int], list[int]] = defaultdict(list)
    for n, w in enumerate(windows):
        task = episodes[w.episode].task
        tasks[task].append(n)
        resets[task, episodes[w.episode].seed].append(n)
    groups = [g for g in tasks.values() if len(g) >= count]
    shared = [g for g in resets.values() if len(g) >= count and count > 1]
    if not groups:
        raise InputError(
            f"annotate: got {len(episodes)} episodes of {len(tasks)} tasks, wanted at least {count} of one task to compare."
        )
    chosen = _draw(groups, shared, count, size, rng)
    asked = min(1.0, (target or len(chosen)) / len(chosen))
    share = max(asked * len(chosen) / _possible(groups, count), 1e-9)
    return [
        Comparison(tuple(windows[n] for n in group), mode, "random", min(1.0, share), priority=float(rng.random()))
        for group in chosen
    ]


def _draw(
    groups: list[list[int]], shared: list[list[int]], count: int, size: int, rng: np.random.Generator
) -> list[tuple[int, ...]]:
    """Different sets of `count` windows; by turns out of `shared` and out of `groups`, until none is new for long."""
    possible = _possible(groups, count)
    weights = np.array([len(g) for g in groups]) / sum(len(g) for g in groups)
    chosen: dict[frozenset[int], tuple[int, ...]] = {}
    tries = 0
    while len(chosen) < min(size, possible) and tries < 50 * size + 1000:
        same = bool(shared) and tries % 2 == 0
        among = shared[int(rng.integers(len(shared)))] if same else groups[int(rng.choice(len(groups), p=weights))]
        group = tuple(int(n) for n in rng.choice(among, size=count, replace=False))
        chosen.setdefault(frozenset(group), group)
        tries += 1
    return list(chosen.values())


def _possible(groups: list[list[int]], count: int) -> int:
    from math import comb

    return sum(comb(len(g), count) for g in groups)
