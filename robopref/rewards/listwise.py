"""Rewards from rankings: the linear Bradley-Terry link of LiRE (Choi et al. 2024) on every pair that a ranked list implies.

P(first) = u_first / (u_first + u_second) with the utility u = 1 + mean step reward, in (0, 2). Compared with the exponential
link, the slope is steep between two bad segments and flat between two good ones. Lists are made by `labelers/insertion.py`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared, reduce_steps
from robopref.networks.mlp import mlp
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments

TINY = 1e-4
"""Smallest utility: keeps the logarithm finite where every step scores -1."""


class Listwise(Compared):
    """K networks (LeakyReLU, tanh out) of step rewards in [-1, 1]; `score` is their mean, least, or mean - 5 deviations.

    Published: width 128, 1000 answers. With a few dozen answers that width ranks new segments worse than 64.
    """

    centre: Tensor

    def __init__(
        self,
        dims: Dims,
        members: int = 3,
        width: int = 64,
        link: Literal["linear", "exponential"] = "linear",
        combine: Literal["mean", "min", "lower"] = "mean",
        use_action: bool = False,
    ) -> None:
        super().__init__()
        if link not in ("linear", "exponential") or combine not in ("mean", "min", "lower") or members < 1:
            raise InputError(
                f"Listwise: got link={link!r}, combine={combine!r}, members={members}, wanted link linear or "
                "exponential, combine mean, min or lower, members >= 1."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "link": link, "combine": combine,
            "use_action": use_action,
        }  # fmt: skip
        self.link, self.combine, self.use_action = link, combine, use_action
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration()
        self.register_buffer("centre", torch.zeros(()))
        inputs = dims.observation + (dims.action if use_action else 0)
        self.nets = nn.ModuleList(mlp((inputs, width, width, 1), nn.LeakyReLU) for _ in range(members))

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        inputs = self.normalizer.state(segments.observation)
        if self.use_action:
            inputs = torch.cat([inputs, self.normalizer.action(segments.action)], dim=-1)
        return torch.stack([net(inputs).squeeze(-1).tanh() for net in self.nets]) * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Combined step reward of the ensemble, centred, (B, T); padding scores 0."""
        each = self.members(segments)
        if self.combine == "min":
            combined = each.amin(dim=0)
        else:
            combined = each.mean(dim=0) - (5 * each.std(dim=0, correction=0) if self.combine == "lower" else 0)
        return (combined - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Log utility (linear link) or summed reward (exponential link) of segments for every member, (K, B)."""
        each = self.members(segments)
        if self.link == "exponential":
            return reduce_steps(each, segments.mask, "sum")
        return (1 + reduce_steps(each, segments.mask, "mean")).clamp(min=TINY).log()

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy, averaged over members, and what to log."""
        return preference_loss(self.logits(batch.first, batch.second), batch, share)
