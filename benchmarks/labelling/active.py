"""How many answers until 90% of held-out pairs are predicted: chosen questions (a fifth of them random) against random ones.

Linear rewards in d features, 400 segments, answers noise-free, Bradley-Terry, or Bradley-Terry with 10% flips; in the full run also two
Meta-World tasks with the return of scripted episodes as truth. `pool` questions are given once and are not renewed: 300 as in the check
of the reference, and beside it the 2000 that `robopref annotate` draws. Both arms have one learner, one prior, and predict by the sign of
the posterior's mean gap.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from robopref.labelling.options import Options
from robopref.labelling.posterior import Posterior
from robopref.labelling.queries import order, scores, sigmoid
from robopref.labelling.scorer import FIRST

from .rows import at_most

GOAL, HELD, POOL = 0.9, 1000, 300
TARGETS = {"none": 0.55, "bt": 0.75, "flips": 1.1}
"""Most times the labels of random questions; with flips for each problem, else on the geometric mean."""
NOISES = tuple(TARGETS)
TEMPERATURE = 0.5
STRATEGY = Options(Path()).strategy
"""What `robopref annotate` asks by unless told otherwise."""
Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Feature differences and true gaps of the pool, and of held-out pairs."""


def linear(d: int, rng: np.random.Generator, pool: int = POOL) -> Problem:
    """The problem of the reference: a random linear reward over 400 segments."""
    features, truth = rng.normal(size=(400, d)), rng.normal(size=d)
    sides = np.array([rng.choice(400, 2, replace=False) for _ in range(HELD + pool)])
    difference = features[sides[:, 0]] - features[sides[:, 1]]
    gap = difference @ truth / np.linalg.norm(truth)
    return difference[:pool], gap[:pool], difference[pool:], gap[pool:]


def labels_needed(problems: Sequence[Problem], noise: str, strategy: str, limit: int) -> int:
    """Answers after which held-out accuracy, averaged over problems, reaches the goal; `limit` if it does not.

    All problems advance together: a first crossing per problem would favour whichever strategy is more erratic.
    """
    curves = [curve(p, noise, strategy, limit, np.random.default_rng([8, seed])) for seed, p in enumerate(problems)]
    for points in zip(*curves, strict=False):
        if np.mean([accuracy for _, accuracy in points]) >= GOAL:
            return points[0][0]
    return limit


def curve(
    problem: Problem, noise: str, strategy: str, limit: int, rng: np.random.Generator
) -> Iterator[tuple[int, float]]:
    """(answers, held-out accuracy) as a labeller goes on; the next question is chosen anew after every answer."""
    x, gap, held, held_gap = problem
    clean = sigmoid(gap / TEMPERATURE)
    said = (gap > 0).astype(float) if noise == "none" else (rng.random(len(gap)) < clean).astype(float)
    if noise == "flips":
        said = np.where(rng.random(len(gap)) < 0.1, 1 - said, said)
    asked = rng.permutation(len(x))[:FIRST].tolist()
    posterior = Posterior(0.05, lapse=0.2 if noise == "flips" else 0.0)
    while len(asked) < limit:
        posterior.fit(x[asked], said[asked])
        yield len(asked), float(np.mean((held @ posterior.mean > 0) == (held_gap > 0)))
        left = np.setdiff1d(np.arange(len(x)), asked)
        if strategy == "random":
            asked.append(int(rng.choice(left)))
        else:
            asked += left[order(scores(strategy, posterior, x[left], rng), 1, rng)[0]].tolist()


@lru_cache(maxsize=2)
def episodes(task: str) -> tuple[np.ndarray, np.ndarray]:
    """Features and return of scripted episodes, good and faulty, the same for every seed."""
    from robopref.data.store import TrajectoryStore
    from robopref.labelling.scorer import window_features
    from robopref.run import compose
    from robopref.stages.collect import mixture, scripted, write

    config = compose([f"task={task}"])
    kinds = config["imperfections"]["good"] | config["imperfections"]["faulty"]
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder) / "store", scripted(config["env"], range(120), mixture(kinds, 120), 0, 1), "episodes")
        store = TrajectoryStore(root)
        windows = [(e.index, 0, e.length) for e in store.episodes]
        features = window_features(str(root), windows)
        return np.array([features[w] for w in windows]), np.array([t.reward.sum() for t in store])


def metaworld(task: str, rng: np.random.Generator, pool: int = POOL) -> Problem:
    """Pairs of scripted episodes; the truth is the return."""
    table, total = episodes(task)
    sides = np.array([rng.choice(len(table), 2, replace=False) for _ in range(HELD + pool)])
    gap = total[sides[:, 0]] - total[sides[:, 1]]
    gap, x = gap / gap.std(), table[sides[:, 0]] - table[sides[:, 1]]
    return x[:pool], gap[:pool], x[pool:], gap[pool:]


def noisy(noise: str, quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `labels_active_over_random_NOISE`: geometric mean over problems of the ratio of labels, and each problem's own.

    Judged is the pool of the reference; `tool_pool` has the same with as many questions as `robopref annotate` draws.
    """
    row = measured(noise, quick, POOL)
    if not quick:
        wide = measured(noise, quick, Options(Path()).pool)
        row["tool_pool"] = {k: wide[k] for k in ("measured", "problems", "labels")}
    return {f"labels_active_over_random_{noise}": row}


def measured(noise: str, quick: bool, pool: int) -> dict[str, Any]:
    """The row of one noise and one size of pool."""
    seeds = range(10)
    problems: dict[str, tuple[Callable[..., Problem], int]] = {"d8": (partial(linear, 8), 200)}
    if not quick:
        problems["d20"] = (partial(linear, 20), 300)
        problems |= {task: (partial(metaworld, task), 200) for task in ("drawer-open", "button-press-topdown")}
    ratios: dict[str, float] = {}
    counts: dict[str, list[int]] = {}
    for name, (make, limit) in problems.items():
        made = [make(np.random.default_rng([7, seed]), pool=pool) for seed in seeds]
        counts[name] = [labels_needed(made, noise, strategy, limit) for strategy in (STRATEGY, "random")]
        ratios[name] = round(counts[name][0] / counts[name][1], 3)
    found = list(ratios.values())
    together = max(found) if noise == "flips" else float(np.exp(np.mean(np.log(found))))
    return at_most(together, TARGETS[noise], problems=ratios, labels=counts, seeds=len(seeds))
