"""What to ask next: scores of questions from what a posterior of reward models predicts people would answer.

Every strategy is `score(P) -> (N,)` for P (K, N, 3): probabilities of first, tie, second under K posterior samples.

symbol -> name: H entropy in bits | P_k one sample's prediction | eps lapse | v draw from the prior | theta angle on the ellipse
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robopref.arrays import InputError

SWEEPS = 200
"""Moves between the normal approximation and a sample; from samples of one answer earlier a fifth is enough."""
RANDOM_SHARE = 0.2
"""Share of questions drawn uniformly whatever the strategy: an honest sample for validation, with known propensity."""


def disagreement(p: np.ndarray) -> np.ndarray:
    """Standard deviation over samples of P(first) (Christiano et al. 2017): (K, N, 3) -> (N,)."""
    return p[:, :, 0].std(axis=0)


def infogain(p: np.ndarray) -> np.ndarray:
    """H(mean_k P_k) - mean_k H(P_k), bits that the answer tells about the reward (Biyik et al. 2019, BALD): (N,)."""
    return entropy(p.mean(axis=0)) - entropy(p).mean(axis=0)


def volume(p: np.ndarray) -> np.ndarray:
    """min over answers of mean_k (1 - P_k(answer)): hypotheses that the least helpful answer removes (Sadigh et al. 2017).

    Two equal clips also maximise it, so ties are left out and it is taken over first and second only: (N,).
    """
    two = p[:, :, [0, 2]] / np.maximum(p[:, :, [0, 2]].sum(axis=2, keepdims=True), 1e-12)
    return (1 - two).mean(axis=0).min(axis=1)


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropy in bits over the last axis."""
    safe = np.clip(p, 1e-12, 1.0)
    return -(p * np.log2(safe)).sum(axis=-1)


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "disagreement": disagreement,
    "infogain": infogain,
    "volume": volume,
}


