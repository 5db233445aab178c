"""What the steps of an alignment look at, made for some steps at once.

Random numbers are drawn step by step, in an order that does not depend on how many steps are made together. All else that no learning weight
moves (rows, noised chunks, scores of the reference) follows for all of them in one go: a step's own operations are so small that their
number, not their size, is what they cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from robopref import processes
from robopref.data.windows import ChunkTable
from robopref.learners.pairs import AlignSettings, PairTable
from robopref.networks.augment import augmented
from robopref.protocols import Policy, Preparing
from robopref.types import Chunks, Draws, Observation, joined_draws

_AHEAD = 16
"""Steps that are made at once; one where the policy looks, because pictures are large."""


@dataclass(frozen=True)
class Extent:
    """What sums over C chunks of each of B trajectories stand for."""

    scale_up: Tensor
    """(B,), chunks that a trajectory has, per chunk that was looked at."""
    divisor: Tensor
    """(B,), executed elements of the whole trajectory to the power `length_norm`."""

    def relative(self, difference: Tensor) -> Tensor:
        """rho (B,) of differences of scores (B C,), on the CPU, where pairs are compared."""
        per_chunk = difference.cpu().view(len(self.scale_up), -1)  # (B, C)
        return per_chunk.sum(dim=1) * self.scale_up / self.divisor

    def split(self, trajectories: int) -> list[Extent]:
        """Parts of so many trajectories each."""
        return list(map(Extent, self.scale_up.split(trajectories), self.divisor.split(trajectories)))


@dataclass(frozen=True)
class PairBatch:
    """B random pairs, of several processes this one's share: both sides one after the other, C chunks of each trajectory."""

    chunks: Chunks
    """2 B C rows."""
    draws: Draws
    extent: Extent
    """Of the 2 B trajectories."""
    prob_first: Tensor
    """(B,)."""
    first_wins: Tensor
    """(B,) bool, a tie for the first."""
    lead: Tensor
    """(B,), see `PairTable`."""
    weight: Tensor
    """(B,), times the number of processes, because gradients are averaged over them."""
    mass: Tensor
    """(), what all pairs of the step weigh, at least 1e-8."""


@dataclass(frozen=True)
class Batch:
    """All that one step looks at."""

    pairs: PairBatch | None
    theirs: Tensor | None
    """(2 B C,), the reference's scores of the pairs' chunks."""
    anchors: tuple[Chunks, Draws] | None
    """What is cloned beside the pairs."""


def gather(
    table: ChunkTable, trajectories: Tensor, per_trajectory: int, generator: torch.Generator, early: float = 0.0
) -> Chunks:
    """Chunks (B * C) of trajectories (B,), C stratified in time per trajectory (see `ChunkTable.sample`), row-major."""
    return table.chunks[table.sample(trajectories, per_trajectory, generator, early).flatten()]


def prepared(policy: Policy, chunks: Chunks, draws: Draws) -> Draws:
    """The draws, with what of a policy's scores can be computed before its weights are known."""
    return policy.prepared(chunks, draws) if isinstance(policy, Preparing) else draws


