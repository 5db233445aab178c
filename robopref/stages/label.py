"""Label: choose pairs of a store, ask a labeler, append the answers to the sidecar."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.feedback import append_feedback
from robopref.data.picture_cache import cached
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.proposals import mixed, proposed
from robopref.data.store import TrajectoryStore
from robopref.labelers.insertion import rank_by_insertion
from robopref.labelers.teacher import Teacher
from robopref.protocols import Grader, Labeler, Looking, WeighingLabeler


def choose_pairs(
    seeds: list[int], count: int, rng: np.random.Generator, proposals: Sequence[tuple[int, int]] = ()
) -> list[tuple[int, int, str, float]]:
    """`count` distinct pairs of episodes: the proposals first, a fifth at random among them, then by turns two from the same reset (what
    differs is the behaviour) and any two.

    seeds: reset seed of every episode. Returns (first, second, strategy, probability of having been chosen; 1 where it is not known).
    Raises `InputError` if there are not that many pairs.
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
    start = mixed(proposals, len(seeds), count, rng)
    chosen = {frozenset(one[:2]): one for one in start}
    tries = 0
    while len(chosen) < count:
        same = bool(shared) and len(chosen) % 2 == 0 and tries < 100 * count
        among = shared[int(rng.integers(len(shared)))] if same else range(len(seeds))
        first, second = (int(i) for i in rng.choice(among, size=2, replace=False))
        chosen.setdefault(frozenset((first, second)), (first, second, "same_reset" if same else "random", 1.0))
        tries += 1
    return list(chosen.values())


def name_of(labeler: Labeler, preset: str) -> str:
    """What a labeler calls itself, overrides included; the preset's name where it has none."""
    return str(getattr(labeler, "name", preset))


def identity(settings: Mapping[str, Any]) -> str:
    """Short hash of a labeler's resolved settings: an answer under other settings is another answer."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def ask(
    store: TrajectoryStore, trajectories: list[Trajectory], settings: Mapping[str, Any], count: int, seed: int, preset: str
) -> int:  # fmt: skip
    """Ask the labeler of `settings` `count` questions about whole episodes and append the answers; returns how many were new."""
    from hydra.utils import instantiate

    labeler: Labeler = instantiate(settings)
    if isinstance(labeler, Looking) and labeler.cameras:
        trajectories = cached(store, labeler.cameras)
    teacher, mark = name_of(labeler, preset), identity(settings)
    rng = np.random.default_rng([seed, 77])
    chosen = choose_pairs([t.seed for t in trajectories], count, rng, proposed(store))
    first, second = [trajectories[a] for a, *_ in chosen], [trajectories[b] for _, b, *_ in chosen]
    answers = labeler.label(first, second)
    return PreferenceStore(store).append(
        _rows(trajectories, labeler, chosen, answers, teacher, f"{teacher}-{mark}-{seed}")
    )


def ask_lists(
    store: TrajectoryStore, trajectories: list[Trajectory], settings: Mapping[str, Any], count: int, budget: int, seed: int, preset: str
) -> tuple[int, int]:  # fmt: skip
    """Ask `count` questions as ranked lists of at most `budget` each (`labelers.insertion`); returns how many were asked, and new answers.

    Every pair that a list implies is appended as an answer, and the lists themselves to the sidecar's `ranks`. Each list ranks episodes that no
    earlier one holds, as long as there are such. Raises `InputError` for fewer than two episodes.
    """
    from hydra.utils import instantiate

    if len(trajectories) < 2:
        raise InputError(f"label: got {len(trajectories)} episodes, wanted at least 2 to compare. Collect more.")
    labeler: Any = instantiate(settings)
    if isinstance(labeler, Looking) and labeler.cameras:
        trajectories = cached(store, labeler.cameras)
    teacher, mark = name_of(labeler, preset), identity(settings)
    if isinstance(labeler, Teacher):  # its thresholds are of all episodes, not of the two in question
        labeler = labeler.fit(trajectories)

    def answer(one: int, other: int) -> float:
        return float(labeler.label([trajectories[one]], [trajectories[other]])[0])

    rng = np.random.default_rng([seed, 79])
    asked = 0
    left: list[int] = []
    rows: list[Pair] = []
    ranks: list[tuple[str, list[list[int]]]] = []
    while asked < count:
        left = left if len(left) > 1 else rng.permutation(len(trajectories)).tolist()
        made = rank_by_insertion(left, answer, min(budget, count - asked), rng)
        left, asked = left[sum(map(len, made.groups)) :], asked + made.asked
        name = f"{teacher}-{mark}-{seed}-list{budget}-{len(ranks)}"
        implied = made.pairs()
        chosen = [(a, b, "list", 1.0) for a, b, _ in implied]
        answers = np.array([p for *_, p in implied])
        rows += [replace(r, question_id=name) for r in _rows(trajectories, labeler, chosen, answers, teacher, name)]
        ranks.append((name, made.groups))
    preferences = PreferenceStore(store)
    new = preferences.append(rows)
    append_feedback(preferences.folder, "ranks", _ranks(ranks, trajectories, teacher))
    return asked, new


def _ranks(lists: Sequence[tuple[str, list[list[int]]]], trajectories: list[Trajectory], who: str) -> list[dict[str, Any]]:  # fmt: skip
    """Lists of tie groups, worst first, as rows of the sidecar's `ranks`, where 0 is best."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        {
            "preference_group_id": name, "episode_index": episode, "start": 0, "end": len(trajectories[episode]),
            "preference_rank": len(groups) - 1 - place, "annotator": who, "question_id": name, "created_at": now, "uid": f"{name}-{episode}",
        }
        for name, groups in lists for place, group in enumerate(groups) for episode in group
    ]  # fmt: skip


