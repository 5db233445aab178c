"""Learn from preferences or advantages by conditioning on them (RECAP, Physical Intelligence 2025): cloning with an indicator, no likelihood.

loss = -log pi(a; I, o) with I dropped (0) with probability `drop`: in expectation -log pi(a; o) - alpha log pi(a; I, o), alpha = (1 - drop) / drop.
Losers are learned too, as what not preferred looks like; at run time the policy is asked for I = 1, with guidance.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robopref.arrays import InputError, check_shape
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.learners.align import PairTable
from robopref.policies.conditioned import Conditioned
from robopref.train import fit


def indicators_from_pairs(pairs: PairTable, trajectories: int) -> Tensor:
    """+1 for trajectories that won more than they lost, -1 for the others that were compared, 0 for ties and the unasked: (N,)."""
    net = torch.zeros(trajectories)
    lead = (2 * pairs.prob_first - 1) * pairs.weight
    net.index_add_(0, pairs.first, lead)
    net.index_add_(0, pairs.second, -lead)
    return net.sign()


def indicators_from_advantage(advantage: Tensor, top: float = 0.3) -> Tensor:
    """+1 for the `top` share of advantages, -1 for the rest, (N,) -> (N,): RECAP's threshold. One per trajectory or per chunk."""
    if not 0 < top < 1:
        raise InputError(f"indicators_from_advantage.top: got {top}, wanted a share between 0 and 1.")
    return torch.where(advantage > torch.quantile(advantage.double(), 1 - top), 1.0, -1.0)


def condition(
    policy: Conditioned, table: ChunkTable, indicator: Tensor, *, steps: int, lr: float, batch: int, generator: torch.Generator,
    drop: float = 0.1,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place on all chunks of a table; yields logs.

    indicator: in [-1, 1], 0 where nothing is known, one per trajectory (N,) or per chunk of the table. Raises `InputError` for another
    length, for a drop outside (0, 1], and where nothing is preferred.
    """
    table, rows = table.to(device_of(policy)), _rows(table, indicator)
    if not 0 < drop <= 1:
        raise InputError(
            f"condition.drop: got {drop}, wanted a probability above 0 (guidance needs the policy without condition)."
        )
    if not bool((rows > 0).any()):
        raise InputError(
            "condition: got no preferred trajectory, wanted at least one indicator above 0. Label more pairs."
        )

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        at = torch.randint(len(table.chunks), (batch,), generator=gen)
        chunks = table.chunks[at]
        said = torch.where(torch.rand(batch, generator=gen) < drop, 0.0, rows[at])
        each = policy.told_loss(chunks, policy.draw(chunks, gen), said.to(chunks.action.device)).cpu()  # (B,)
        logs = {"condition/loss": float(each.detach().mean())}
        for name, chosen in (("preferred", said > 0), ("rejected", said < 0), ("unsaid", said == 0)):
            if bool(chosen.any()):
                logs[f"condition/{name}"] = float(each.detach()[chosen].mean())
        return each.mean(), logs

    policy.train()
    yield from fit(policy, step, steps=steps, lr=lr, generator=generator, warmup=steps // 20)
    policy.eval()


def _rows(table: ChunkTable, indicator: Tensor) -> Tensor:
    """The indicator of every chunk, (rows,)."""
    if len(indicator) == len(table):
        owner = torch.repeat_interleave(torch.arange(len(table)), table.count(torch.arange(len(table))))
        indicator = indicator[owner]
    check_shape(
        "condition", "indicator", tuple(indicator.shape), (len(table.chunks),), "One per trajectory or per chunk."
    )
    if bool((indicator.abs() > 1).any()):
        raise InputError(
            "condition.indicator: got a value outside [-1, 1], wanted -1 rejected to 1 preferred. Scale advantages first."
        )
    return indicator.float()
