"""A rater who says nothing but "this one was bad": marks on single episodes, from a scripted stand-in for a person.

What it goes by (touches that the environment reports as `cost`, or the time until success) is seen by it and by the evaluation, and by
no learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError, Trajectory

COSTS = ("contact", "length")


def contacts(trajectory: Trajectory) -> int:
    """How often the episode begins to touch what its environment watches. Raises `InputError` where the environment reports no `cost`."""
    if "cost" not in trajectory.extra:
        raise InputError(
            f"contact: got an episode of {trajectory.env or 'an environment'} without a cost, wanted one that reports it.\n"
            "Name what must not be touched, for example +env.contacts=[wall]."
        )
    touching = trajectory.extra["cost"][:, 0] > 0
    return int(touching[0]) + int((touching[1:] & ~touching[:-1]).sum())


def steps_taken(trajectory: Trajectory) -> int:
    """Steps until the first success, or all of the episode's."""
    return int(np.argmax(trajectory.success)) + 1 if trajectory.succeeded else len(trajectory)


def costs(trajectories: Sequence[Trajectory], cost: str) -> np.ndarray:
    """What each episode cost, (N,) float64: number of contacts, or steps taken."""
    of = {"contact": contacts, "length": steps_taken}
    if cost not in of:
        raise InputError(f"cost: got {cost!r}, wanted one of {', '.join(COSTS)}.")
    return np.array([of[cost](one) for one in trajectories], dtype=np.float64)


@dataclass(frozen=True)
class Marks:
    """`marks(shown)` says which episodes are bad: those that cost more than `limit`.

    limit: None until the rater has seen some (`standard`): then 0 contacts, or the median of the steps taken.
    """

    cost: str = "contact"
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.cost not in COSTS:
            raise InputError(f"Marks.cost: got {self.cost!r}, wanted one of {', '.join(COSTS)}.")

    def standard(self, shown: Sequence[Trajectory]) -> Marks:
        """The same rater with a limit from what was shown first; one who has a limit keeps it."""
        if self.limit is not None:
            return self
        return Marks(self.cost, 0.0 if self.cost == "contact" else float(np.median(costs(shown, self.cost))))

    def marks(self, shown: Sequence[Trajectory]) -> np.ndarray:
        """(N,) bool, True where the rater says "bad"; it says nothing about the others. Raises `InputError` without a limit."""
        if self.limit is None:
            raise InputError(
                "Marks: got no limit, wanted one. Let the rater see some episodes first: `standard(shown)`."
            )
        return costs(shown, self.cost) > self.limit
