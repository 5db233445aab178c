"""Contrastive preference learning, the policy without a reward (Hejna et al. 2024), in its three published variants.

| variant | alpha | bias | bc | A(segment) |
|---|---|---|---|---|
| cpl | 0.1 | 0.5 | 0 | alpha sum log pi |
| cpl_bc | 0.1 | 1.0 | 1.0 | the same, with cloning beside it |
| cpl_kl | 0.2 | 0.75 | 0 | alpha sum (log pi - log pi_0), pi_0 frozen after cloning |

Training starts with cloning; at the switch the optimiser starts anew. A segment's sum is estimated from a few stratified chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.learners.clone import clone
from robopref.losses.contrastive import contrastive
from robopref.protocols import Policy
from robopref.train import fit
from robopref.types import Chunks

VARIANTS = {"cpl": (0.1, 0.5, 0.0), "cpl_bc": (0.1, 1.0, 1.0), "cpl_kl": (0.2, 0.75, 0.0)}
"""Variant -> (alpha, bias, bc), as published for states."""


@dataclass(frozen=True)
class ContrastSettings:
    """How a policy is learned from pairs of segments."""

    variant: str = "cpl"
    clone_steps: int = 1000
    steps: int = 2000
    lr: float = 3e-4
    pairs: int = 16
    """Pairs per step."""
    chunks: int = 16
    """Chunks that estimate a segment's sum."""
    clone_batch: int = 128
    alpha: float | None = None
    bias: float | None = None
    bc: float | None = None
    """Knobs that replace the variant's own."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise InputError(f"contrast: got variant={self.variant!r}, wanted one of {', '.join(VARIANTS)}.")
        if not 0 < (1.0 if self.bias is None else self.bias) <= 1:
            raise InputError(f"contrast: got bias={self.bias}, wanted one in (0, 1].")

    def knobs(self) -> tuple[float, float, float]:
        """alpha, bias, bc."""
        own = (self.alpha, self.bias, self.bc)
        alpha, bias, bc = (
            default if given is None else given for given, default in zip(own, VARIANTS[self.variant], strict=True)
        )
        return alpha, bias, bc


def contrast(
    policy: Policy, table: ChunkTable, first: Tensor, second: Tensor, prob_first: Tensor, settings: ContrastSettings,
    generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place; yields logs. first, second (N,) int64: segments of `table`; prob_first (N,).

    Raises `InputError` when there is no pair.
    """
    if len(first) == 0:
        raise InputError("contrast: got no pair, wanted at least one. Label more.")
    assert isinstance(policy, nn.Module)
    alpha, bias, bc = settings.knobs()
    if settings.clone_steps:
        yield from clone(
            policy, table, steps=settings.clone_steps, lr=settings.lr, batch=settings.clone_batch, generator=generator
        )
    table = table.to(device_of(policy))
    reference = policy.reference() if settings.variant == "cpl_kl" else None

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pick = torch.randint(len(first), (settings.pairs,), generator=gen)
        segments = torch.cat([first[pick], second[pick]])
        rows = table.sample(segments, settings.chunks, gen)  # (2B, C)
        chunks = table.chunks[rows.flatten()]
        draws = policy.draw(chunks, gen)
        score = policy.score(chunks, draws).cpu()
        relative = score if reference is None else score - _frozen(reference, chunks, draws)
        total = relative.view(rows.shape).mean(dim=1) * table.count(segments)  # (2B,), the sum over a whole segment
        one, other = (alpha * total).chunk(2)
        loss = contrastive(one, other, prob_first[pick], bias=bias).mean() - bc * score.mean()
        right = ((one > other) == (prob_first[pick] > 0.5)).float().mean()
        return loss, {"contrast/loss": float(loss.detach()), "contrast/accuracy": float(right)}

    policy.train()
    warmup = min(settings.steps // 10, 200)
    yield from fit(policy, step, steps=settings.steps, lr=settings.lr, generator=generator, warmup=warmup)
    policy.eval()


@torch.no_grad()
def _frozen(reference: Policy, chunks: Chunks, draws: object) -> Tensor:
    return reference.score(chunks, draws).cpu()  # type: ignore[arg-type]
