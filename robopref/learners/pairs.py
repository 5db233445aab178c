"""What an alignment is given: its strengths, and compared trajectories as rows of a chunk table."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robopref.arrays import InputError, check_shape
from robopref.data.windows import ChunkTable


@dataclass(frozen=True)
class AlignSettings:
    """How strongly pairs pull and what holds the policy. All strengths are relative to a scale read from the data."""

    steps: int = 400
    lr: float = 3e-4
    pairs_per_step: int = 16
    chunks_per_trajectory: int = 8
    preference: float = 1.0
    """Weight of the pair term; 0 gives the ablation without pairs."""
    kappa: float = 1.0
    """Strength: a margin of one scale (see `calibrate`) has logit kappa."""
    length_norm: float = 1.0
    """eta: 0 sums a trajectory's score, 1 averages it over executed elements."""
    anchor: float = 1.0
    """Cloning of winners, in units of the same scale; 0 with proximal 0 is plain DPO."""
    anchor_chunks: int = 64
    proximal: float = 1.0
    """Penalty on winners that become less likely than under the reference: relu(-rho_winner / scale)^2."""
    early: float = 0.0
    """How much more often early chunks of a trajectory are looked at, density ~ exp(-early x position): what is done after the task is
    done teaches nothing, and where that begins nobody tells. 0: all alike; otherwise scores weigh a trajectory's chunks so."""
    autocast: bool = False
    """Compute products in bfloat16 (`train.fit`)."""
    offload: bool = False
    """Keep the optimiser in the processor's memory (`train.fit`)."""
    trust: float = 0.0
    """Penalty on the squared rho of both sides, in scales: holds the policy near the reference whatever the labels say."""

    def __post_init__(self) -> None:
        if min(self.steps, self.pairs_per_step, self.chunks_per_trajectory, self.anchor_chunks) < 1 or self.kappa <= 0:
            raise InputError(f"AlignSettings: got {self}, wanted counts >= 1 and kappa > 0.")
        if self.preference == 0 and self.anchor == 0:
            raise InputError("AlignSettings: got preference=0 and anchor=0, wanted something to learn from.")
        if min(self.preference, self.anchor, self.proximal, self.trust, self.early) < 0:
            raise InputError(f"AlignSettings: got a negative weight in {self}, wanted weights >= 0.")


@dataclass(frozen=True)
class PairTable:
    """Compared trajectories as rows of a chunk table."""

    first: Tensor
    """(N,) int64, trajectory index in the table."""
    second: Tensor
    """(N,) int64."""
    prob_first: Tensor
    """(N,) float32 in [0, 1]."""
    weight: Tensor
    """(N,) float32."""
    lead: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(N,) float32, how far further objectives put the first side ahead, in units of kappa rho (MODPO's margin); left out: 0."""

    def __post_init__(self) -> None:
        if len(self.lead) == 0:
            object.__setattr__(self, "lead", torch.zeros(len(self.first)))
        for name in ("second", "prob_first", "weight", "lead"):
            check_shape("PairTable", name, tuple(getattr(self, name).shape), (len(self.first),), "One value per pair.")
        if bool((same := self.first == self.second).any()):
            raise InputError(
                f"PairTable: got trajectory {int(self.first[same][0])} as winner and loser of one pair, wanted two. Drop such pairs."
            )

    def __len__(self) -> int:
        return len(self.first)


def check_pairs(table: ChunkTable, pairs: PairTable) -> None:
    """Raise `InputError` for no pair, one outside the table, and one in which nothing was executed."""
    if len(pairs) == 0:
        raise InputError("align: got no answered pair, wanted at least one. Label more pairs.")
    sides = torch.cat([pairs.first, pairs.second])
    if int(sides.min()) < 0 or int(sides.max()) >= len(table):
        raise InputError(
            f"align: got a pair with trajectory {int(sides.max())} of {len(table)}. Use the table's own pairs."
        )
    ran = torch.cat([torch.zeros(1), table.chunks.mask.sum(dim=(1, 2)).cpu().cumsum(0)])
    for one in sides.unique().tolist():
        if float(ran[table.start[one + 1]] - ran[table.start[one]]) == 0:
            raise InputError(
                f"align: got an empty mask, no executed step in trajectory {one}, wanted at least one. Drop its pairs."
            )