def answer_probabilities(gap: np.ndarray, tie: float = 0.0, lapse: float = 0.0) -> np.ndarray:
    """P(first), P(tie), P(second) for score gaps (K, N) and tie width delta >= 0: (K, N, 3), summing to 1.

    P(first) = s(d - delta), P(second) = s(-d - delta), P(tie) = (e^(2 delta) - 1) P(first) P(second) (Rao and Kupper
    1967); with probability `lapse` the answer is a coin flip (Christiano et al. 2017).
    """
    first, second = sigmoid(gap - tie), sigmoid(-gap - tie)
    p = np.stack([first, np.expm1(2 * tie) * first * second, second], axis=-1)
    return (1 - lapse) * p + lapse * np.array([0.5, 0.0, 0.5])


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Without overflow."""
    return 0.5 * (1 + np.tanh(np.asarray(x) / 2))


class Posterior:
    """Bayesian logistic regression on feature differences: reward = w . features, w ~ N(0, 1/precision).

    `mean` is the most probable w. `samples` follow the posterior itself: where answers are consistent it is a cone, which no
    normal distribution around its most probable point resembles, and questions chosen for that one tell little.
    """

    def __init__(self, precision: float = 0.05, lapse: float = 0.0) -> None:
        self.precision, self.lapse = precision, lapse
        self.mean: np.ndarray = np.zeros(0)
        self._chol: np.ndarray = np.zeros((0, 0))
        self._signed, self._counts = np.zeros((0, 0)), np.zeros(0)

    def fit(
        self, difference: np.ndarray, prob_first: np.ndarray, weight: np.ndarray | None = None, iterations: int = 50
    ) -> Posterior:
        """Newton's method for the mode, its Hessian for the spread. difference (N, d): features first - second.

        With a lapse rate, answers that the model finds nearly impossible count less (one weight per answer, by EM).
        """
        n, d = difference.shape
        weight = np.ones(n) if weight is None else np.asarray(weight, float)
        w = self.mean if len(self.mean) == d else np.zeros(d)
        for _ in range(iterations):
            p = sigmoid(difference @ w)
            trust = weight
            if self.lapse:
                likely = prob_first * p + (1 - prob_first) * (1 - p)
                trust = weight * (1 - self.lapse) * likely / ((1 - self.lapse) * likely + self.lapse / 2)
            gradient = difference.T @ (trust * (prob_first - p)) - self.precision * w
            curve = np.maximum(trust * p * (1 - p), 1e-9)
            hessian = (difference.T * curve) @ difference + self.precision * np.eye(d)
            step = np.linalg.solve(hessian, gradient)
            before = self._objective(w, difference, prob_first, trust)
            # Where answers are separable the curvature vanishes and a full step overshoots.
            scale = 1.0
            while scale > 1e-4 and self._objective(w + scale * step, difference, prob_first, trust) < before:
                scale /= 2
            w = w + scale * step
            if float(np.abs(scale * step).max()) < 1e-6:
                break
        self.mean, self._chol = w, np.linalg.cholesky(np.linalg.inv(hessian))
        signed, counts = np.concatenate([difference, -difference]), np.concatenate([prob_first, 1 - prob_first])
        counts = counts * np.tile(weight, 2)
        self._signed, self._counts = signed[counts > 0], counts[counts > 0]
        return self

    def _objective(self, w: np.ndarray, difference: np.ndarray, prob_first: np.ndarray, trust: np.ndarray) -> float:
        gap = difference @ w
        return float((trust * (prob_first * gap - np.logaddexp(0.0, gap))).sum() - 0.5 * self.precision * (w @ w))

    def samples(
        self, count: int, rng: np.random.Generator, sweeps: int = SWEEPS, start: np.ndarray | None = None
    ) -> np.ndarray:
        """Reward weights (K, d) from the posterior, each the end of its own chain, which starts in the normal approximation or at `start`."""
        w = self.mean + rng.normal(size=(count, len(self.mean))) @ self._chol.T if start is None else start
        for _ in range(sweeps):
            w = self._scaled(self._moved(w, rng), rng)
        return w

    def _moved(self, w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One move of elliptical slice sampling (Murray, Adams and MacKay 2010, figure 2) of all chains: (K, d) -> (K, d)."""
        v = rng.normal(size=w.shape) / np.sqrt(self.precision)
        here, there = w @ self._signed.T, v @ self._signed.T
        level = self._likelihood(here) + np.log(1 - rng.random(len(w)))
        theta = rng.uniform(0, 2 * np.pi, len(w))
        low, high = theta - 2 * np.pi, theta.copy()
        left = np.arange(len(w))
        while len(left):
            turned = np.cos(theta[left])[:, None] * here[left] + np.sin(theta[left])[:, None] * there[left]
            left = left[self._likelihood(turned) < level[left]]
            low[left] = np.where(theta[left] < 0, theta[left], low[left])
            high[left] = np.where(theta[left] < 0, high[left], theta[left])
            theta[left] = rng.uniform(low[left], high[left])
        return np.cos(theta)[:, None] * w + np.sin(theta)[:, None] * v

    def _scaled(self, w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One Metropolis move along each chain's own ray, which answers that agree with it hardly bind: (K, d) -> (K, d)."""
        step, gap = rng.normal(scale=0.3, size=len(w)), w @ self._signed.T
        factor = np.exp(step)
        prior = 0.5 * self.precision * (w**2).sum(axis=1) * (1 - factor**2)
        gain = self._likelihood(factor[:, None] * gap) - self._likelihood(gap) + prior + w.shape[1] * step
        return np.where(np.log(1 - rng.random(len(w))) < gain, factor, 1.0)[:, None] * w

    def _likelihood(self, gap: np.ndarray) -> np.ndarray:
        """Log likelihood (K,) of score gaps (K, M) in favour of what was answered."""
        return np.log((1 - self.lapse) * sigmoid(gap) + self.lapse / 2 + 1e-300) @ self._counts


def order(scores: np.ndarray, count: int, rng: np.random.Generator, vectors: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The next `count` questions: (indices, probability with which each was chosen, whether it was the random draw).

    At each place, with probability 0.2 a uniform draw from those left, else the best score. With `vectors` (N, d), scores
    of questions that resemble one chosen before are lowered (maximal marginal relevance), so that a batch is diverse.
    """
    n = len(scores)
    if n == 0:
        raise InputError("order: got no question, wanted at least 1.")
    left, value = np.ones(n, bool), np.array(scores, float)
    unit = None if vectors is None else vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    near = np.zeros(n)
    chosen, chances, randoms = [], [], []
    for _ in range(min(count, n)):
        rest = np.flatnonzero(left)
        best = rest[np.argmax((value * (1 - near))[rest])]
        random = bool(rng.random() < RANDOM_SHARE)
        pick = int(rng.choice(rest)) if random else int(best)
        chances.append(RANDOM_SHARE / len(rest) + (1 - RANDOM_SHARE) * (pick == best))
        chosen.append(pick)
        randoms.append(random)
        left[pick] = False
        if unit is not None:
            near = np.maximum(near, np.abs(unit @ unit[pick]))
    return np.array(chosen), np.array(chances), np.array(randoms)
