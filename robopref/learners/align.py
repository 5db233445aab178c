"""Trajectory-level DPO for any policy that scores chunks at shared draws.

Per pair: rho = (summed score of policy - reference) / (executed elements)^length_norm, both sides at the same noise and times.
loss = preference x pair_loss(kappa rho / scale) + anchor x cloning of winners / (2 scale)
     + proximal x relu(-rho_winner / scale)^2 + trust x (rho / scale)^2; the scale is read from the data (`calibrate`).

symbol -> name (reference: GRAPE, Zhang et al. 2024; Diffusion-DPO, Wallace et al. 2023, eq. 14; DPOP, Pal et al. 2024)
rho -> relative score | beta -> kappa / scale | lam_a -> anchor | lam_p -> proximal | lam_k -> trust
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.learners.batches import PairBatch, batches, extent, gather, prepared
from robopref.learners.pairs import AlignSettings, PairTable, check_pairs
from robopref.networks.normalizer import check_shared
from robopref.protocols import PairLoss, Policy
from robopref.train import fit
from robopref.types import Chunks, Draws

_LOOKED_AT = 256
"""Chunks with pictures that are scored at once where nothing is learned."""
_PROBED = 8
"""Trajectories on which policy and reference are compared before the first step."""


def relative_scores(
    policy: Policy, reference: Policy, chunks: Chunks, draws: Draws, length_norm: float, count: Tensor
) -> Tensor:
    """rho (B,): summed score difference per trajectory over executed elements to the power `length_norm`.

    chunks hold the same number C of rows for each of B trajectories; `count` (B,) is how many chunks each really has, so that the sum
    over a sample of C estimates the sum over all. The result lies on the CPU, where pairs are compared.
    """
    draws = prepared(policy, chunks, draws)
    with torch.no_grad():
        theirs = reference.score(chunks, draws)
    return extent(chunks, count, length_norm).relative(policy.score(chunks, draws) - theirs)


def _scored(reference: Policy, chunks: Chunks, draws: Draws) -> Tensor:
    """The reference's scores of many chunks (B,); where it looks, a block at a time: features of all pictures may not fit in memory."""
    if not reference.spec.pictures.cameras:
        return reference.score(chunks, draws).cpu()
    blocks = torch.arange(len(chunks)).split(_LOOKED_AT)
    return torch.cat([reference.score(chunks[rows], draws[rows]).cpu() for rows in blocks])


@torch.no_grad()
def calibrate(reference: Policy, table: ChunkTable, settings: AlignSettings, generator: torch.Generator) -> float:
    """The unit of rho, read from the data: standard deviation over trajectories of the reference's own score.

    A margin of one unit then means: winner and loser moved apart as far as trajectories of this data already differ. Frozen before
    the first step (a running scale would grow with rho and take the brake away); floored at the probes' standard error.
    """
    every = torch.arange(len(table))
    table, scores = table.to(device_of(reference)), []
    for _ in range(2):  # two independent sets of probes: their difference is the noise of the estimate
        chunks = gather(table, every, settings.chunks_per_trajectory, generator, settings.early)
        score = _scored(reference, chunks, reference.draw(chunks, generator)).view(len(every), -1).sum(dim=1)
        elements = chunks.mask.sum(dim=(1, 2)).cpu().view(len(every), -1).sum(dim=1).clamp(min=1)
        total = elements * table.count(every) / settings.chunks_per_trajectory
        scores.append(score / elements * total ** (1 - settings.length_norm))
    first, second = scores
    spread, noise = torch.stack(scores).mean(dim=0).std(), (first - second).std() / 2
    return max(float(spread), float(noise), 1e-8)