def extent(chunks: Chunks, count: Tensor, length_norm: float) -> Extent:
    """Of chunks that hold equally many rows of each of B trajectories; `count` (B,) is how many each really has."""
    trajectories = len(count)
    scale_up = count / (len(chunks) // trajectories)
    executed = chunks.mask.reshape(trajectories, -1).sum(dim=1).cpu()
    return Extent(scale_up, (executed.clamp(min=1) * scale_up) ** length_norm)


def batches(
    policy: Policy, reference: Policy, table: ChunkTable, pairs: PairTable, anchors: Tensor, settings: AlignSettings,
    generator: torch.Generator,
) -> Iterator[Batch]:  # fmt: skip
    """One batch for each of `settings.steps` steps; the table lies where the policy computes, anchors (W,) are trajectories of it."""
    ahead = 1 if policy.spec.pictures.cameras else _AHEAD
    compared = settings.preference + settings.proximal + settings.trust > 0
    scored = _blank(table, 2 * settings.pairs_per_step * settings.chunks_per_trajectory)
    cloned = _blank(table, settings.anchor_chunks)

    def numbers() -> tuple[_PairNumbers | None, _AnchorNumbers | None]:
        some = _pair_numbers(policy, len(pairs), scored, settings, generator) if compared else None
        if settings.anchor == 0:
            return some, None
        return some, _anchor_numbers(policy, table, anchors, cloned, settings, generator)

    for begin in range(0, settings.steps, ahead):
        drawn = [numbers() for _ in range(min(ahead, settings.steps - begin))]
        some = _pair_batches(policy, table, pairs, settings, [one for one, _ in drawn if one is not None])
        with torch.no_grad():
            theirs = [reference.score(one.chunks, one.draws) for one in some]
        clones = _anchor_batches(policy, table, settings, [one for _, one in drawn if one is not None])
        yield from (Batch(*parts) for parts in zip_longest(some, theirs, clones))


class _PairNumbers(NamedTuple):
    """What chance decides of a step's pairs: which (B,), where in their trajectories (2 B, C), the probes of 2 B C chunks."""

    at: Tensor
    where: Tensor
    draws: Draws


class _AnchorNumbers(NamedTuple):
    """What chance decides of a step's anchors: which trajectories (N,), where in them (N, 1), changed pictures, the probes."""

    trajectories: Tensor
    where: Tensor
    changed: Chunks | None
    draws: Draws


def _blank(table: ChunkTable, count: int) -> Chunks:
    """Chunks by whose number and shape probes are drawn; nothing is copied."""
    chunks = table.chunks
    parts = (chunks.observation.state, chunks.action, chunks.mask)
    state, action, mask = (part[:1].expand(count, -1, -1) for part in parts)
    return Chunks(Observation(state), action, mask)


def _pair_numbers(
    policy: Policy, pairs: int, shape: Chunks, settings: AlignSettings, generator: torch.Generator
) -> _PairNumbers:
    at = torch.randint(pairs, (settings.pairs_per_step,), generator=generator)
    where = torch.rand(2 * len(at), settings.chunks_per_trajectory, generator=generator)
    return _PairNumbers(at, where, policy.draw(shape, generator))


def _anchor_numbers(
    policy: Policy, table: ChunkTable, anchors: Tensor, shape: Chunks, settings: AlignSettings, generator: torch.Generator
) -> _AnchorNumbers:  # fmt: skip
    chosen = anchors[torch.randint(len(anchors), (settings.anchor_chunks,), generator=generator)]
    where = torch.rand(len(chosen), 1, generator=generator)
    changed = None
    if policy.spec.pictures.cameras:  # cloned from, with changes by chance; what is scored is never changed
        rows = table.chunks[table.rows(chosen, where, settings.early).flatten()]
        changed = augmented(rows, policy.spec.pictures, generator)
    return _AnchorNumbers(chosen, where, changed, policy.draw(shape, generator))


def _pair_batches(
    policy: Policy, table: ChunkTable, pairs: PairTable, settings: AlignSettings, drawn: Sequence[_PairNumbers]
) -> list[PairBatch]:
    """The pairs of several steps, of each this process's share."""
    if not drawn:
        return []
    mine = processes.share(settings.pairs_per_step, "align.pairs_per_step")
    kept = _rows_of(mine, settings.pairs_per_step, settings.chunks_per_trajectory)
    at = torch.stack([one.at for one in drawn])  # (S, B)
    sides = torch.stack([pairs.first[at], pairs.second[at]], dim=1)  # (S, 2, B)
    rows = table.rows(sides.flatten(), torch.cat([one.where for one in drawn]), settings.early).view(len(drawn), -1)
    chunks = table.chunks[rows[:, kept].flatten()]
    draws = prepared(policy, chunks, joined_draws([one.draws[kept] for one in drawn]))
    stand_for = extent(chunks, table.count(sides[:, :, mine].flatten()), settings.length_norm)
    per_step, weight, prob = len(chunks) // len(drawn), pairs.weight[at], pairs.prob_first[at][:, mine]
    return [
        PairBatch(*parts)
        for parts in zip(
            chunks.split(per_step),
            draws.split(per_step),
            stand_for.split(len(stand_for.divisor) // len(drawn)),
            prob.unbind(),
            (prob >= 0.5).unbind(),
            pairs.lead[at][:, mine].unbind(),
            (processes.count() * weight[:, mine]).unbind(),
            [one.sum().clamp(min=1e-8) for one in weight.unbind()],
            strict=True,
        )
    ]


def _rows_of(pairs: slice, count: int, per_trajectory: int) -> Tensor | slice:
    """Rows of the chunks of some pairs, where rows go through both sides of `count` pairs, `per_trajectory` each; all: nothing is copied."""
    if pairs == slice(None):
        return slice(None)
    return torch.arange(2 * count * per_trajectory).view(2, count, per_trajectory)[:, pairs].flatten()


def _anchor_batches(
    policy: Policy, table: ChunkTable, settings: AlignSettings, drawn: Sequence[_AnchorNumbers]
) -> list[tuple[Chunks, Draws]]:
    """What is cloned in several steps, of each this process's share."""
    if not drawn:
        return []
    mine = processes.share(settings.anchor_chunks, "align.anchor_chunks")
    trajectories = torch.cat([one.trajectories[mine] for one in drawn])
    where = torch.cat([one.where[mine] for one in drawn])
    changed = drawn[0].changed  # where there are pictures, steps are made one by one
    chunks = (
        table.chunks[table.rows(trajectories, where, settings.early).flatten()] if changed is None else changed[mine]
    )
    draws = prepared(policy, chunks, joined_draws([one.draws[mine] for one in drawn]))
    per_step = len(chunks) // len(drawn)
    return list(zip(chunks.split(per_step), draws.split(per_step), strict=True))
