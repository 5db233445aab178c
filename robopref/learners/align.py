"""Trajectory-level DPO for any policy that scores chunks at shared draws.

Per pair: rho = (summed score of policy - reference) / (executed elements)^length_norm, both sides at the same noise and times.
loss = preference x pair_loss(kappa rho / scale) + anchor x cloning of winners / (2 scale)
     + proximal x relu(-rho_winner / scale)^2 + trust x (rho / scale)^2; the scale is read from the data (`calibrate`).

symbol -> name (reference: GRAPE, Zhang et al. 2024; Diffusion-DPO, Wallace et al. 2023, eq. 14; DPOP, Pal et al. 2024)
rho -> relative score | beta -> kappa / scale | lam_a -> anchor | lam_p -> proximal | lam_k -> trust
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median_low

import torch
from torch import Tensor, nn

from robopref import processes
from robopref.arrays import InputError, check_shape
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.networks.augment import augmented
from robopref.networks.normalizer import check_shared
from robopref.protocols import Beside, PairLoss, Policy
from robopref.train import fit
from robopref.types import Chunks, Draws

_LOOKED_AT = 256
"""Chunks with pictures that are scored at once where nothing is learned."""
_PROBED = 8
"""Trajectories on which policy and reference are compared before the first step."""


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


def gather(
    table: ChunkTable, trajectories: Tensor, per_trajectory: int, generator: torch.Generator, early: float = 0.0
) -> Chunks:
    """Chunks (B * C) of trajectories (B,), C stratified in time per trajectory (see `ChunkTable.sample`), row-major."""
    return table.chunks[table.sample(trajectories, per_trajectory, generator, early).flatten()]


def _both(policy: Policy, reference: Policy, chunks: Chunks, draws: Draws) -> tuple[Tensor, Tensor]:
    """Scores (B,) of the policy and, without gradient, of its reference."""
    if isinstance(policy, Beside):
        return policy.score_beside(reference, chunks, draws)
    with torch.no_grad():
        theirs = reference.score(chunks, draws)
    return policy.score(chunks, draws), theirs


def relative_scores(
    policy: Policy,
    reference: Policy,
    chunks: Chunks,
    draws: Draws,
    trajectories: int,
    length_norm: float,
    count: Tensor,
) -> Tensor:
    """rho (B,): summed score difference per trajectory over executed elements to the power `length_norm`.

    chunks hold the same number C of rows for each of B trajectories; `count` (B,) is how many chunks each really has, so that the sum
    over a sample of C estimates the sum over all. The result lies on the CPU, where pairs are compared.
    """
    mine, theirs = _both(policy, reference, chunks, draws)
    difference = (mine - theirs).cpu().view(trajectories, -1)  # (B, C)
    scale_up = count / difference.shape[1]
    executed = chunks.mask.reshape(trajectories, -1).sum(dim=1).cpu()
    elements = executed.clamp(min=1) * scale_up  # (B,)
    return difference.sum(dim=1) * scale_up / elements**length_norm


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

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        if settings.preference + settings.proximal + settings.trust > 0:
            total, logs = _pair_term(policy, reference, table, pairs, loss, settings, scale, gen)
        else:
            total, logs = torch.zeros(()), {"align/scale": scale}
        if settings.anchor > 0:
            rows = _anchor_rows(table, anchors, settings.anchor_chunks, settings.early, gen)
            rows = augmented(rows, policy.spec.pictures, gen)  # cloned from; what is scored is never changed
            draws, mine = policy.draw(rows, gen), processes.share(len(rows), "align.anchor_chunks")
            anchor = policy.loss(rows[mine], draws[mine]).mean().cpu()
            total = total + settings.anchor * anchor / (2 * scale)
            logs["align/anchor"] = float(anchor.detach())
        return total, logs | {"align/loss": float(total.detach())}

    yield from fit(
        policy, step, steps=settings.steps, lr=settings.lr, generator=generator, warmup=settings.steps // 20,
        autocast=settings.autocast, offload=settings.offload,
    )  # fmt: skip
    policy.eval()


def _anchor_rows(table: ChunkTable, anchors: Tensor, count: int, early: float, generator: torch.Generator) -> Chunks:
    chosen = anchors[torch.randint(len(anchors), (count,), generator=generator)]
    return gather(table, chosen, 1, generator, early)


def _rows_of(pairs: slice, count: int, per_trajectory: int) -> Tensor | slice:
    """Rows of the chunks of some pairs, where rows go through both sides of `count` pairs, `per_trajectory` each; all: nothing is copied."""
    if pairs == slice(None):
        return slice(None)
    return torch.arange(2 * count * per_trajectory).view(2, count, per_trajectory)[:, pairs].flatten()


def _pair_term(
    policy: Policy, reference: Policy, table: ChunkTable, pairs: PairTable, loss: PairLoss,
    settings: AlignSettings, scale: float, generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:  # fmt: skip
    """Preference, proximal and trust terms of a random batch of pairs (of this process's share of them)."""
    at = torch.randint(len(pairs), (settings.pairs_per_step,), generator=generator)
    sides = torch.cat([pairs.first[at], pairs.second[at]])  # (2 B,)
    chunks = gather(table, sides, settings.chunks_per_trajectory, generator, settings.early)
    draws = policy.draw(chunks, generator)
    mine = processes.share(len(at), "align.pairs_per_step")
    weight, prob, lead = pairs.weight[at], pairs.prob_first[at][mine], pairs.lead[at][mine]
    rows = _rows_of(mine, len(at), settings.chunks_per_trajectory)
    sides = sides.view(2, -1)[:, mine].flatten()
    count = table.count(sides)
    rho = relative_scores(policy, reference, chunks[rows], draws[rows], len(sides), settings.length_norm, count) / scale
    rho_first, rho_second = rho.chunk(2)  # (B,) each
    each = loss(settings.kappa * rho_first - lead, settings.kappa * rho_second, prob)  # (B,)
    winner = torch.where(prob >= 0.5, rho_first, rho_second)
    fallen = torch.relu(-winner).square()
    terms = settings.preference * each + settings.proximal * fallen
    total = (processes.count() * weight[mine] * terms).sum() / weight.sum().clamp(min=1e-8)
    if settings.trust > 0:
        total = total + settings.trust * rho.square().mean()
    return total, {"align/preference": float(each.detach().mean()), "align/scale": scale, **_apart(rho, prob)}


def _apart(rho: Tensor, prob_first: Tensor) -> dict[str, float]:
    """Medians of both sides of pairs (rho (2 B,), prob_first (B,)), and how often the winner is ahead, ties left out."""
    first, second = rho[: len(prob_first)].tolist(), rho[len(prob_first) :].tolist()  # few numbers: Python is faster
    probs = prob_first.tolist()
    won = [a if p >= 0.5 else b for a, b, p in zip(first, second, probs, strict=True)]
    lost = [b if p >= 0.5 else a for a, b, p in zip(first, second, probs, strict=True)]
    ahead = [w > v for w, v, p in zip(won, lost, probs, strict=True) if p != 0.5]
    return {
        "align/rho_winner": median_low(won),
        "align/rho_loser": median_low(lost),
        "align/pair_accuracy": sum(ahead) / max(len(ahead), 1),
    }
