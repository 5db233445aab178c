"""Label: choose pairs of a store, ask a labeler, append the answers to the sidecar."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import TrajectoryStore
from robopref.protocols import Labeler


def choose_pairs(seeds: list[int], count: int, rng: np.random.Generator) -> list[tuple[int, int, str]]:
    """`count` distinct pairs of episodes: by turns two from the same reset (what differs is the behaviour) and any two.

    seeds: reset seed of every episode. Returns (first, second, strategy). Raises `InputError` if there are not that many pairs.
    """
    possible = len(seeds) * (len(seeds) - 1) // 2
    if count > possible:
        raise InputError(
            f"label: got {count} questions, wanted at most {possible} for {len(seeds)} episodes. Collect more."
        )
    groups: dict[int, list[int]] = defaultdict(list)
    for episode, seed in enumerate(seeds):
        groups[seed].append(episode)
    shared = [group for group in groups.values() if len(group) > 1]
    chosen: dict[frozenset[int], tuple[int, int, str]] = {}
    tries = 0
    while len(chosen) < count:
        same = bool(shared) and len(chosen) % 2 == 0 and tries < 100 * count
        among = shared[int(rng.integers(len(shared)))] if same else range(len(seeds))
        first, second = (int(i) for i in rng.choice(among, size=2, replace=False))
        chosen.setdefault(frozenset((first, second)), (first, second, "same_reset" if same else "random"))
        tries += 1
    return list(chosen.values())


def ask(
    store: TrajectoryStore, trajectories: list[Trajectory], labeler: Labeler, count: int, seed: int, teacher: str
) -> int:
    """Ask `count` questions about whole episodes and append the answers; returns how many were asked."""
    rng = np.random.default_rng([seed, 77])
    chosen = choose_pairs([t.seed for t in trajectories], count, rng)
    first, second = [trajectories[a] for a, _, _ in chosen], [trajectories[b] for _, b, _ in chosen]
    answers = labeler.label(first, second)
    rows = [
        Pair(
            Window(a, 0, len(trajectories[a])), Window(b, 0, len(trajectories[b])), float(answer), annotator=teacher,
            label_model=teacher, teacher=teacher, criterion=getattr(labeler, "criterion", ""), strategy=strategy, segment_policy="whole",
            same_init=trajectories[a].seed == trajectories[b].seed, uid=f"{teacher}-{seed}-{a}-{b}",
        )
        for (a, b, strategy), answer in zip(chosen, answers, strict=True)
    ]  # fmt: skip
    PreferenceStore(store).append(rows)
    return len(rows)
