"""Intervals and paired tests that a reviewer would accept; numpy only, so nothing heavy loads.

Everywhere `a` and `b` are outcomes of two policies on the same resets in the same order, and a difference is mean(a) - mean(b).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from robopref.arrays import InputError

Interval = tuple[float, float, float]
"""(estimate, lower bound, upper bound)."""

_BLOCK = 4_000_000
"""Numbers held at once while resampling, so that memory stays bounded for any number of episodes."""


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (lo, hi) of a success rate. Wilson 1927; n = 0 knows nothing and gives (0, 1).

    Raises `InputError` unless 0 <= successes <= n.
    """
    if n < 0 or not 0 <= successes <= n:
        raise InputError(f"wilson: got {successes} successes of {n}, wanted 0 <= successes <= n.")
    if n == 0:
        return 0.0, 1.0
    z, rate = NormalDist().inv_cdf(0.5 + level / 2), successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the bound is exactly 0 or 1; rounding must not leave it a hair inside.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """(difference, lo, hi): mean(a) - mean(b) over n shared resets (n,), percentile bootstrap over resets.

    Raises `InputError` when a and b are not equally long vectors of at least one outcome.
    """
    difference = _paired(a, b)
    generator = np.random.default_rng(seed)
    n = len(difference)

    def means(count: int) -> np.ndarray:
        return difference[generator.integers(0, n, (count, n))].mean(1)  # (count,)

    return _interval(float(difference.mean()), _blocks(means, resamples, n), level)


def paired_test(a: ArrayLike, b: ArrayLike, seed: int = 0) -> float:
    """Two-sided p-value of "a and b do not differ" on shared resets (n,).

    Binary outcomes: McNemar's exact test on the resets where they disagree. Other outcomes: sign-flip permutation test.
    """
    difference = _paired(a, b)
    if set(np.unique(np.concatenate([np.asarray(a, float), np.asarray(b, float)]))) <= {0.0, 1.0}:
        wins, losses = int((difference > 0).sum()), int((difference < 0).sum())
        n = wins + losses
        # Exact integers: a float sum would underflow for a few thousand resets.
        return min(1.0, 2 * sum(comb(n, k) for k in range(min(wins, losses) + 1)) / 2**n)
    return sign_flip_test(difference, seed=seed)


