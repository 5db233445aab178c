"""A learned reward as a rater: P(first) from a reward model, whole trajectories, the surest answers only on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import pair_batch
from robopref.protocols import Looking


@dataclass(frozen=True)
class ModelLabeler:
    """`label(first, second)` -> calibrated prob_first of a reward model; nan where it is closer to a tie than `margin`."""

    model: Any
    """A reward model; in a preset, `robopref.checkpoint.load` of its folder."""
    margin: float = 0.0
    """Least |prob_first - 0.5| that counts as an answer."""
    stride: int = 4
    """Every how many steps a trajectory is scored."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin < 0.5 or self.stride < 1:
            raise InputError(
                f"ModelLabeler: got margin={self.margin}, stride={self.stride}, wanted margin in [0, 0.5), stride >= 1."
            )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras of a model that looks."""
        return self.model.cameras if isinstance(self.model, Looking) else ()

    @torch.no_grad()
    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64; nan where the model is not sure enough."""
        if len(first) != len(second):
            raise InputError(
                f"ModelLabeler.label: got {len(first)} first and {len(second)} second, wanted as many of each."
            )
        answers = [self._block(first[i : i + 64], second[i : i + 64]) for i in range(0, len(first), 64)]
        return np.concatenate(answers) if answers else np.zeros(0)

    def _block(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        pairs = pair_batch(first, second, np.full(len(first), 0.5), np.ones(len(first)), self.stride, self.cameras)
        prob = self.model.prob_first(pairs.first, pairs.second).numpy()
        sure = (np.abs(prob - 0.5) >= self.margin) | (np.abs(prob - 0.5) < 1e-9)
        return np.where(sure, prob, np.nan)
