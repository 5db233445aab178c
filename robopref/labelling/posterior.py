"""What the answers so far say about a linear reward: its posterior by expectation propagation (Minka 2001).

Bayesian probit regression on feature differences: reward = w . features, w ~ N(0, 1/precision), and an answer is right
with probability Phi(gap / WIDTH), close to a logistic answer; with probability `lapse` it is a coin flip. Where answers are
consistent the posterior is a cone, whose mean, not whose mode, predicts best; expectation propagation finds mean and spread
(Minka 2001, chapter 5: the Bayes point machine) without samples and their noise, one answer in about 20 us.

symbol -> name: m mean | S covariance | lambda, nu precision and shift of an answer's site | r, z as in `_pull`
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

WIDTH = 1.702
"""Phi(gap / 1.702) differs from a logistic of the gap by less than 0.01 (Haley 1952)."""
SWEEPS, ENOUGH = 4, 1e-3
"""Passes over all answers after a new one, at most, and the move of a gap, in its own spread, that ends them."""
LEVELS = 32
"""Equally probable values of a gap that stand for its normal distribution."""


class Posterior:
    """N(mean, spread) over reward weights (d,), (d, d). `fit` with rows that begin with those of last time adds only the new."""

    def __init__(self, precision: float = 0.05, lapse: float = 0.0) -> None:
        self.precision, self.lapse = precision, lapse
        self.mean, self.spread = np.zeros(0), np.zeros((0, 0))
        self._asked, self._prob = np.zeros((0, 0)), np.zeros(0)
        self._lambda: list[float] = []
        self._nu: list[float] = []

    def fit(self, difference: np.ndarray, prob_first: np.ndarray) -> Posterior:
        """Learn from answers prob_first (N,), 1, 0 or 0.5 for a tie, to differences (N, d), features first - second.

        A tie is the observation that the gap is nil, with an answer's own noise (Glenn and David 1960, narrow band).
        """
        known, d = len(self._prob), difference.shape[1]
        same = self._asked.shape[1] == d and known <= len(difference)
        if not (same and np.array_equal(difference[:known], self._asked) and np.array_equal(prob_first[:known], self._prob)):  # fmt: skip
            known, self._lambda, self._nu = 0, [], []
            self.mean, self.spread = np.zeros(d), np.eye(d) / self.precision
        self._asked, self._prob = np.array(difference, float), np.array(prob_first, float)
        for i in range(known, len(difference)):
            self._lambda.append(0.0)
            self._nu.append(0.0)
            self._site(i)
        for _ in range(SWEEPS):
            if max((self._site(i) for i in range(len(difference))), default=0.0) < ENOUGH:
                break
        return self

    def gaps(self, difference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of score gaps, (N,) each, of differences (N, d)."""
        variance = np.einsum("nd,nd->n", difference @ self.spread, difference)
        return difference @ self.mean, np.sqrt(np.maximum(variance, 1e-12))

    def likely_gaps(self, difference: np.ndarray) -> np.ndarray:
        """Score gaps (K, N) in units of a logistic answer, every level as probable as any other, each question by itself."""
        mean, deviation = self.gaps(difference)
        return mean + ndtri((np.arange(LEVELS) + 0.5) / LEVELS)[:, None] * deviation

    def foresee(self, asked: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P(answer) (2, N) of questions `asked` (N, d), first and second, and P(first) (2, N, M) of `others` (M, d) after it.

        One step of assumed density filtering per answer, for all pairs of questions at once.
        """
        moved = asked @ self.spread  # (N, d)
        mean, variance = asked @ self.mean, np.einsum("nd,nd->n", moved, asked)
        shared = moved @ others.T  # (N, M)
        theirs, deviation = self.gaps(others)
        chances, after = [], []
        for sign in (1.0, -1.0):
            r, z, k, chance = self._pull(sign * mean, variance)
            shifted = theirs + shared * (sign * r / k)[:, None]
            left = np.maximum(deviation**2 - shared**2 * (r * (z + r) / k**2)[:, None], 1e-9)
            chances.append(chance)
            after.append(ndtr(shifted / np.sqrt(WIDTH**2 + left)))
        return np.array(chances), np.array(after)

    def _pull(self, mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(r, z, k, P) of an answer in favour of gaps N(mean, variance): it moves their mean by variance r / k, their
        variance by -variance^2 r (z + r) / k^2, and was likely by P (Rasmussen and Williams 2006, eq. 3.85)."""
        k = np.sqrt(WIDTH**2 + variance)
        z = mean / k
        chance = self.lapse / 2 + (1 - self.lapse) * ndtr(z)
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        return np.where(chance > 1e-280, (1 - self.lapse) * density / np.maximum(chance, 1e-280), -z), z, k, chance

    def _site(self, i: int) -> float:
        """Refine the part of answer i: take it out, learn the answer exactly, match mean and variance. Returns the move."""
        x, side = self._asked[i], 2 * self._prob[i] - 1
        across = self.spread @ x
        v, mu = float(x @ across), float(x @ self.mean)
        old, shift = self._lambda[i], self._nu[i]
        if side == 0:
            new, moved = 1 / WIDTH**2, 0.0
        else:
            if (
                v <= 1e-12 or 1 / v - old <= 1e-9
            ):  # with lapses a part may be negative, and what is left no distribution
                return 0.0
            new, moved = self._matched(1 / (1 / v - old), mu / v - shift, side)
        change, push = new - old, moved - shift
        scale = 1 + change * v
        if scale <= 1e-6:
            return 0.0
        step = (push - change * mu) / scale
        self.mean = self.mean + across * step
        self.spread -= np.outer(across, across * (change / scale))
        self._lambda[i], self._nu[i] = new, moved
        return abs(step) * math.sqrt(v)

    def _matched(self, variance: float, shift: float, side: float) -> tuple[float, float]:
        """Precision and shift that turn the gap without the answer, N(variance shift, variance), into that with it."""
        mean, k = variance * shift, math.sqrt(WIDTH**2 + variance)
        z = side * mean / k
        chance = self.lapse / 2 + (1 - self.lapse) * 0.5 * math.erfc(-z / math.sqrt(2))
        density = (1 - self.lapse) * math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        r = density / chance if chance > 1e-280 else -z
        after = max(variance - variance**2 * r * (z + r) / k**2, 1e-9 * variance)
        return 1 / after - 1 / variance, (mean + side * variance * r / k) / after - shift
