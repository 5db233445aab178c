"""Ranked lists by binary insertion with ternary answers (LiRE, Choi et al. 2024): few questions, many implied pairs.

A new segment is compared with a random member of the middle tie group: better goes to the upper half, worse to the lower, equal joins.
A list is closed after `budget` questions; an insertion that the budget cuts off is dropped. 100 questions rank about 28 segments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError

Answer = Callable[[int, int], float]
"""(first, second) -> prob_first; nan for no answer."""


@dataclass(frozen=True)
class RankedList:
    """Tie groups of segment indices, worst first, and how many questions they cost."""

    groups: list[list[int]]
    asked: int

    def pairs(self) -> list[tuple[int, int, float]]:
        """Every implied (first, second, prob_first)."""
        flat = [(segment, rank) for rank, group in enumerate(self.groups) for segment in group]
        return [
            (a, b, 0.5 + 0.5 * float(np.sign(rank_a - rank_b)))
            for k, (a, rank_a) in enumerate(flat)
            for b, rank_b in flat[k + 1 :]
        ]


def rank_by_insertion(
    segments: list[int], answer: Answer, budget: int, rng: np.random.Generator, tie: float = 0.0
) -> RankedList:
    """Insert `segments` one after the other until `budget` questions are spent.

    tie: |prob_first - 0.5| up to this counts as equal; "no answer" does too. Raises `InputError` for a budget below 1 or no segment.
    """
    if budget < 1 or not segments:
        raise InputError(f"insertion: got budget={budget} and {len(segments)} segments, wanted at least 1 of each.")
    groups, asked = [[segments[0]]], 0
    for new in segments[1:]:
        low, high, place = 0, len(groups), None
        while low < high and place is None:
            if asked == budget:
                return RankedList(groups, asked)
            middle = (low + high) // 2
            prob = answer(new, int(rng.choice(groups[middle])))
            asked += 1
            if np.isnan(prob) or abs(prob - 0.5) <= tie:
                place = middle
            elif prob > 0.5:
                low = middle + 1
            else:
                high = middle
        if place is None:
            groups.insert(low, [new])
        else:
            groups[place].append(new)
    return RankedList(groups, asked)