def sign_flip_test(
    difference: ArrayLike, weight: ArrayLike | None = None, resamples: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p-value of "sum(weight * difference) is 0" when every sign of `difference` (n,) was equally likely.

    All 2^n signs up to n = 14; beyond it `resamples` random ones, counting the observed one (Phipson and Smyth 2010).
    """
    values = np.asarray(difference, float) * (1.0 if weight is None else np.asarray(weight, float))
    values = values[values != 0]  # a zero keeps its value under both signs
    n = len(values)
    if n == 0:
        return 1.0
    observed = abs(values.sum()) - 1e-9 * np.abs(values).sum()  # ties must count as ties despite rounding
    if n <= 14:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # (2^n, n)
        return float((np.abs(signs @ values) >= observed).mean())
    generator = np.random.default_rng(seed)

    def sums(count: int) -> np.ndarray:
        return (1 - 2 * generator.integers(0, 2, (count, n), dtype=np.int8)) @ values  # (count,)

    hits = int((np.abs(_blocks(sums, resamples, n)) >= observed).sum())
    return (hits + 1) / (resamples + 1)


@dataclass(frozen=True)
class Sequential:
    """Where a sequential comparison stands after `seen` resets. An evidence of 20 is twenty to one against what it speaks against."""

    decision: Literal["fell", "held", "open"]
    seen: int
    evidence_fell: float
    evidence_held: float


def sequential_fall(difference: ArrayLike, tolerance: float, error: float = 0.05) -> Sequential:
    """Has success fallen? Looks after every reset of `difference` (n,) = new - old in [-1, 1] and decides as soon as it may.

    Two bets run side by side (betting martingales: Waudby-Smith and Ramdas 2024; strength mixed over a grid). `evidence_fell` grows only if
    the mean difference is below 0, `evidence_held` only if it is above -tolerance, and the first to reach 1 / error decides. By Ville's
    inequality a policy that is no worse is called "fell", and one that is worse by `tolerance` or more "held", with probability at most
    `error` each, however often one looks. Raises `InputError` for no reset, a value outside [-1, 1], or an error outside (0, 1).
    """
    values = np.asarray(difference, float)
    if values.ndim != 1 or len(values) == 0 or np.abs(values).max() > 1 or not 0 < error < 1 or not 0 <= tolerance <= 1:
        raise InputError(
            f"sequential_fall: got differences of shape {values.shape}, tolerance={tolerance}, error={error}, wanted (n,) in "
            "[-1, 1] with n >= 1, a tolerance in [0, 1] and an error in (0, 1)."
        )
    fell, held = (_wealth(bet) for bet in (-values, values + tolerance))  # (n,) each
    over = np.flatnonzero(np.maximum(fell, held) >= 1 / error)
    at = int(over[0]) if len(over) else len(values) - 1
    decision: Literal["fell", "held", "open"] = "open" if not len(over) else "fell" if fell[at] >= held[at] else "held"
    return Sequential(decision, at + 1, float(fell[at]), float(held[at]))


def _wealth(bet: np.ndarray) -> np.ndarray:
    """What a stake of 1 has become after each of the bets (n,), which are at least -1, mixed over strengths 0.1 to 0.9."""
    strength = np.arange(1, 10) / 10
    return np.exp(np.cumsum(np.log1p(strength * bet[:, None]), axis=0)).mean(axis=1)


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half of all values, any shape: floor(n/4) smallest and largest are dropped.

    Agarwal et al. 2021 (rliable): less noise than the median, fewer outliers than the mean.
    """
    flat = np.sort(np.asarray(values, float), axis=None)
    if len(flat) == 0:
        raise InputError("interquartile_mean: got no values, wanted at least one.")
    cut = len(flat) // 4
    return float(flat[cut : len(flat) - cut].mean())


def stratified_bootstrap_iqm(
    scores: Sequence[ArrayLike], resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """(iqm, lo, hi) of scores per task: `scores[i]` holds one number per training seed of task i (lengths may differ).

    Runs are resampled inside each task, tasks stay as they are (Agarwal et al. 2021).
    """
    tasks = [np.asarray(row, float).ravel() for row in scores]
    if not tasks or any(len(row) == 0 for row in tasks):
        raise InputError("stratified_bootstrap_iqm: got a task without scores, wanted at least one score per task.")
    generator = np.random.default_rng(seed)
    total = sum(len(row) for row in tasks)
    cut = total // 4

    def draws(count: int) -> np.ndarray:
        parts = [row[generator.integers(0, len(row), (count, len(row)))] for row in tasks]
        return np.sort(np.concatenate(parts, axis=1), axis=1)[:, cut : total - cut].mean(1)  # (count,)

    return _interval(interquartile_mean(np.concatenate(tasks)), _blocks(draws, resamples, total), level)


def clustered_bootstrap(
    clusters: Sequence[ArrayLike],
    strata: Sequence[Hashable] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """(mean, lo, hi) of outcomes grouped by training run: `clusters[i]` holds one number per reset of run i.

    Runs are resampled, then resets inside each drawn run. With `strata` (one name per run, for example its task) runs are
    resampled inside their stratum, and the estimate is the mean over strata of the mean over runs of the mean over resets.
    """
    runs = [np.asarray(cluster, float).ravel() for cluster in clusters]
    names = [0] * len(runs) if strata is None else list(strata)
    if not runs or any(len(run) == 0 for run in runs) or len(names) != len(runs):
        raise InputError(
            f"clustered_bootstrap: got {len(runs)} clusters and {len(names)} strata, "
            "wanted as many strata as clusters and no empty cluster."
        )
    groups = [[run for run, name in zip(runs, names, strict=True) if name == key] for key in dict.fromkeys(names)]
    generator = np.random.default_rng(seed)

    def draws(count: int) -> np.ndarray:
        total = np.zeros(count)
        for group in groups:
            chosen = generator.integers(0, len(group), (count, len(group)))  # (count, runs)
            for index, run in enumerate(group):
                rows, _ = np.nonzero(chosen == index)
                picks = run[generator.integers(0, len(run), (len(rows), len(run)))].mean(1)
                total += np.bincount(rows, picks, minlength=count) / len(group)
        return total / len(groups)

    estimate = float(np.mean([np.mean([run.mean() for run in group]) for group in groups]))
    widest = max(len(run) * sum(name == key for name in names) for key in set(names) for run in runs)
    return _interval(estimate, _blocks(draws, resamples, widest), level)


def ratio_of_means(
    runs: Sequence[tuple[ArrayLike, ArrayLike]], resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """(ratio, lo, hi): mean(a) / mean(b), each the mean over runs (a, b) of the mean over a run's shared resets (n,).

    Percentile bootstrap that resamples runs where there are several, then resets, both sides of a pair together. Raises `InputError` for no
    run, unequal lengths, and where b is 0 on the mean; resamples in which it is are left out.
    """
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in runs]
    if not pairs or any(a.shape != b.shape or a.ndim != 1 or len(a) == 0 for a, b in pairs):
        raise InputError(
            f"ratio_of_means: got shapes {[(a.shape, b.shape) for a, b in pairs]}, wanted equal (n,), n >= 1."
        )
    above, below = (float(np.mean([side.mean() for side in sides])) for sides in zip(*pairs, strict=True))
    if below == 0:
        raise InputError("ratio_of_means: got a mean of 0 to divide by, wanted outcomes of which some are not 0.")
    generator = np.random.default_rng(seed)
    made = np.empty(resamples)
    for k in range(resamples):
        drawn = generator.integers(0, len(pairs), len(pairs)) if len(pairs) > 1 else [0]
        sums = np.zeros(2)
        for run in drawn:
            a, b = pairs[run]
            at = generator.integers(0, len(a), len(a))
            sums += a[at].mean(), b[at].mean()
        made[k] = sums[0] / sums[1] if sums[1] > 0 else np.nan
    return _interval(above / below, made[~np.isnan(made)], level)


def paired_nodes_bootstrap(
    values: ArrayLike, first: ArrayLike, second: ArrayLike, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """(mean, lo, hi) of one number per compared pair (N,), where pairs share episodes: episodes are resampled, not pairs.

    first, second (N,) int: the episodes of a pair. A pair counts as often as both its episodes were drawn.
    """
    numbers, names = np.asarray(values, float), np.stack([np.asarray(first), np.asarray(second)])
    if numbers.ndim != 1 or names.shape != (2, len(numbers)) or len(numbers) == 0:
        raise InputError(
            f"paired_nodes_bootstrap: got values {numbers.shape} and episodes {names.shape}, wanted (N,) and N of each, N > 0."
        )
    index = np.unique(names, return_inverse=True)[1].reshape(names.shape)  # (2, N)
    count = int(index.max()) + 1
    generator = np.random.default_rng(seed)
    samples: list[float] = []
    while len(samples) < resamples:
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        weight = drawn[index[0]] * drawn[index[1]]  # (N,)
        if weight.any():
            samples.append(float(weight @ numbers / weight.sum()))
    return _interval(float(numbers.mean()), np.array(samples), level)


def calibration_bins(prob: ArrayLike, outcome: ArrayLike, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean predicted probability, mean outcome, count) of each equally wide bin that holds anything: a reliability diagram.

    prob (n,) in [0, 1]; outcome (n,) in [0, 1], where 0.5 is a tie. Raises `InputError` for unequal shapes.
    """
    predicted, happened = np.asarray(prob, float), np.asarray(outcome, float)
    if predicted.shape != happened.shape or predicted.ndim != 1:
        raise InputError(
            f"calibration: got shapes {predicted.shape} and {happened.shape}, wanted two equal (n,): one outcome each."
        )
    place = np.minimum((predicted * bins).astype(int), bins - 1)
    return [
        (float(predicted[place == b].mean()), float(happened[place == b].mean()), int((place == b).sum()))
        for b in range(bins)
        if (place == b).any()
    ]


def calibration_error(prob: ArrayLike, outcome: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - happened| over bins, weighted by their counts (Naeini et al. 2015)."""
    made = calibration_bins(prob, outcome, bins)
    total = sum(count for _, _, count in made)
    return sum(abs(p - o) * count for p, o, count in made) / total if total else float("nan")


def _paired(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """a - b as floats, shape (n,), after checking that they belong together."""
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1 or len(first) == 0:
        raise InputError(
            f"paired statistics: got shapes {first.shape} and {second.shape}, wanted two equal (n,) with n >= 1. "
            "Both policies must be evaluated on the same resets in the same order."
        )
    return first - second


def _blocks(draw: Callable[[int], np.ndarray], resamples: int, width: int) -> np.ndarray:
    """`resamples` draws, made in blocks that hold at most _BLOCK numbers."""
    size = max(1, min(resamples, _BLOCK // max(1, width)))
    return np.concatenate([draw(min(size, resamples - start)) for start in range(0, resamples, size)])


def _interval(estimate: float, samples: np.ndarray, level: float) -> Interval:
    lo, hi = np.quantile(samples, [0.5 - level / 2, 0.5 + level / 2])
    return estimate, float(lo), float(hi)
