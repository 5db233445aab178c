"""Alignment by judgements that are no pairs: ranked rollouts of a reset, and single episodes called good or bad.

rho, its unit and the anchor are those of `learners.align`, so every head learns and the loss starts at its zero point. Losses: lists those of
`losses.listwise`, (rho (B, G), grade, mask) -> (B,); single episodes those of `losses.unpaired`, which see as much good as bad in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.learners.align import AlignSettings, calibrate, check_zero_point, gather, relative_scores
from robopref.losses import unpaired
from robopref.networks.augment import augmented
from robopref.networks.normalizer import check_shared
from robopref.protocols import ListLoss, Policy
from robopref.train import fit
from robopref.types import Chunks

Judged = Callable[[torch.Generator, float], tuple[Tensor, dict[str, float]]]
"""(generator, scale) -> mean loss of a drawn batch and what to log."""
FLAGGED = ("kto", "bco", "apo_zero", "d2o")
"""Losses on single trajectories by name."""
OWN = 4
"""Own rollouts that hold up everything else beside each bad one (D2O's K)."""


@dataclass(frozen=True)
class ListTable:
    """Rollouts of L resets with grades, as rows of a chunk table, padded to the longest list."""

    members: Tensor
    """(L, G) int64, trajectory index; where the mask is 0, any."""
    grade: Tensor
    """(L, G) float32, higher is better."""
    mask: Tensor
    """(L, G) float32, 1 at real entries."""

    def __post_init__(self) -> None:
        for name in ("grade", "mask"):
            check_shape("ListTable", name, tuple(getattr(self, name).shape), tuple(self.members.shape), "One each.")

    def __len__(self) -> int:
        return len(self.members)


def lists_of(group: Tensor, grade: Tensor) -> ListTable:
    """Lists of all trajectories (N,) that share a group, -1 being none; lists of one and of equal grades teach nothing and are left out.

    Raises `InputError` where no list is left.
    """
    found = [torch.nonzero(group == one).flatten() for one in group[group >= 0].unique()]
    found = [rows for rows in found if len(rows) > 1 and bool((grade[rows] != grade[rows[0]]).any())]
    if not found:
        raise InputError(
            "lists: got no reset with rollouts of two grades, wanted some. Label more pairs, or raise rounds.replicas."
        )
    longest = max(len(rows) for rows in found)
    members = torch.stack([torch.cat([rows, rows[:1].expand(longest - len(rows))]) for rows in found])
    mask = torch.stack([(torch.arange(longest) < len(rows)).float() for rows in found])
    return ListTable(members, grade[members].float() * mask, mask)


def align_lists(
    policy: Policy, reference: Policy, table: ChunkTable, lists: ListTable, anchors: Tensor, loss: ListLoss,
    settings: AlignSettings, generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place on ranked lists; yields logs, rho of the best and the worst of a list apart.

    A step looks at about 2 `pairs_per_step` trajectories. Raises `InputError` as `learners.align.align` does.
    """
    count = max(1, 2 * settings.pairs_per_step // lists.members.shape[1])
    tabled = table.to(device_of(policy))

    def judged(gen: torch.Generator, scale: float) -> tuple[Tensor, dict[str, float]]:
        at = torch.randint(len(lists), (count,), generator=gen)
        members, grade, mask = lists.members[at], lists.grade[at], lists.mask[at]
        rho = _rho(policy, reference, tabled, members.flatten(), settings, gen)[0] / scale
        rho = rho.view(members.shape)  # (B, G)
        best = grade.masked_fill(mask == 0, -torch.inf).argmax(dim=1, keepdim=True)
        worst = grade.masked_fill(mask == 0, torch.inf).argmin(dim=1, keepdim=True)
        won, lost = (rho.detach().gather(1, place).flatten() for place in (best, worst))
        return loss(settings.kappa * rho, grade, mask).mean(), _apart(won, lost, won > lost)

    yield from _aligned(policy, reference, tabled, anchors, judged, settings, generator)


def align_flags(
    policy: Policy, reference: Policy, table: ChunkTable, indicator: Tensor, anchors: Tensor, name: str,
    settings: AlignSettings, generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place on single trajectories called good (1) or bad (-1) by `indicator` (N,); 0 says nothing. Yields logs.

    name: kto (its baseline from chunks set against other trajectories' observations), bco (its shift is the mean reward so far), apo_zero, or
    d2o (bad ones only, held up by own rollouts). A step takes `pairs_per_step` of either side. Raises `InputError` where one is missing.
    """
    check_shape("flags", "indicator", tuple(indicator.shape), (len(table),), "One flag per trajectory.")
    good, bad = (torch.nonzero(sign * indicator > 0).flatten() for sign in (1, -1))
    if name not in FLAGGED or len(bad) == 0 or (name != "d2o" and len(good) == 0):
        raise InputError(
            f"flags: got {name!r} with {len(good)} good and {len(bad)} bad trajectories, wanted one of {', '.join(FLAGGED)} and some "
            "of both (d2o: some bad ones). Label more pairs."
        )
    judge = _flagged(name)
    others = good if name != "d2o" else torch.arange(len(table))
    tabled = table.to(device_of(policy))

    def judged(gen: torch.Generator, scale: float) -> tuple[Tensor, dict[str, float]]:
        each = settings.pairs_per_step
        above = others[torch.randint(len(others), (each * (OWN if name == "d2o" else 1),), generator=gen)]
        below = bad[torch.randint(len(bad), (each,), generator=gen)]
        rho, mismatched = _rho(policy, reference, tabled, torch.cat([above, below]), settings, gen, name == "kto")
        unit = settings.kappa / scale
        up, down = rho.split([len(above), each])
        won, lost = up.detach() / scale, down.detach() / scale
        right = (won[:, None] > lost[None]).flatten()
        return judge(unit * up, unit * down, unit * mismatched).mean(), _apart(won, lost, right)

    yield from _aligned(policy, reference, tabled, anchors, judged, settings, generator)


def _flagged(name: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """(r of good or own ones, r of bad ones, r of mismatched chunks) -> loss of each trajectory, or of each bad one."""
    total, number = 0.0, 0  # of all r so far: BCO's shift is their running mean

    def each(good: Tensor, bad: Tensor, mismatched: Tensor) -> Tensor:
        nonlocal total, number
        if name == "d2o":  # the published 0.1 is for sums over a sequence; r is per element and in scales here
            return unpaired.d2o(bad, good.view(len(bad), -1), beta=1.0, alpha=1.0)
        r, flag = torch.cat([good, bad]), torch.cat([torch.ones_like(good), torch.zeros_like(bad)])
        if name == "kto":
            return unpaired.kto(r, flag, baseline=unpaired.kto_baseline(mismatched))
        if name == "apo_zero":
            return unpaired.apo_zero(r, flag)
        total, number = total + float(r.detach().sum()), number + len(r)
        return unpaired.bco(r, flag, shift=total / number)

    return each


def _aligned(
    policy: Policy, reference: Policy, table: ChunkTable, anchors: Tensor, judged: Judged, settings: AlignSettings,
    generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Judgements and the anchor of `learners.align`, step by step."""
    check_shared("align", policy, reference)  # type: ignore[arg-type]
    assert isinstance(policy, nn.Module)
    policy.train()
    check_zero_point(policy, reference, table, settings)
    scale = calibrate(reference, table, settings, generator)

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        loss, logs = judged(gen, scale)
        logs |= {"align/preference": float(loss.detach()), "align/scale": scale}
        total = settings.preference * loss
        if settings.anchor > 0:
            chosen = anchors[torch.randint(len(anchors), (settings.anchor_chunks,), generator=gen)]
            rows = augmented(gather(table, chosen, 1, gen, settings.early), policy.spec.pictures, gen)
            anchor = policy.loss(rows, policy.draw(rows, gen)).mean().cpu()
            total = total + settings.anchor * anchor / (2 * scale)
            logs["align/anchor"] = float(anchor.detach())
        return total, logs | {"align/loss": float(total.detach())}

    yield from fit(
        policy, step, steps=settings.steps, lr=settings.lr, generator=generator, warmup=settings.steps // 20,
        autocast=settings.autocast, offload=settings.offload,
    )  # fmt: skip
    policy.eval()


def _rho(
    policy: Policy, reference: Policy, table: ChunkTable, trajectories: Tensor, settings: AlignSettings, generator: torch.Generator,
    mismatch: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """rho (B,) of trajectories, and with `mismatch` that of their chunks at the next trajectory's observations, without gradient (else empty)."""
    norm, count = settings.length_norm, table.count(trajectories)
    chunks = gather(table, trajectories, settings.chunks_per_trajectory, generator, settings.early)
    draws = policy.draw(chunks, generator)
    rho = relative_scores(policy, reference, chunks, draws, norm, count)
    if not mismatch:
        return rho, rho.new_zeros(0)
    other = torch.arange(len(chunks)).roll(settings.chunks_per_trajectory)
    strange: Chunks = replace(chunks, observation=chunks[other].observation)
    with torch.no_grad():
        return rho, relative_scores(policy, reference, strange, draws, norm, count)


def _apart(won: Tensor, lost: Tensor, right: Tensor) -> dict[str, float]:
    return {
        "align/rho_winner": float(won.median()),
        "align/rho_loser": float(lost.median()),
        "align/pair_accuracy": float(right.float().mean()),
    }
