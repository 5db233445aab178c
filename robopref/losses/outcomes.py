"""What ties say: a rater who calls two segments equal saw the same outcome twice, and a decided answer mostly saw two.

Every segment succeeds with probability q = sigmoid(f). An answer is a tie with probability

    P(tie) = a (1 - q_i) (1 - q_j) + b q_i q_j + c (the outcomes differ),

with rates a, b, c of two failures, of two successes and of one of each. Whether an answer is decided does not depend on its direction, so
turning answers round takes nothing from this part. The direction of a decided answer is Bradley-Terry of f: P(i is the success | exactly
one is) = sigmoid(f_i - f_j). Ties as a third outcome of a comparison: Rao and Kupper 1967, Davidson 1970.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST = 1e-6
"""No answer is held to be less likely than this."""


def tie_loss(first: Tensor, second: Tensor, tie: Tensor, rates: Tensor) -> Tensor:
    """-log P(tie) where `tie` is 1 and -log P(decided) where it is 0, (K, B).

    first, second (K, B): logits of success; tie (B,) in {0, 1}; rates (K, 3): probabilities of a tie after two failures, two successes,
    one of each.
    """
    one, other = first.sigmoid(), second.sigmoid()
    good, bad = one * other, (1 - one) * (1 - other)
    failures, successes, mixed = (rates[:, k, None] for k in range(3))
    prob = (failures * bad + successes * good + mixed * (1 - good - bad)).clamp(LEAST, 1 - LEAST)
    return -torch.where(tie > 0, prob.log(), (1 - prob).log())