def grade(
    store: TrajectoryStore, trajectories: list[Trajectory], settings: Mapping[str, Any], seed: int, preset: str
) -> list[float]:  # fmt: skip
    """Have the labeler of `settings` score every episode; the best against the worst of each reset goes to the sidecar as an answer.

    Raises `InputError` for a labeler that compares only.
    """
    from hydra.utils import instantiate

    labeler: Any = instantiate(settings)
    if not isinstance(labeler, Grader):
        raise InputError(
            f"rank_by=scores: got labeler {preset}, which only compares, wanted one with scores. Take labeler=stages_completion, "
            "success or return, or rank_by=reward."
        )
    teacher, scores = name_of(labeler, preset), labeler.scores(trajectories)
    groups: dict[int, list[int]] = defaultdict(list)
    for episode, one in enumerate(trajectories):
        groups[one.seed].append(episode)
    ends = [(max(g, key=lambda i: scores[i]), min(g, key=lambda i: scores[i])) for g in groups.values()]
    chosen = [(a, b, "best_worst", 1.0) for a, b in ends if scores[a] > scores[b]]
    mark = f"{teacher}-{identity(settings)}-{seed}"
    PreferenceStore(store).append(_rows(trajectories, labeler, chosen, np.ones(len(chosen)), teacher, mark))
    return [float(score) for score in scores]


def _rows(
    trajectories: list[Trajectory], labeler: Labeler, chosen: list[tuple[int, int, str, float]], answers: np.ndarray, teacher: str, mark: str
) -> list[Pair]:  # fmt: skip
    """Answers about whole episodes as rows of the sidecar, each with the weight that its rater gives it."""
    weights = np.ones(len(chosen))
    if isinstance(labeler, WeighingLabeler):
        weights = labeler.weigh([trajectories[a] for a, *_ in chosen], [trajectories[b] for _, b, *_ in chosen])
    return [
        Pair(
            Window(a, 0, len(trajectories[a])), Window(b, 0, len(trajectories[b])), float(answer), float(weight), teacher,
            label_model=teacher, teacher=teacher, criterion=getattr(labeler, "criterion", ""),
            noise_model=getattr(labeler, "noise_model", ""), strategy=strategy, segment_policy="whole",
            same_init=trajectories[a].seed == trajectories[b].seed, uid=f"{mark}-{a}-{b}",
            propensity=propensity,
        )
        for (a, b, strategy, propensity), answer, weight in zip(chosen, answers, weights, strict=True)
    ]  # fmt: skip
