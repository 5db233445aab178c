"""How many answers until 90% of held-out pairs are predicted: chosen questions (a fifth of them random) against random ones.

Linear rewards in d features, 400 segments, answers noise-free, Bradley-Terry, or Bradley-Terry with 10% flips; in the full run also two
Meta-World tasks with the return of scripted episodes as truth. 300 questions stand to choose from, as in the check of the reference, and
beside it the 2000 that `robopref annotate` draws. Noisy answers need more than 300, so there a question that was asked makes room for a
new one (the reference's noisy runs go beyond 300, too). Both arms have one learner, one prior, and predict by the sign of the
posterior's mean gap.

Returns are no normal variates: most episodes are of two kinds, and alike within one. With gaps in units of their deviation, answers at
the reference's temperature are right 72 and 75% of the time (83% in its linear problems), and 2000 random ones predict 83 and 88% of
pairs; so noisy answers take the unit in which they are right as often as there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri

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
LIMIT = {"d20": 300, "none": 200, "bt": 2000, "flips": 2000}
"""Most answers by noise; noise-free at d = 20 more than elsewhere."""
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


def labels_needed(problems: Sequence[Problem], noise: str, strategy: str, limit: int, at_once: int = 0) -> int | None:
    """Answers after which held-out accuracy, averaged over problems, reaches the goal; None if `limit` answers do not.

    All problems advance together: a first crossing per problem would favour whichever strategy is more erratic.
    """
    curves = [
        curve(p, noise, strategy, limit, np.random.default_rng([8, seed]), at_once) for seed, p in enumerate(problems)
    ]
    for points in zip(*curves, strict=False):
        if np.mean([accuracy for _, accuracy in points]) >= GOAL:
            return points[0][0]
    return None


def curve(
    problem: Problem, noise: str, strategy: str, limit: int, rng: np.random.Generator, at_once: int = 0
) -> Iterator[tuple[int, float]]:
    """(answers, held-out accuracy) as a labeller goes on; the next question is chosen anew after every answer.

    at_once: so many questions stand to choose from, the others take the places of those that were asked; 0: all.
    """
    x, gap, held, held_gap = problem
    clean = sigmoid(gap / TEMPERATURE)
    said = (gap > 0).astype(float) if noise == "none" else (rng.random(len(gap)) < clean).astype(float)
    if noise == "flips":
        said = np.where(rng.random(len(gap)) < 0.1, 1 - said, said)
    stand = at_once or len(x)
    asked = rng.permutation(stand)[:FIRST].tolist()
    posterior = Posterior(0.05, lapse=0.2 if noise == "flips" else 0.0, learn=True)
    while len(asked) < limit:
        posterior.fit(x[asked], said[asked])
        yield len(asked), float(np.mean((held @ posterior.mean > 0) == (held_gap > 0)))
        left = np.setdiff1d(np.arange(min(len(x), stand + len(asked)) if at_once else len(x)), asked)
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


def metaworld(task: str, rng: np.random.Generator, pool: int = POOL, right: float = 0.0) -> Problem:
    """Pairs of scripted episodes; the truth is the return, in units of the gaps' deviation, or of `unit_for` with `right`."""
    table, total = episodes(task)
    sides = np.array([rng.choice(len(table), 2, replace=False) for _ in range(HELD + pool)])
    gap = total[sides[:, 0]] - total[sides[:, 1]]
    gap, x = gap / (unit_for(total, right) if right else gap.std()), table[sides[:, 0]] - table[sides[:, 1]]
    return x[:pool], gap[:pool], x[pool:], gap[pool:]


def unit_for(total: np.ndarray, right: float) -> float:
    """The unit of returns (N,) in which Bradley-Terry answers about two of them are right with probability `right`."""
    gap = np.abs(total[:, None] - total)[np.triu_indices(len(total), 1)]
    return float(
        brentq(lambda unit: sigmoid(gap / unit / TEMPERATURE).mean() - right, 1e-3 * gap.std(), 10 * gap.std())
    )


def right_answers() -> float:
    """How often Bradley-Terry answers are right where gaps are N(0, 2), as in `linear`."""
    gap = np.sqrt(2) * np.abs(ndtri((np.arange(4000) + 0.5) / 4000))
    return float(sigmoid(gap / TEMPERATURE).mean())


def noisy(noise: str, quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `labels_active_over_random_NOISE`: geometric mean over problems of the ratio of labels, and each problem's own.

    Judged is the pool of the reference; `tool_pool` has the same with as many questions as `robopref annotate` draws.
    """
    row = measured(noise, quick, POOL)
    if not quick:
        wide = measured(noise, quick, Options(Path()).pool)
        row["tool_pool"] = {k: wide[k] for k in ("measured", "problems", "labels", "unsolved")}
    return {f"labels_active_over_random_{noise}": row}


def measured(noise: str, quick: bool, pool: int) -> dict[str, Any]:
    """The row of one noise and one size of pool. A problem that an arm has not solved within its limit enters with the limit, and is
    named in `unsolved`."""
    seeds = range(10)
    right = 0.0 if noise == "none" else right_answers()
    problems: dict[str, Callable[..., Problem]] = {"d8": partial(linear, 8)}
    if not quick:
        problems["d20"] = partial(linear, 20)
        problems |= {task: partial(metaworld, task, right=right) for task in ("drawer-open", "button-press-topdown")}
    ratios: dict[str, float] = {}
    counts: dict[str, list[int]] = {}
    unsolved: dict[str, list[str]] = {}
    for name, make in problems.items():
        limit = LIMIT["d20"] if (noise, name) == ("none", "d20") else LIMIT[noise]
        more = 0 if limit <= pool else limit
        made = [make(np.random.default_rng([7, seed]), pool=pool + more) for seed in seeds]
        needed = {s: labels_needed(made, noise, s, limit, pool if more else 0) for s in (STRATEGY, "random")}
        if missed := [strategy for strategy, count in needed.items() if count is None]:
            unsolved[name] = missed
        counts[name] = [limit if count is None else count for count in needed.values()]
        ratios[name] = round(counts[name][0] / counts[name][1], 3)
    found = list(ratios.values())
    together = max(found) if noise == "flips" else float(np.exp(np.mean(np.log(found))))
    told = {"problems": ratios, "labels": counts, "unsolved": unsolved, "limit": LIMIT[noise]}
    return at_most(together, TARGETS[noise], **told, seeds=len(seeds))
