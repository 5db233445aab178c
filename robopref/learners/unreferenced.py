"""Preference training without a reference: pairs compared by the policy's own denoising errors (MaPO, FKPD; `losses.reference_free`).

error = `Policy.loss`, mean over executed elements, averaged over a trajectory's sampled chunks. One network instead of two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.learners.align import AlignSettings, PairTable, check_pairs, gather
from robopref.protocols import Policy
from robopref.train import fit

ErrorLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(error_first (B,), error_second (B,), prob_first (B,), error_data (B,)) -> (B,); error_data: on random chunks of all trajectories."""


def unreferenced(
    policy: Policy, table: ChunkTable, pairs: PairTable, loss: ErrorLoss, settings: AlignSettings, generator: torch.Generator
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place; yields logs, errors of winner and loser apart. Raises `InputError` without pairs."""
    check_pairs(table, pairs)
    table = table.to(device_of(policy))

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        at = torch.randint(len(pairs), (settings.pairs_per_step,), generator=gen)
        sides = torch.cat([pairs.first[at], pairs.second[at]])  # (2 B,)
        chunks = gather(table, sides, settings.chunks_per_trajectory, gen, settings.early)
        error = policy.loss(chunks, policy.draw(chunks, gen)).cpu().view(len(sides), -1).mean(dim=1)  # (2 B,)
        data = table.chunks[torch.randint(len(table.chunks), (settings.anchor_chunks,), generator=gen)]
        held = policy.loss(data, policy.draw(data, gen)).mean().cpu().expand(len(at))  # (B,)
        first, second = error.chunk(2)
        prob, weight = pairs.prob_first[at], pairs.weight[at]
        each = loss(first, second, prob, held)  # (B,)
        total = (weight * each).sum() / weight.sum().clamp(min=1e-8)
        winner, loser = torch.where(prob >= 0.5, first, second), torch.where(prob >= 0.5, second, first)
        decided = prob != 0.5
        return total, {
            "align/loss": float(total.detach()),
            "align/error_winner": float(winner.detach().median()),
            "align/error_loser": float(loser.detach().median()),
            "align/pair_accuracy": float(((winner < loser) & decided).sum() / decided.sum().clamp(min=1)),
        }

    assert isinstance(policy, nn.Module)
    policy.train()
    yield from fit(policy, step, steps=settings.steps, lr=settings.lr, generator=generator, warmup=settings.steps // 20)
    policy.eval()
