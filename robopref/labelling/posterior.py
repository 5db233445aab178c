"""What the answers so far say about a linear reward: its posterior by expectation propagation (Minka 2001).

Bayesian probit regression on feature differences: reward = w . features, w ~ N(0, 1/precision), and an answer is right
with probability Phi(gap / WIDTH), close to a logistic answer; with probability `lapse` it is a coin flip. Where answers are
consistent the posterior is a cone, whose mean, not whose mode, predicts best; expectation propagation finds mean and spread
(Minka 2001, chapter 5: the Bayes point machine) without samples and their noise, one answer in about 20 us.

How far apart rewards are, in units of the noise of answers, can be learned: it is the prior's precision under which the answers are
most likely (MacKay 1992). A prior too wide takes noise for information: with 80 features and answers of which 17% are wrong, it asks for
700 answers where the learned one asks for 500.

symbol -> name: m mean | S covariance | lambda, nu precision and shift of an answer's site | alpha precision | r, z as in `_pull`
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr, ndtri

WIDTH = 1.702
"""Phi(gap / 1.702) differs from a logistic of the gap by less than 0.01 (Haley 1952)."""
SWEEPS, ENOUGH = 4, 1e-3
"""Passes over all answers after a new one, at most, and the move of a gap, in its own spread, that ends them."""
PATIENCE = 50
"""Passes wait until one answer in so many is new; until then new ones are learned in the order in which they come."""
STEADY = 0.05
"""Changes of the logarithm of the precision that are left for later."""
FAITH = 0.1
"""What the precision it begins with counts, in decided weights; with 1, noisy answers to 80 features take twice as many."""
LEVELS = 32
"""Equally probable values of a gap that stand for its normal distribution."""


class Posterior:
    """N(mean, spread) over reward weights (d,), (d, d). `fit` with rows that begin with those of last time adds only the new.

    learn: find the precision, from `precision` (the least) upwards, in `alpha`.
    """

    def __init__(self, precision: float = 0.05, lapse: float = 0.0, learn: bool = False) -> None:
        self.precision, self.lapse, self.learn = precision, lapse, learn
        self.mean, self.spread, self.alpha = np.zeros(0), np.zeros((0, 0)), precision
        self._asked, self._prob = np.zeros((0, 0)), np.zeros(0)
        self._lambda, self._nu = np.zeros(0), np.zeros(0)
        self._passed = 0

    def fit(self, difference: np.ndarray, prob_first: np.ndarray) -> Posterior:
        """Learn from answers prob_first (N,), 1, 0 or 0.5 for a tie, to differences (N, d), features first - second.

        A tie is the observation that the gap is nil, with an answer's own noise (Glenn and David 1960, narrow band).
        """
        known, (count, d) = len(self._prob), difference.shape
        same = self._asked.shape[1] == d and known <= count
        if not (same and np.array_equal(difference[:known], self._asked) and np.array_equal(prob_first[:known], self._prob)):  # fmt: skip
            known, self._passed, self.alpha = 0, 0, self.precision
            self.mean, self.spread = np.zeros(d), np.eye(d) / self.precision
        self._asked, self._prob = np.array(difference, float), np.array(prob_first, float)
        self._lambda, self._nu = (np.pad(old[:known], (0, count - known)) for old in (self._lambda, self._nu))
        for i in range(known, count):
            self._site(i)
        if count - self._passed >= max(1, count // PATIENCE):
            self._passed = count
            for _ in range(SWEEPS):
                if self._sweep() < ENOUGH:
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

    def _site(self, i: int) -> None:
        """Learn the new answer i: match mean and variance of its gap, move all weights with it."""
        x = self._asked[i]
        across = self.spread @ x
        v, mu = np.array([x @ across]), np.array([x @ self.mean])
        if v[0] <= 1e-12:  # alike in all features: the answer says nothing
            return
        new, push = self._matched(v, mu, 2 * self._prob[i : i + 1] - 1)
        scale = 1 + float(new[0] * v[0])
        if scale <= 1e-6:
            return
        self.mean = self.mean + across * (float(push[0] - new[0] * mu[0]) / scale)
        self.spread = self.spread - np.outer(across, across * (float(new[0]) / scale))
        self._lambda[i], self._nu[i] = new[0], push[0]

    def _sweep(self) -> float:
        """Refine the parts of all answers: take each out, learn it exactly, match mean and variance. Returns the largest move."""
        x = self._asked
        v, mu = np.einsum("nd,nd->n", x @ self.spread, x), x @ self.mean
        # with lapses a part may be negative, and what is left no distribution
        usable = np.flatnonzero((v > 1e-12) & (1 - self._lambda * v > 1e-9 * v))
        if not len(usable):
            return 0.0
        v, mu, before = v[usable], mu[usable], self.mean
        variance = v / (1 - self._lambda[usable] * v)
        new, push = self._matched(variance, variance * (mu / v - self._nu[usable]), 2 * self._prob[usable] - 1)
        share = 1.0
        while share > 0.05:  # all parts at once may overshoot: then go half the way
            trial, shift = self._lambda.copy(), self._nu.copy()
            trial[usable] += share * (new - trial[usable])
            shift[usable] += share * (push - shift[usable])
            if self._combine(trial, shift):
                break
            share /= 2
        if self.learn:
            self._rescale()
        return float((np.abs(x[usable] @ (self.mean - before)) / np.sqrt(v)).max())

    def _combine(self, precisions: np.ndarray, shifts: np.ndarray) -> bool:
        """Mean and spread from prior and parts (N,), (N,); False, and nothing changes, if those make no distribution."""
        inverse = (self._asked.T * precisions) @ self._asked + self.alpha * np.eye(self._asked.shape[1])
        try:
            factor = cho_factor(inverse, lower=True)
        except np.linalg.LinAlgError:
            return False
        spread = cho_solve(factor, np.eye(len(inverse)))
        self.spread = (spread + spread.T) / 2
        self.mean = self.spread @ (self._asked.T @ shifts)
        self._lambda, self._nu = precisions, shifts
        return True

    def _rescale(self) -> None:
        """alpha <- (gamma + F) / (|m|^2 + F / precision), gamma = d - alpha tr(S) weights that answers decided (MacKay 1992); F is `FAITH`."""
        decided = len(self.mean) - self.alpha * np.trace(self.spread)
        found = max(self.precision, float((decided + FAITH) / (self.mean @ self.mean + FAITH / self.precision)))
        if abs(math.log(found / self.alpha)) > STEADY:
            self.alpha = found
            self._combine(self._lambda, self._nu)

    def _matched(self, variance: np.ndarray, mean: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Precision and shift (N,) that turn gaps N(mean, variance) without their answers into those with them; side 1, -1, or 0 for ties."""
        r, z, k, _ = self._pull(side * mean, variance)
        after = np.maximum(variance - variance**2 * r * (z + r) / k**2, 1e-9 * variance)
        new = 1 / after - 1 / variance
        push = (mean + side * variance * r / k) / after - mean / variance
        return np.where(side == 0, 1 / WIDTH**2, new), np.where(side == 0, 0.0, push)
