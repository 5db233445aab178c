"""The background worker: learns from the answers so far and re-scores the questions that nobody holds. Labelling never waits."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from robopref.data.answer_rows import prob_first
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers
from robopref.labelling.pool import PROPOSED
from robopref.labelling.posterior import Posterior
from robopref.labelling.queries import order, scores
from robopref.labelling.render import prepare

log = logging.getLogger(__name__)
FIRST = 1
"""Random questions before any strategy is asked; the prior makes more unnecessary, a fifth of the later ones is random too."""
EVERY = 1
"""Answers between two scorings, at least; while one runs, no other starts."""
AHEAD = 50
"""Questions that one scoring puts in order; the others follow at random."""
PLACED = 1000.0
"""Priorities above it are of questions in order; those at random lie between 0 and 1."""
WIDTH = 20
"""Principal axes of what is measured of a window, at most."""
BENDS, LANDMARKS = 60, 500
"""Nonlinear features beside them, and the windows that the kernel is spanned by, at most."""
Rescored = tuple[str, str, float, float, float]
"""item, strategy, score, propensity, priority"""


class Scorer:
    """Starts a scoring in its own process when enough new answers came in; `wake` is called, from any thread, when it has ended."""

    def __init__(self, answers: Answers, dataset: Path, strategy: str, seed: int, wake: Callable[[], None]) -> None:
        self._answers, self._dataset, self._strategy, self._seed, self._wake = answers, dataset, strategy, seed, wake
        self._pool: ProcessPoolExecutor | None = None
        self._running: Future[Any] | None = None
        self._scored_at = 0
        self.rounds = 0

    def maybe_start(self) -> None:
        """Look whether a scoring is due and whether one has ended; returns at once either way."""
        if self._running is not None:
            if self._running.done():
                self._finish(self._running)
                self._running = None
            return
        done = self._answers.queue.counts()["done"]
        if self._strategy == "random" or done < max(FIRST, self._scored_at + EVERY):
            return
        self._scored_at = done
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare, initargs=(os.getpid(),)
            )
        self._running = self._pool.submit(rescored, str(self._dataset), self._strategy, self._seed + done)
        self._running.add_done_callback(lambda _: self._wake())

    def close(self) -> None:
        """Stop the process."""
        if self._pool is not None:
            for process in list((getattr(self._pool, "_processes", None) or {}).values()):
                process.terminate()
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _finish(self, result: Future[Any]) -> None:
        if result.cancelled():
            return
        error = result.exception()
        if error is not None:
            log.warning("scoring failed, questions stay in their order: %s: %s", type(error).__name__, error)
            self._pool = None
            return
        self._answers.queue.rescore(result.result())
        self.rounds += 1


def rescored(dataset: str, strategy: str, seed: int) -> list[Rescored]:
    """What the answers in the project's file change in the queue: the questions to ask next, and those that no longer are.

    Read and compared here, so that the server has a few rows to write and nothing else.
    """
    answers = _answers(dataset)
    told = [
        (e["windows"], prob_first(e["body"]["client"]["choice"], e["body"]["server"]["shown"]))
        for e in answers.current()
    ]
    rows = answers.log.db.execute(
        "SELECT c.id, c.windows, max(s.prio) AS prio FROM slot s JOIN comparison c ON c.id = s.item WHERE s.state IN ('open', 'waiting') "
        "AND s.only_for IS NULL AND c.mode = 'pairs' AND s.prio < ? "
        "AND (s.item IN (SELECT item FROM asked WHERE mode = 'pairs') OR NOT EXISTS (SELECT 1 FROM asked WHERE mode = 'pairs')) GROUP BY c.id ORDER BY c.id", (PROPOSED,)
    ).fetchall()  # fmt: skip
    asked = [([(w.episode, w.start, w.end) for w in windows], prob) for windows, prob in told if prob == prob]
    if not rows or not asked:
        return []
    ahead = {r["id"] for r in rows if r["prio"] > PLACED}
    found = score(dataset, asked, [(r["id"], r["windows"]) for r in rows], strategy, seed)
    return [row for row in found if row[4] > PLACED or row[0] in ahead]


@lru_cache(maxsize=1)
def _answers(dataset: str) -> Answers:
    return Answers(dataset)


def score(
    dataset: str, asked: list[tuple[Any, float]], left: list[tuple[str, str]], strategy: str, seed: int
) -> list[Rescored]:
    """(item, strategy, score, propensity, priority) of every question that is left; the next to ask have the highest priority."""
    import json

    rng = np.random.default_rng(seed)
    windows = [[tuple(w) for w in sides] for sides, _ in asked] + [
        [tuple(w) for w in json.loads(text)] for _, text in left
    ]
    features = _features(dataset, tuple(sorted({w for sides in windows for w in sides})))
    difference = np.array([features[a] - features[b] for a, b in windows])
    prob = np.array([p for _, p in asked])
    posterior = Posterior(precision=0.5, lapse=0.05, learn=True).fit(difference[: len(asked)], prob)
    ours = difference[len(asked) :]
    value = scores(strategy, posterior, ours, rng)
    first, chance, random = order(value, AHEAD, rng, ours)
    place = {int(i): n for n, i in enumerate(first)}
    rows = []
    for n, (item, _) in enumerate(left):
        if n in place:
            at = place[n]
            rows.append(
                (item, "random" if random[at] else strategy, float(value[n]), float(chance[at]), PLACED + AHEAD - at)
            )
        else:  # asked only if everything before is gone, in random order
            rows.append((item, "random", float(value[n]), 1.0 / len(left), float(rng.random())))
    return rows


@lru_cache(maxsize=1)
def _features(dataset: str, windows: tuple[tuple[int, int, int], ...]) -> dict[tuple[int, int, int], np.ndarray]:
    """Read once, not after every answer: the windows stay the same until a clip turns out broken."""
    return window_features(dataset, list(windows))


def window_features(dataset: str, windows: list[tuple[int, int, int]]) -> dict[tuple[int, int, int], np.ndarray]:
    """What the reward may see of a window: mean and end of observations, mean squared action, on principal axes, and a kernel on those.

    The reward is linear in these features, so what is not linear in the measurements (near the goal is good, past it is not) must be
    among them: with the kernel, 200 answers predict 92% of pairs on drawer-open and 90% on button-press-topdown, without 89 and 84%.
    """
    store = TrajectoryStore(dataset)
    raw = []
    for episode, start, end in windows:
        t = store.read(episode, sim_state=False)
        seen, done = t.observation[start:end].astype(np.float64), t.action[start:end].astype(np.float64)
        raw.append(
            np.concatenate(
                [seen.mean(0), seen[-1], seen[-1] - seen[0], done.mean(0), (done**2).mean(0), [np.log(len(seen))]]
            )
        )
    table = np.array(raw)
    table = (table - table.mean(0)) / np.maximum(table.std(0), 1e-6) * (table.std(0) > 1e-6)
    _, scale, axes = np.linalg.svd(table, full_matrices=False)
    kept = axes[: min(WIDTH, int((scale > 1e-8 * scale[0]).sum()) or 1)]
    turned = _scaled(table @ kept.T)
    rows = np.hstack([turned, _scaled(kernel_features(turned))])
    return dict(zip(windows, rows, strict=True))


def kernel_features(points: np.ndarray) -> np.ndarray:
    """Eigenfeatures (N, K) of a Gaussian kernel as wide as the median distance, centred; points (N, d) (Nystroem; Williams and Seeger 2001)."""
    marks = points[:: -(-len(points) // LANDMARKS)]
    squared = cdist(points, marks, "sqeuclidean")
    if not squared.any():
        return np.zeros((len(points), 0))
    width = np.median(squared[squared > 0])
    values, axes = np.linalg.eigh(np.exp(-cdist(marks, marks, "sqeuclidean") / width))
    kept = [i for i in range(len(values) - 1, -1, -1) if values[i] > 1e-6 * values[-1]][:BENDS]
    features = np.exp(-squared / width) @ axes[:, kept] / np.sqrt(values[kept])
    return np.asarray(features - features.mean(axis=0))


def _scaled(features: np.ndarray) -> np.ndarray:
    """Features with one spread together, so that one prior fits every dataset."""
    return features / max(float(features.std()), 1e-9) if features.size else features
