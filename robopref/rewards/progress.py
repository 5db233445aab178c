"""For a few dozen labels on demonstrations: a preference is a linear function of progress, and progress needs no labels.

A network f(s) learns from the order of time alone how far a demonstration has come: f(s_{t+d}) - f(s_t) = d / T inside every segment
(a regression form of time-contrastive learning, Sermanet et al. 2018). Labels then fit one weight for where a segment is (mean of f), one
for how fast it goes (its rise), and a ridge-damped linear term of the standardised state. f takes no gradient from the labels.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared, both, reduce_steps
from robopref.networks.mlp import mlp
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments

GAIN = 5.0
"""Weights are learned divided by this, so that a few hundred steps of Adam can carry them as far as the labels ask."""


class Progress(Compared):
    """K networks of progress, each with its own weights: step reward = w_p f + w_r T (f' - f) + w_x x."""

    centre: Tensor

    def __init__(
        self,
        dims: Dims,
        members: int = 4,
        width: int = 64,
        ridge: float = 0.1,
        lags: tuple[float, ...] = (0.1, 0.3, 0.6),
    ) -> None:
        """ridge: penalty on the weights of the state. lags: distances in time that progress is learned at, as shares of a segment."""
        super().__init__()
        lags = tuple(float(lag) for lag in lags)
        if members < 1 or ridge < 0 or not lags or not all(0 < lag < 1 for lag in lags):
            raise InputError(
                f"Progress: got members={members}, ridge={ridge}, lags={lags}, wanted members >= 1, ridge >= 0, lags in (0, 1)."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "ridge": ridge, "lags": list(lags),
        }  # fmt: skip
        self.ridge, self.lags = ridge, lags
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration()
        self.register_buffer("centre", torch.zeros(()))
        self.nets = nn.ModuleList(
            nn.ModuleDict(
                {
                    "progress": mlp((dims.observation, width, width, 1)),
                    "state": nn.Linear(dims.observation, 1, bias=False),
                    "weights": nn.Linear(2, 1, bias=False),
                }
            )
            for _ in range(members)
        )
        for net in self.nets:
            nn.init.normal_(net["state"].weight, std=1e-3)  # type: ignore[index]
            nn.init.normal_(net["weights"].weight, std=1e-2)  # type: ignore[index]

    def progress(self, segments: Segments) -> Tensor:
        """How far each step has come, for every member, (K, B, T); one unit is the length of a training segment."""
        state = self.normalizer.state(segments.observation)
        return torch.stack([net["progress"](state).squeeze(-1) for net in self.nets]) * segments.mask  # type: ignore[index]

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        return self._rewards(segments, self.progress(segments))

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the ensemble, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Mean step reward of segments for every member, (K, B)."""
        return reduce_steps(self.members(segments), segments.mask, "mean")

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the preferences, the order of time, and the ridge; logs (`reward/loss` is the first alone)."""
        joined = both(batch.first, batch.second)
        progress = self.progress(joined)
        one, other = reduce_steps(self._rewards(joined, progress), joined.mask, "mean").chunk(2, dim=1)
        loss, logs = preference_loss(one - other, batch, share)
        time = self._time_loss(progress, joined.mask)
        ridge = self.ridge * torch.stack([GAIN**2 * n["state"].weight.square().sum() for n in self.nets]).mean()  # type: ignore[index]
        return loss + time + ridge, {**logs, "reward/time_loss": float(time.detach())}

    def _rewards(self, segments: Segments, progress: Tensor) -> Tensor:
        state = self.normalizer.state(segments.observation)
        known = progress.detach()  # labels weigh progress, they do not define it
        followed = nn.functional.pad(segments.mask[:, 1:], (0, 1))
        steps = segments.mask.sum(dim=1, keepdim=True)
        rise = (
            (nn.functional.pad(known[..., 1:], (0, 1)) - known) * followed * steps
        )  # (K, B, T), its mean is the whole rise
        parts = torch.stack([known, rise], dim=-1)  # (K, B, T, 2)
        made = [
            GAIN * (net["weights"](part) + net["state"](state)).squeeze(-1)  # type: ignore[index]
            for net, part in zip(self.nets, parts, strict=True)
        ]
        return torch.stack(made) * segments.mask

    def _time_loss(self, progress: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error of the time between two steps as read off their progress, over all lags."""
        steps = int(mask.sum(dim=1).max())  # of the longest real segment: padding must not move the lags
        losses = []
        for lag in sorted({max(1, round(share * steps)) for share in self.lags if steps > 1}):
            live = mask[:, lag:]
            error = progress[..., lag:] - progress[..., :-lag] - lag / steps
            losses.append((error.square() * live).sum() / (live.sum() * len(progress)).clamp(min=1))
        return torch.stack(losses).mean() if losses else progress.sum() * 0
