"""What could be asked about a store: windows of its episodes, and questions about them drawn at random."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from robopref.arrays import InputError
from robopref.data.answer_rows import MODES, Comparison
from robopref.data.pairs import Window
from robopref.data.store import Episode
from robopref.labelling.queries import order

PROPOSED = 2000.0
"""Priorities above it are of questions that were proposed, or drawn among those; no scoring changes them."""


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
    episodes: Sequence[Episode], mode: str, size: int, seed: int, segment: int = 0, clips: int = 4, target: int = 0,
    proposals: Sequence[tuple[int, int]] = (),
) -> list[Comparison]:  # fmt: skip
    """At most `size` different questions of one task each; by turns about one reset (what differs is the behaviour) and any.

    Every question's priority is random, so that the order of asking is a random sample; its propensity is the share of
    all possible questions that will be asked. `proposals`, pairs of whole episodes, come before all others, with a fifth of random
    questions among them. Raises `InputError` when there is nothing to compare.
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
    found = [
        Comparison(tuple(windows[n] for n in group), mode, "random", min(1.0, share), priority=float(rng.random()))
        for group in chosen
    ]
    return _first(found, proposals, episodes, rng) if mode == "pairs" and not segment else found


def _first(
    pool: list[Comparison], proposals: Sequence[tuple[int, int]], episodes: Sequence[Episode], rng: np.random.Generator
) -> list[Comparison]:
    """The pool with the proposals in it, and before all that is asked later, a fifth of the places among them drawn from the whole pool."""
    if not proposals:
        return pool
    known = {frozenset(w.episode for w in one.windows): one for one in pool}
    for ends in proposals:
        windows = tuple(Window(e, 0, episodes[e].length) for e in ends)
        known.setdefault(frozenset(ends), Comparison(windows, priority=float(rng.random())))
    keys = list(known)
    wanted = [keys.index(frozenset(ends)) for ends in proposals]
    worth = np.zeros(len(keys))
    worth[wanted] = np.arange(len(wanted), 0, -1)
    picked, chances, random = order(worth, 2 * len(wanted), rng)
    last = max((n for n, pick in enumerate(picked) if pick in set(wanted)), default=-1)
    for place in range(last + 1):
        key, told = keys[picked[place]], "random" if random[place] else "proposed"
        known[key] = replace(
            known[key], strategy=told, propensity=float(chances[place]), priority=PROPOSED + len(picked) - place
        )
    return list(known.values())


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
