"""Labels for a task from answers about other tasks (cross-task preference alignment of PEARL, Liu et al. 2023), and how sure they are.

Of the source only trajectories and their labels are read; of the target only observations and actions: `fit` strips everything else,
so no reward or success of the target can leak in. One coupling per source, between all of its trajectories and all of the target's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.content import behaviour_hash
from robopref.transport import distances
from robopref.transport.gromov import Coupling, carried, couple, smoothed

Features = Callable[[Sequence[Trajectory]], np.ndarray]
"""Trajectories of one task -> (N, F), features that mean the same in every task."""

NOTHING = 1e-6
"""A largest |S| below this is rounding, not preference: then nothing is answered."""


@dataclass(frozen=True)
class Source:
    """A task whose comparisons are known."""

    trajectories: Sequence[Trajectory]
    prob_first: np.ndarray
    """(Ns, Ns): P(row preferred over column); nan where nobody was asked."""
    weight: float = 1.0
    """How much this source counts beside the others."""

    def relation(self) -> tuple[np.ndarray, np.ndarray | None]:
        """R = 2 P - 1 made antisymmetric, and which pairs are known (None: all)."""
        count = len(self.trajectories)
        if self.prob_first.shape != (count, count):
            raise InputError(
                f"Source.prob_first: got shape {self.prob_first.shape}, wanted ({count}, {count}): one label per pair."
            )
        known = ~np.isnan(self.prob_first)
        relation = np.where(known, 2 * self.prob_first - 1, 0.0)
        both = known & known.T
        relation = np.where(both, (relation - relation.T) / 2, relation - relation.T)
        known = known | known.T
        np.fill_diagonal(relation, 0.0)
        np.fill_diagonal(known, True)
        if not (known & ~np.eye(count, dtype=bool)).any():
            raise InputError("Source: got no label about two different trajectories, wanted at least one.")
        return relation, None if known.all() else known.astype(float)


@dataclass(frozen=True)
class Transferred:
    """What one transfer made, and how."""

    relation: np.ndarray
    """S (Nt, Nt) in [-1, 1], antisymmetric: 2 P(row preferred over column) - 1."""
    couplings: list[Coupling]
    agreement: np.ndarray
    """(Nt, Nt): share of the sources whose sign is that of the sum."""


@dataclass(frozen=True)
class Transfer:
    """`fit(sources, targets)`, then `label(first, second)` on those targets. prob_first = (1 + S) / 2; nan where |S| is too small.

    `coverage` is the share of all target pairs that get an answer, the surest first; `threshold` is a fixed |S| instead.
    """

    features: Features | str = "closeness"
    """A function of one task's trajectories, or the name of one: `closeness`, `relative` or `raw` (transport/distances.py)."""
    fused: float = 0.5
    """Share of the cost that compares features across the tasks; 0 is pure Gromov-Wasserstein, which cannot tell good from bad in a
    cloud that looks alike in the mirror."""
    smoothing: float = 0.5
    """Width of the neighbourhood over which labels are averaged, relative to the largest distance."""
    coverage: float = 1.0
    threshold: float = 0.0
    hard: bool = False
    """Answer 1 or 0 instead of (1 + S) / 2."""
    starts: int = 1
    seed: int = 0
    fitted: Transferred | None = None
    place: dict[str, int] = field(default_factory=dict)
    """Content of a target trajectory -> its row in `fitted`."""

    def __post_init__(self) -> None:
        if not 0 < self.coverage <= 1 or not 0 <= self.threshold <= 1 or not 0 <= self.fused < 1 or self.starts < 1:
            raise InputError(
                f"Transfer: got coverage={self.coverage}, threshold={self.threshold}, fused={self.fused}, "
                f"starts={self.starts}, wanted coverage in (0, 1], threshold in [0, 1], fused in [0, 1), starts >= 1."
            )

    def fit(self, sources: Sequence[Source], targets: Sequence[Trajectory]) -> Transfer:
        """This labeler with its answers about `targets` worked out. Raises `InputError` for features of unequal width."""
        from dataclasses import replace

        if not sources or len(targets) < 2:
            raise InputError(
                f"Transfer.fit: got {len(sources)} sources and {len(targets)} targets, wanted at least 1 and 2."
            )
        bare = [_bare(t) for t in targets]
        rows = self._features(bare)
        inside = distances.pairwise(rows)
        total, signs, couplings = np.zeros_like(inside), [], []
        for number, source in enumerate(sources):
            relation, known = source.relation()
            theirs = self._features([_bare(t) for t in source.trajectories])
            cross = _across(theirs, rows) if self.fused else None
            coupling = couple(distances.pairwise(theirs), inside, cross, self.fused, self.starts, self.seed + number)
            moved = carried(smoothed(coupling.plan, inside, self.smoothing), relation, known)
            total += source.weight * moved
            signs.append(np.sign(moved))
            couplings.append(coupling)
        total /= sum(s.weight for s in sources)
        agreement = np.mean([s == np.sign(total) for s in signs], axis=0)
        place = {behaviour_hash(t): i for i, t in enumerate(targets)}
        return replace(self, fitted=Transferred(total, couplings, agreement), place=place)

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64; nan where the transfer is not sure enough. Raises `InputError` for trajectories it was not fitted on."""
        relation = self._relation()
        at = [[self._row(t) for t in side] for side in (first, second)]
        moved = relation[at[0], at[1]] if len(first) else np.zeros(0)
        least = self.least()
        answer = 0.5 * (1 + np.sign(moved)) if self.hard else 0.5 * (1 + moved)
        same = np.array(at[0]) == np.array(at[1])
        return np.where((np.abs(moved) < least) & ~same, np.nan, answer)

    def least(self) -> float:
        """The smallest |S| that is answered; infinite when no preference was carried over at all."""
        size = np.abs(self._relation()[np.triu_indices(len(self._relation()), 1)])
        if size.max() < NOTHING:
            return np.inf
        return max(self.threshold, float(np.quantile(size, 1 - self.coverage)) if self.coverage < 1 else 0.0)

    def _features(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        if callable(self.features):
            return self.features(trajectories)
        return distances.features(trajectories, self.features)

    def _relation(self) -> np.ndarray:
        if self.fitted is None:
            raise InputError("Transfer.label: got a question before `fit`, wanted fit(sources, targets) first.")
        return self.fitted.relation

    def _row(self, trajectory: Trajectory) -> int:
        try:
            return self.place[behaviour_hash(trajectory)]
        except KeyError:
            raise InputError(
                "Transfer.label: got a trajectory that it was not fitted on, wanted one of the targets. Fit again with it."
            ) from None


def _bare(trajectory: Trajectory) -> Trajectory:
    """The trajectory without reward, success and extras: what a transfer may see."""
    steps = len(trajectory)
    return Trajectory(
        trajectory.observation, trajectory.action, np.zeros(steps, np.float32), np.zeros(steps, bool), trajectory.task
    )


def _across(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distances across two tasks, largest 1: (Ns, F), (Nt, F) -> (Ns, Nt)."""
    from scipy.spatial.distance import cdist

    if source.shape[1] != target.shape[1]:
        raise InputError(
            f"Transfer: got features of width {source.shape[1]} (source) and {target.shape[1]} (target), wanted one width.\n"
            "Use episodes of one length and features that exist in both tasks, or labeler.fused=0."
        )
    found = cdist(source, target)
    return found / max(found.max(), 1e-12)
