"""Robust reward learning of PEARL (Liu et al. 2023): a step reward is N(mu, sigma^2), and a preference integrates over it.

| paper | here |
|---|---|
| dmu, dVar | difference of the segments' means, sum of their variances (independent steps), in units of the temperature |
| closed form | P(first) = sigmoid(dmu / sqrt(1 + pi / 8 dVar)), MacKay 1992; within 0.02 of the integral |
| sampled | mean over M draws of sigmoid(dmu + sqrt(dVar) z); z are the M normal quantiles, so that swapping a pair changes nothing |
| floor | weight * max(0, eta - mean entropy of a step), which keeps sigma from collapsing |

The share of flipped labels is estimated by the trainer from pairs that a member did not see; the loss then forgives labels
against a confident score. Without a trainer it is 0.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, both, reduce_steps, step_networks
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments

LOG_STD = (-5.0, 1.0)
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
"""Entropy of a unit normal; that of N(mu, sigma^2) is this plus log sigma."""


class Gaussian(nn.Module):
    """K networks of a mean in [-1, 1] and a deviation per step."""

    centre: Tensor
    quantiles: Tensor

    def __init__(
        self,
        dims: Dims,
        members: int = 4,
        width: int = 64,
        reduce: Literal["sum", "mean"] = "mean",
        temperature: float = 0.1,
        use_action: bool = False,
        likelihood: Literal["closed", "sampled", "mean_ce"] = "closed",
        draws: int = 16,
        floor: float = -1.0,
        floor_weight: float = 0.1,
        pessimism: float = 0.0,
        learn_flip: bool = True,
    ) -> None:
        """floor: entropy in nats below which a step's deviation is pushed up. pessimism: k of the score mu - k sigma."""
        super().__init__()
        if reduce not in ("sum", "mean") or temperature <= 0 or members < 1 or draws < 1:
            raise InputError(
                f"Gaussian: got reduce={reduce!r}, temperature={temperature}, members={members}, draws={draws}, "
                "wanted reduce sum or mean, temperature > 0, members and draws >= 1."
            )
        if likelihood not in ("closed", "sampled", "mean_ce"):
            raise InputError(f"Gaussian.likelihood: got {likelihood!r}, wanted closed, sampled or mean_ce.")
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "reduce": reduce, "temperature": temperature,
            "use_action": use_action, "likelihood": likelihood, "draws": draws, "floor": floor,
            "floor_weight": floor_weight, "pessimism": pessimism, "learn_flip": learn_flip,
        }  # fmt: skip
        self.reduce, self.temperature, self.use_action = reduce, temperature, use_action
        self.likelihood, self.pessimism = likelihood, pessimism
        self.floor, self.floor_weight = floor, floor_weight
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration(learn_flip)
        self.register_buffer("centre", torch.zeros(()))
        middle = (torch.arange(draws) + 0.5) / draws
        self.register_buffer("quantiles", torch.special.ndtri(middle), persistent=False)
        self.nets = step_networks(dims.observation + (dims.action if use_action else 0), width, members, outputs=2)

    def members(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the step reward for every member, both (K, B, T); padding is 0."""
        inputs = self.normalizer.state(segments.observation)
        if self.use_action:
            inputs = torch.cat([inputs, self.normalizer.action(segments.action)], dim=-1)
        mean, log_std = torch.stack([net(inputs) for net in self.nets]).unbind(dim=-1)  # (K, B, T) each
        std = (log_std - 2).clamp(*LOG_STD).exp()  # begins small: a large variance flattens every probability
        return mean.tanh() * segments.mask, std * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean reward less `pessimism` deviations, centred, (B, T); padding scores 0."""
        mean, std = self.members(segments)
        return (mean - self.pessimism * std).mean(dim=0).sub(self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Deviation of the step reward under the mixture of members, (B, T): their own noise and their disagreement."""
        mean, std = self.members(segments)
        return (std.square().mean(dim=0) + mean.var(dim=0, correction=0)).sqrt()

    def returns(self, segments: Segments) -> Tensor:
        """Reduced mean of whole segments for every member, (K, B), in units of the temperature."""
        return reduce_steps(self.members(segments)[0], segments.mask, self.reduce) / self.temperature

    def moments(self, first: Segments, second: Segments) -> tuple[Tensor, Tensor, Tensor]:
        """dmu and dVar of every member, both (K, B), and the mean entropy of a step in nats."""
        joined = both(first, second)
        mean, std = self.members(joined)
        total = reduce_steps(mean, joined.mask, self.reduce) / self.temperature  # (K, 2B)
        variance = reduce_steps(std.square(), joined.mask, self.reduce) / self.temperature**2
        if self.reduce == "mean":  # the variance of a mean of T independent steps
            variance = variance / joined.mask.sum(dim=-1).clamp(min=1)
        (one, other), (here, there) = total.chunk(2, dim=1), variance.chunk(2, dim=1)
        live = joined.mask.expand_as(std)
        entropy = ENTROPY + (std.clamp(min=1e-6).log() * live).sum() / live.sum().clamp(min=1)
        return one - other, here + there, entropy

    def logits(self, first: Segments, second: Segments) -> Tensor:
        """Logit of P(first preferred) for every member, closed form, (K, B)."""
        difference, variance, _ = self.moments(first, second)
        return difference / (1 + math.pi / 8 * variance).sqrt()

    def prob_first(self, first: Segments, second: Segments) -> Tensor:
        """Calibrated P(first preferred) of a rater who does not slip, (B,)."""
        return self.calibration(self.logits(first, second))

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the chosen likelihood plus the floor under sigma, and what to log (`reward/loss` without the floor)."""
        difference, variance, entropy = self.moments(batch.first, batch.second)
        closed = difference / (1 + math.pi / 8 * variance).sqrt()  # (K, B)
        flip = self.calibration.flip
        if self.likelihood == "closed":
            loss, logs = preference_loss(closed, batch, share, flip)
        else:
            drawn = difference[..., None] + variance.clamp(min=1e-12).sqrt()[..., None] * self.quantiles  # (K, B, M)
            loss, logs = self._sampled(drawn, batch, share, flip)
        penalty = self.floor_weight * F.relu(self.floor - entropy)
        return loss + penalty, {**logs, "reward/entropy": float(entropy.detach()), "reward/flip": float(flip)}

    def _sampled(
        self, drawn: Tensor, batch: PreferenceBatch, share: Tensor | None, flip: Tensor | float
    ) -> tuple[Tensor, dict[str, float]]:
        """Log of the mean probability over draws, or (`mean_ce`) the mean of its log, which punishes variance."""
        if self.likelihood == "mean_ce":
            losses = [preference_loss(drawn[..., m], batch, share, flip) for m in range(drawn.shape[-1])]
            middle = losses[len(losses) // 2][1]
            loss = torch.stack([one for one, _ in losses]).mean()
            return loss, {**middle, "reward/loss": float(loss.detach())}
        count = math.log(drawn.shape[-1])
        yes = F.logsigmoid(drawn).logsumexp(dim=-1) - count  # (K, B), log of the mean probability
        no = F.logsigmoid(-drawn).logsumexp(dim=-1) - count
        return preference_loss(yes - no, batch, share, flip)
