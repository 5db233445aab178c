"""Reward: fit a reward model to answered pairs and rank trajectories with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import segments
from robopref.protocols import Prepared, Solved
from robopref.train import fit
from robopref.types import Dims, PreferenceBatch


class Answer(NamedTuple):
    """An answered pair, with indices into a list of trajectories."""

    first: int
    second: int
    prob_first: float
    weight: float = 1.0
    """How much it counts: how reliable its rater is, over all who answered."""


STRIDE = 4
"""Every 4th step of an episode is scored: neighbouring simulator steps are nearly equal."""


def fit_reward(
    config: dict[str, Any],
    trajectories: Sequence[Trajectory],
    answers: Sequence[Answer],
    *,
    steps: int,
    lr: float,
    seed: int,
) -> tuple[Any, list[dict[str, float]]]:
    """A reward model trained on all answers, each with its weight; returns it with the logs of its training.

    Raises `InputError` when there is no answer that counts.
    """
    from hydra.utils import instantiate

    if not any(answer.weight > 0 for answer in answers):
        raise InputError("reward: got no answered pair that counts, wanted at least one. Run `robopref label` first.")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    every = segments(trajectories, STRIDE)
    dims = Dims(every.observation.shape[-1], every.action.shape[-1])
    model = instantiate(config, _partial_=True)(dims=dims)
    live = every.mask.bool()
    model.normalizer.fit(every.observation[live], every.action[live])
    if isinstance(model, Prepared):
        model.prepare(every)
    first, second = (torch.tensor([a[k] for a in answers]) for k in range(2))
    prob, weight = (torch.tensor([a[k] for a in answers], dtype=torch.float32) for k in (2, 3))
    batch = PreferenceBatch(every[first], every[second], prob, weight)
    if isinstance(model, Solved):
        logs = [model.solve(batch)]
        return model, logs

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Mini-batches of 32 pairs."""
        if len(batch) <= 32:
            return model.loss(batch)
        return model.loss(batch[torch.randint(len(batch), (32,), generator=gen)])

    logs = list(fit(model, step, steps=steps, lr=lr, generator=generator, weight_decay=1e-2))
    return model.eval(), logs


@torch.no_grad()
def predicted_returns(model: Any, trajectories: Sequence[Trajectory]) -> np.ndarray:
    """Return of every trajectory under a reward model, averaged over its members: (N,), in logits."""
    return model.returns(segments(trajectories, STRIDE)).mean(dim=0).double().numpy()
