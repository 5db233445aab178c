"""For few answers, some of them wrong: a quadratic step reward with a Gaussian prior, judged mostly by how an episode ends.

r(s) = w . (phi(s) - m) / d with phi = [z, z^2] of the standardised state z; m, d are mean and deviation over episodes of an episode's phi. A
segment's return is the mean of r over its steps, step t weighing exp(late t / T). Directions of answers: P(first) = sigmoid(difference of
returns), Bradley and Terry 1952, on partial returns Christiano et al. 2017, eq. 1, of which a share `slip` is taken to be turned round. Ties:
the return and a level are the logit of an outcome, and who calls two segments equal saw the same outcome twice (`losses.outcomes`); that
part is as good as ever when directions are wrong. Few weights, a prior N(0, prior^2), and its mode by L-BFGS: thirty answers can fill them
and ten wrong ones cannot bend them far, where a network learns every answer by heart.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.losses.outcomes import tie_loss
from robopref.losses.pairwise import flipped
from robopref.networks.ensemble import Calibration, Compared, both
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments

GAIN = 20.0
"""Weights are learned divided by this, so that a few hundred steps of Adam can carry them as far as the answers ask."""
RATES = ((2.0, -2.0, -2.0), (-2.0, 2.0, -2.0))
"""Logits of tie rates (two failures, two successes, one of each) that `solve` starts from: it keeps what explains the answers better."""


class Quadratic(Compared):
    """K weight vectors of a quadratic step reward."""

    centre: Tensor
    middle: Tensor
    """(2 D,) mean over episodes of an episode's features."""
    spread: Tensor
    """(2 D,) their deviation; 1 until `prepare` has seen episodes."""
    level: Tensor
    """(K,) logit of success at a return of 0."""
    rates: Tensor
    """(K, 3) logits of the tie rates."""

    def __init__(
        self,
        dims: Dims,
        members: int = 4,
        late: float = 5.0,
        prior: float = 4.5,
        slip: float = 0.2,
        iterations: int = 200,
    ) -> None:
        """late: a segment's last step weighs exp(late) times its first; 0: all alike. prior: deviation of the weights beforehand.

        slip: share of decided answers taken to be turned round. iterations: at most so many of L-BFGS.
        """
        super().__init__()
        if members < 1 or late < 0 or prior <= 0 or not 0 <= slip < 0.5 or iterations < 1:
            raise InputError(
                f"Quadratic: got members={members}, late={late}, prior={prior}, slip={slip}, iterations={iterations}, wanted members and "
                "iterations >= 1, late >= 0, prior > 0, slip from 0 to below 0.5."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "late": late, "prior": prior, "slip": slip, "iterations": iterations,
        }  # fmt: skip
        self.late, self.prior, self.slip, self.iterations = late, prior, slip, iterations
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration(learn_flip=True)
        width = 2 * dims.observation
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("level", torch.zeros(members))
        self.register_buffer("rates", torch.tensor(RATES[0]).repeat(members, 1))
        self.nets = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in range(members))
        for net in self.nets:
            nn.init.normal_(net.weight, std=1e-3)  # type: ignore[arg-type]

    @torch.no_grad()
    def prepare(self, segments: Segments) -> None:
        """Read the scale of every feature from whole episodes, labelled or not: what hardly differs between them must not weigh little."""
        seen = self._mean(self._features(segments), segments.mask)  # (B, 2 D)
        deviation = seen.std(dim=0, correction=0)
        self.middle.copy_(seen.mean(dim=0))
        self.spread.copy_(torch.where(deviation > 1e-5, deviation, torch.ones_like(deviation)))

    @torch.no_grad()
    def solve(self, batch: PreferenceBatch, share: Tensor | None = None) -> dict[str, float]:
        """Set all weights to the mode of their posterior; logs as `loss`. share (K, N): how much a pair counts for a member.

        Without shares, member k leaves every K-th answer out (a jackknife), so that members differ where the answers say little. Draws
        with replacement cost more than they tell: with thirty decided answers a third of them missing turns the ranking round.
        """
        inputs = self._inputs(both(batch.first, batch.second)).double()  # (2N, F)
        if share is None and 1 < len(self.nets) < len(batch):
            share = (torch.arange(len(batch)) % len(self.nets) != torch.arange(len(self.nets))[:, None]).float()
        weight = (batch.weight.expand(len(self.nets), -1) * (1.0 if share is None else share)).double()  # (K, N)
        found = [self._mode(inputs, batch.prob_first.double(), weight, rates) for rates in RATES]
        # Which end is the good one is a question to all answers together: a single member's draw may get it wrong.
        weights, level, rates = min(found, key=lambda one: float(one[0].sum()))[1]
        for net, own in zip(self.nets, weights, strict=True):
            net.weight.copy_(own[None] / GAIN)  # type: ignore[operator]
        self.level.copy_(level)
        self.rates.copy_(rates)
        return self.loss(batch, share)[1]

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        inputs = self._scaled(self._features(segments))
        return GAIN * torch.stack([net(inputs).squeeze(-1) for net in self.nets]) * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the members, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Late-weighted mean step reward of segments for every member, (K, B), in logits."""
        inputs = self._inputs(segments)
        return GAIN * torch.stack([net(inputs).squeeze(-1) for net in self.nets])

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Directions, ties and the prior, a pair, averaged over members; logs (`reward/loss` is of the directions alone)."""
        first, second = self.returns(both(batch.first, batch.second)).chunk(2, dim=1)
        decided = (batch.prob_first != 0.5).float()
        plain = replace(batch, weight=batch.weight * decided)
        loss, logs = preference_loss(first - second, plain, share, self.slip)
        weight = batch.weight.expand_as(first) if share is None else batch.weight * share  # (K, B)
        total = weight.sum(dim=1).clamp(min=1e-8)
        loss = loss * decided.mean()
        if decided.min() < 1:
            level = self.level[:, None]
            each = tie_loss(first + level, second + level, 1 - decided, self.rates.sigmoid())
            loss = loss + ((each * weight).sum(dim=1) / total).mean()
        squared = torch.stack([net.weight.square().sum() for net in self.nets])  # type: ignore[operator]
        return loss + (0.5 * (GAIN / self.prior) ** 2 * squared / total).mean(), logs

    def _mode(
        self, inputs: Tensor, prob_first: Tensor, weight: Tensor, rates: tuple[float, ...]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Minus log posterior (K,) at its mode, and weights (K, F), level (K,), rates (K, 3) there, from one start of the rates."""
        count, decided = len(weight), prob_first != 0.5
        options: dict[str, Any] = {"dtype": torch.float64, "requires_grad": True}
        theta = [torch.zeros(count, inputs.shape[1], **options), torch.zeros(count, **options)]
        theta.append(torch.tensor(rates, dtype=torch.float64).repeat(count, 1).requires_grad_())

        def cost() -> Tensor:
            weights, level, tie = theta
            first, second = (weights @ inputs.T).chunk(2, dim=1)  # (K, N)
            each = flipped(first, second, prob_first.expand_as(first), flip=self.slip) * decided
            lost = 0.5 * (weights / self.prior).square().sum(dim=1)
            if not bool(decided.all()):
                each = each + tie_loss(
                    first + level[:, None], second + level[:, None], (~decided).double(), tie.sigmoid()
                )
                # Weak priors: the level N(0, 2^2), rates Beta(1.5, 1.5), of mixed pairs towards few ties.
                lost = lost + level.square() / 8 - 0.5 * (_log(tie) + _log(-tie)).sum(dim=1) - 2 * _log(-tie[:, 2])
            return (each * weight).sum(dim=1) + lost  # (K,)

        solver = torch.optim.LBFGS(theta, max_iter=self.iterations, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            total = cost().sum()
            total.backward()
            return total

        with torch.enable_grad():
            solver.step(closure)
        weights, level, tie = (part.detach() for part in theta)
        return cost().detach(), (weights, level, tie)

    def _features(self, segments: Segments) -> Tensor:
        state = self.normalizer.state(segments.observation)
        return torch.cat([state, state.square()], dim=-1)  # (B, T, 2 D)

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.middle) / self.spread / math.sqrt(len(self.spread))

    def _inputs(self, segments: Segments) -> Tensor:
        return self._scaled(self._mean(self._features(segments), segments.mask))  # (B, F)

    def _mean(self, values: Tensor, mask: Tensor) -> Tensor:
        """Late-weighted mean over real steps, (..., B, T, F), (B, T) -> (..., B, F)."""
        steps = mask.sum(dim=1, keepdim=True).clamp(min=1)
        position = torch.arange(mask.shape[1], device=mask.device) / steps  # (B, T)
        weight = torch.exp(self.late * (position - 1)) * mask
        weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1e-8)
        return (values * weight[..., None]).sum(dim=-2)


def _log(logit: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(logit)