@torch.no_grad()
def check_zero_point(policy: Policy, reference: Policy, table: ChunkTable, settings: AlignSettings) -> None:
    """Raise `InputError` unless rho is exactly 0 before the first step, for a few trajectories spread over the table.

    Scored as training scores, so that a reference with other weights, another normaliser or noise of its own, and a policy with dropout,
    are all found out at once. Draws from a generator of its own: what follows stays what it was.
    """
    generator = torch.Generator().manual_seed(0)
    chosen = torch.linspace(0, len(table) - 1, min(len(table), _PROBED)).long()
    chunks = gather(table, chosen, 2, generator)
    draws = policy.draw(chunks, generator)
    apart = (
        policy.score(chunks, draws) - reference.score(chunks, draws)
    ).abs()  # each by itself, whatever they may share later
    if not bool((apart == 0).all()):
        raise InputError(
            f"align: got scores of policy and reference that differ by up to {float(apart.max()):.3g} before the first step, wanted "
            "exactly equal ones.\nTake the policy that the alignment starts from as reference, scored at the same noise, without dropout."
        )


def align(
    policy: Policy, reference: Policy, table: ChunkTable, pairs: PairTable, anchors: Tensor, loss: PairLoss,
    settings: AlignSettings, generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place against a frozen `reference`; yields logs, winner's and loser's rho apart.

    anchors: (W,) trajectories of the table to clone beside the pairs. Raises `InputError` without pairs, and for a reference that is not
    the policy as it is now.
    """
    check_pairs(table, pairs)
    check_shared("align", policy, reference)  # type: ignore[arg-type]
    table = table.to(device_of(policy))
    assert isinstance(policy, nn.Module)
    policy.train()
    check_zero_point(policy, reference, table, settings)
    scale = calibrate(reference, table, settings, generator)
    drawn = batches(policy, reference, table, pairs, anchors, settings, generator)

    def step(_: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = next(drawn)
        total, logs = torch.zeros(()), {"align/scale": scale}
        if batch.pairs is not None and batch.theirs is not None:
            total, logs = _pair_term(policy, batch.pairs, batch.theirs, loss, settings, scale)
        if batch.anchors is not None:
            anchor = policy.loss(*batch.anchors).mean().cpu()
            total = total + settings.anchor * anchor / (2 * scale)
            logs["align/anchor"] = anchor.item()
        return total, logs | {"align/loss": total.item()}

    yield from fit(
        policy, step, steps=settings.steps, lr=settings.lr, generator=generator, warmup=settings.steps // 20,
        autocast=settings.autocast, offload=settings.offload,
    )  # fmt: skip
    policy.eval()


def _pair_term(
    policy: Policy, batch: PairBatch, theirs: Tensor, loss: PairLoss, settings: AlignSettings, scale: float
) -> tuple[Tensor, dict[str, float]]:
    """Preference, proximal and trust terms of a batch of pairs, given the reference's scores of its chunks."""
    prob = batch.prob_first
    rho = batch.extent.relative(policy.score(batch.chunks, batch.draws) - theirs) / scale  # (2 B,)
    rho_first, rho_second = rho.chunk(2)  # (B,) each
    each = loss(settings.kappa * rho_first - batch.lead, settings.kappa * rho_second, prob)  # (B,)
    winner = torch.where(batch.first_wins, rho_first, rho_second)
    fallen = torch.relu(-winner).square()
    terms = settings.preference * each + settings.proximal * fallen
    total = (batch.weight * terms).sum() / batch.mass
    if settings.trust > 0:
        total = total + settings.trust * rho.square().mean()
    return total, {"align/preference": each.detach().mean().item(), "align/scale": scale, **_apart(rho, prob)}


def _apart(rho: Tensor, prob_first: Tensor) -> dict[str, float]:
    """Medians of both sides of pairs (rho (2 B,), prob_first (B,)), and how often the winner is ahead, ties left out."""
    both, probs = rho.tolist(), prob_first.tolist()  # few numbers: Python is faster
    first, second = both[: len(probs)], both[len(probs) :]
    won = [a if p >= 0.5 else b for a, b, p in zip(first, second, probs, strict=True)]
    lost = [b if p >= 0.5 else a for a, b, p in zip(first, second, probs, strict=True)]
    ahead = [w > v for w, v, p in zip(won, lost, probs, strict=True) if p != 0.5]
    return {
        "align/rho_winner": median_low(won),
        "align/rho_loser": median_low(lost),
        "align/pair_accuracy": sum(ahead) / max(len(ahead), 1),
    }
