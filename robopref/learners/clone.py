"""Behaviour cloning of chunks: the policy's own denoising (or likelihood) loss on what was executed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from robopref import processes
from robopref.data.windows import ChunkTable
from robopref.device import device_of
from robopref.networks.augment import augmented
from robopref.protocols import Policy
from robopref.train import fit


def fit_normalizer(policy: nn.Module, table: ChunkTable) -> None:
    """Freeze the policy's normaliser on the chunks it will be cloned from."""
    live = table.chunks.mask.bool().all(dim=-1)  # (B, H)
    policy.normalizer.fit(table.chunks.observation.state[:, -1], table.chunks.action[live])  # type: ignore[operator, union-attr]


def clone(
    policy: Policy,
    table: ChunkTable,
    *,
    steps: int,
    lr: float,
    batch: int,
    generator: torch.Generator,
    ema: float = 0.0,
    autocast: bool = False,
) -> Iterator[dict[str, float]]:
    """Train `policy` in place for `steps` batches of random chunks; yields logs.

    ema: decay of an exponential moving average of the weights, which the policy ends with (0: none). autocast: see `train.fit`.
    """
    from diffusers.training_utils import EMAModel

    assert isinstance(policy, nn.Module)
    mine = processes.share(batch, "clone.batch")
    table = table.to(device_of(policy))
    average = EMAModel(policy.parameters(), decay=ema, use_ema_warmup=True, power=0.75) if ema else None

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = torch.randint(len(table.chunks), (batch,), generator=gen)
        chunks = augmented(table.chunks[rows], policy.spec.pictures, gen)
        draws = policy.draw(chunks, gen)
        loss = policy.loss(chunks[mine], draws[mine]).mean()
        return loss, {"clone/loss": float(loss.detach())}

    policy.train()
    for logs in fit(
        policy, step, steps=steps, lr=lr, generator=generator, warmup=min(100, steps // 10), autocast=autocast
    ):
        if average is not None:
            average.step(policy.parameters())
        yield logs
    if average is not None:
        average.copy_to(policy.parameters())
    policy.eval()
