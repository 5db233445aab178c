"""How far raters agree, and how much each can be relied on: Krippendorff's alpha, Dawid-Skene, Bradley-Terry with ability.

Answers are (unit, rater, value) with small whole numbers for units and raters, value 0, 1, 2 for second, tie, first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError


def krippendorff_alpha(table: np.ndarray, level: str = "nominal") -> float:
    """Agreement beyond chance of ratings (raters, units) with nan for missing; 1 is perfect, 0 chance, nan unknown.

    alpha = 1 - (n - 1) sum o_cc' delta^2 / sum n_c n_c' delta^2 over coincidences o (Krippendorff 2011); `level` is
    nominal or ordinal. Units with fewer than two ratings do not count.
    """
    if level not in ("nominal", "ordinal"):
        raise InputError(f"krippendorff_alpha.level: got {level!r}, wanted nominal or ordinal.")
    table = np.asarray(table, float)
    values = np.unique(table[~np.isnan(table)])
    counts = (
        np.stack([(table == v).sum(axis=0) for v in values], axis=1).astype(float) if len(values) else np.zeros((0, 0))
    )
    counts = counts[counts.sum(axis=1) >= 2]  # (U, C)
    if len(counts) == 0:
        return float("nan")
    per_unit = counts.sum(axis=1, keepdims=True)
    together = counts.T @ (counts / (per_unit - 1)) - np.diag((counts / (per_unit - 1)).sum(axis=0))
    n_c, n = together.sum(axis=1), together.sum()
    distance = _distance(n_c, level)
    expected = float((np.outer(n_c, n_c) * distance).sum())
    return 1.0 - (n - 1) * float((together * distance).sum()) / expected if expected else 1.0


def _distance(n_c: np.ndarray, level: str) -> np.ndarray:
    """delta^2 between values: 0/1, or for ranks (sum of counts from c to c' minus half of both ends)^2."""
    if level == "nominal":
        return 1.0 - np.eye(len(n_c))
    upto = np.cumsum(n_c)
    middle = upto - n_c / 2
    return (middle[:, None] - middle[None]) ** 2


@dataclass(frozen=True)
class DawidSkene:
    """What raters said, taken together."""

    posterior: np.ndarray
    """(U, C) probability of each class per unit."""
    confusion: np.ndarray
    """(A, C, C) P(rater says column | truth is row)."""
    prior: np.ndarray
    """(C,)."""

    @property
    def accuracy(self) -> np.ndarray:
        """P(rater says the truth), (A,)."""
        return np.einsum("c,acc->a", self.prior, self.confusion)


def dawid_skene(
    answers: Sequence[tuple[int, int, int]], classes: int = 3, known: dict[int, int] | None = None, raters: int = 0,
    iterations: int = 100, smoothing: float = 1.0,
) -> DawidSkene:  # fmt: skip
    """Truth and confusion of every rater by EM (Dawid and Skene 1979), started from vote shares.

    answers: (unit, rater, class). `known` fixes the class of gold units. `raters`: how many there are, if more than answered.
    `smoothing` counts spread over each row of a
    confusion matrix, half of them on the diagonal, so that a rater with few answers is believed to be decent.
    """
    if not answers:
        raise InputError("dawid_skene: got no answer, wanted at least one.")
    unit, rater, value = np.array(answers).T
    units, raters = int(unit.max()) + 1, max(raters, int(rater.max()) + 1)
    said = np.zeros((raters, units, classes))
    np.add.at(said, (rater, unit, value), 1.0)
    votes = said.sum(axis=0)
    q = (votes + 1e-9) / (votes + 1e-9).sum(axis=1, keepdims=True)
    fixed = np.zeros((units, classes))
    for u, c in (known or {}).items():
        fixed[u, c] = 1.0
    held = fixed.any(axis=1)
    believed = smoothing * (np.eye(classes) * 0.5 + 0.5 / classes)
    for _ in range(iterations):
        q[held] = fixed[held]
        prior = (q.sum(axis=0) + 0.5) / (q.sum() + 0.5 * classes)
        confusion = np.einsum("uc,aul->acl", q, said) + believed
        confusion /= confusion.sum(axis=2, keepdims=True)
        logits = np.log(prior) + np.einsum("aul,acl->uc", said, np.log(confusion))
        new = np.exp(logits - logits.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
        new[held] = fixed[held]
        if np.abs(new - q).max() < 1e-8:
            break
        q = new
    return DawidSkene(q, confusion, prior)


def bradley_terry_ability(
    first: np.ndarray,
    second: np.ndarray,
    prob_first: np.ndarray,
    rater: np.ndarray,
    lapse: float = 0.05,
    precision: float = 0.3,
) -> tuple[np.ndarray, np.ndarray]:
    """(scores of items, abilities of raters): P(first) = (1 - lapse) sigmoid(ability_a (s_i - s_j)) + lapse / 2.

    All inputs (N,). Abilities have a normal prior around 1 (spread 1) and may fall to 0 or below: somebody who answers at
    random has none, somebody who confuses the sides a negative one. No two raters need to share a question (Chen et al. 2013).
    """
    from scipy.optimize import minimize

    items, raters = int(max(first.max(), second.max())) + 1, int(rater.max()) + 1

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        score, ability = x[:items], x[items:]
        gap, k = score[first] - score[second], ability[rater]
        s = 0.5 * (1 + np.tanh(k * gap / 2))
        p = (1 - lapse) * s + lapse / 2
        loss = -(prob_first * np.log(p) + (1 - prob_first) * np.log(1 - p)).sum()
        slope = -(prob_first / p - (1 - prob_first) / (1 - p)) * (1 - lapse) * s * (1 - s)
        gradient = np.concatenate([precision * score, ability - 1.0])
        np.add.at(gradient, first, slope * k)
        np.add.at(gradient, second, -slope * k)
        np.add.at(gradient, items + rater, slope * gap)
        return float(loss + 0.5 * precision * (score**2).sum() + 0.5 * ((ability - 1.0) ** 2).sum()), gradient

    start = np.concatenate([np.zeros(items), np.ones(raters)])
    np.add.at(start, first, 0.1 * (prob_first - 0.5))
    np.add.at(start, second, -0.1 * (prob_first - 0.5))
    found = minimize(objective, start, jac=True, method="L-BFGS-B")
    return found.x[:items], found.x[items:]


def bradley_terry(wins: np.ndarray, prior: float = 0.1, iterations: int = 10_000) -> np.ndarray:
    """Strengths (n,) with mean log 0 from wins (n, n), row beat column, by minorisation-maximisation (Hunter 2004).

    p_i <- W_i / sum_j n_ij / (p_i + p_j); `prior` draws of every pair make it finite for any graph.
    """
    total = np.asarray(wins, float) + prior * (1 - np.eye(len(wins)))
    games, p = total + total.T, np.ones(len(total))
    for _ in range(iterations):
        new = total.sum(axis=1) / (games / (p[:, None] + p[None])).sum(axis=1)
        new /= np.exp(np.log(new).mean())
        if np.abs(np.log(new / p)).max() < 1e-12:
            break
        p = new
    return p
