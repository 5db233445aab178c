"""Whether answers say anything about what was compared: rewards fitted without some of them must foresee those.

Answers that were filed under other questions, or given at random, fit a reward all the same, and that reward then ranks and chooses. What
it cannot do is to foresee the direction of answers that it has not seen more often than a coin would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from robopref.arrays import Trajectory
from robopref.stages.reward import Answer, fit_reward, predicted_returns

FOLDS = 5
"""Parts of which each is left out once."""


def foreseen(
    reward: dict[str, Any], trajectories: Sequence[Trajectory], answers: Sequence[Answer], fit: dict[str, Any], seed: int
) -> dict[str, Any]:  # fmt: skip
    """Fit a reward to four fifths of the answers at a time and foresee the decided ones of the rest.

    reward, fit: the configuration of the reward learner and of its training. Returns {right, of, p_value}: how many directions were
    foreseen, of how many, and the chance of a coin to do as well (exact binomial test, one-sided); p_value is 1 where nothing was decided.
    """
    part = (np.random.default_rng([seed, 8]).permutation(len(answers)) % FOLDS).tolist()
    right, count = 0, 0
    for fold in range(FOLDS):
        kept = [one for one, at in zip(answers, part, strict=True) if at != fold]
        left = [one for one, at in zip(answers, part, strict=True) if at == fold and one.prob_first != 0.5]
        if not left or not any(one.weight > 0 for one in kept):
            continue
        model, _ = fit_reward(reward, trajectories, kept, seed=seed, **fit)
        worth = predicted_returns(model, trajectories)
        gap = np.array([worth[one.first] - worth[one.second] for one in left])
        right += int(((gap > 0) == np.array([one.prob_first > 0.5 for one in left])).sum())
        count += len(left)
    p_value = float(binomtest(right, count, 0.5, alternative="greater").pvalue) if count else 1.0
    return {"right": right, "of": count, "p_value": round(p_value, 6)}
