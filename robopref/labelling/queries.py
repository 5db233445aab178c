"""What to ask next: scores of questions from what a posterior of reward models predicts people would answer.

Strategies of `SCORES` are `score(P) -> (N,)` for P (K, N, 3): probabilities of first, tie, second for K gaps that the posterior holds
equally likely. `epig` also asks what an answer would tell about other questions; `scores` is the door to all.

symbol -> name: H entropy in bits | P_k one sample's prediction | eps lapse
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robopref.arrays import InputError
from robopref.labelling.posterior import Posterior

RANDOM_SHARE = 0.2
"""Share of questions drawn uniformly whatever the strategy: an honest sample for validation, with known propensity."""
CANDIDATES, OTHERS = 100, 200
"""For `epig`: the questions of most information gain, whose answers are foreseen, and random ones that they are foreseen for."""


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
STRATEGIES = ("epig", *SCORES)


def epig(chances: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Bits that a question's answer tells about another question's, on average over others (EPIG, Bickford Smith et al. 2023, eq. 3).

    chances (2, N): probabilities of either answer; after (2, N, M): P(first) of the others after it. Returns (N,).
    """
    now = (chances[:, :, None] * after).sum(axis=0)
    return (binary(now) - (chances[:, :, None] * binary(after)).sum(axis=0)).mean(axis=1)


def binary(p: np.ndarray) -> np.ndarray:
    """Entropy in bits of a coin that falls with probability p, of p's shape."""
    return entropy(np.stack([p, 1 - p], axis=-1))


def scores(strategy: str, posterior: Posterior, difference: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much worth asking each question is, (N,), of differences (N, d); the largest comes next.

    `epig` keeps information gain's order and puts the most gainful questions before it, in the order of what they tell about others:
    the total of N questions by M others is foreseen for those alone.
    """
    if strategy not in STRATEGIES:
        raise InputError(f"strategy: got {strategy!r}, wanted one of {', '.join(STRATEGIES)}.")
    p = answer_probabilities(posterior.likely_gaps(difference), lapse=posterior.lapse)
    found = SCORES[strategy if strategy in SCORES else "infogain"](p)
    if strategy == "epig":
        best = np.argsort(-found, kind="stable")[:CANDIDATES]
        others = difference[rng.permutation(len(difference))[:OTHERS]]
        told = epig(*posterior.foresee(difference[best], others))
        found[best] = found.max() * (1 + told / max(float(told.max()), 1e-12))
    return found


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
