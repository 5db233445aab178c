"""Robust reward learning of PEARL (Liu et al. 2023) with its posterior drawn: a step reward is N(w . phi(s), sigma^2(s)).

| paper | here |
|---|---|
| mean and variance heads | w . phi and log sigma = c + u . psi, linear in fixed features, so that wrong labels have little to hold on to |
| sampled reward | K draws of (w, u, c) and of the share of flips from their posterior (`networks.slice_sampling`), predictions averaged |
| closed form | P(first) = sigmoid(dmu / sqrt(1 + pi / 8 dVar)), MacKay 1992 |
| uncertainty held up | the prior of c and u: sigma can shrink only as far as the labels ask |

phi: the standardised state and its square, and where observations are Meta-World's the distances between hand, thing and goal and how close they
are on the scale at which episodes begin. Two directions, hand by thing and thing by goal, have a group and so a scale of their own: few
labels, some of them wrong, fill two weights well, and what two cannot explain is left to the rest. Their signs are learned.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, both, reduce_steps
from robopref.networks.normalizer import Normalizer
from robopref.networks.slice_sampling import Answers, Prior, draw
from robopref.transport.distances import GOAL, HAND, LEAST, NEAR, OBJECT
from robopref.types import Dims, PreferenceBatch, Segments

GAIN = 20.0
"""Weights are kept divided by this, so that a few hundred steps of Adam can carry them as far as the labels ask."""
LOG_STD = (-5.0, 4.0)
NARROW = 0.3
"""The second, sharper scale of closeness, relative to the first."""


class GaussianPosterior(nn.Module):
    """K draws of a mean and a deviation per step, both linear in fixed features."""

    centre: Tensor
    middle: Tensor
    """(W,) mean over episodes of an episode's features."""
    spread: Tensor
    """(W,) their deviation; 1 where there is none."""
    reach: Tensor
    """(3,) distances at which closeness has fallen to 1/e."""
    factor: Tensor
    """(P,) how much a feature counts beside the others of its group."""

    def __init__(
        self,
        dims: Dims,
        members: int = 32,
        rounds: int = 1200,
        distances: bool = True,
        learn_flip: bool = True,
        pessimism: float = 0.0,
    ) -> None:
        """members: draws kept of a chain of `rounds`. distances: use them where observations are as wide as Meta-World's.

        pessimism: k of the score mu - k sigma.
        """
        super().__init__()
        if members < 1 or rounds < members:
            raise InputError(
                f"GaussianPosterior: got members={members}, rounds={rounds}, wanted members >= 1 and at least as many rounds."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "rounds": rounds, "distances": distances, "learn_flip": learn_flip,
            "pessimism": pessimism,
        }  # fmt: skip
        self.rounds, self.pessimism, self.learn_flip = rounds, pessimism, learn_flip
        self.near = distances and dims.observation == GOAL.stop
        self.states = 2 * dims.observation
        width = self.states + (9 if self.near else 0)
        inputs = width + (2 if self.near else 0)
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration(learn_flip)
        self.register_buffer("centre", torch.zeros(()))
        self.register_buffer("middle", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("reach", torch.ones(3))
        self.register_buffer("factor", torch.full((inputs,), 1 / math.sqrt(inputs)))
        self.nets = nn.ModuleList(nn.Linear(inputs, 2) for _ in range(members))
        for net in self.nets:
            nn.init.normal_(net.weight, std=1e-3)  # type: ignore[arg-type]
            nn.init.zeros_(net.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def prepare(self, segments: Segments) -> None:
        """Read the scale of every feature from whole episodes, labelled or not."""
        if self.near:
            gaps = _gaps(segments.observation[:, 0])  # (B, 3)
            self.reach.copy_((NEAR * gaps.mean(dim=0)).clamp(min=LEAST))
        seen = reduce_steps(self._plain(segments).movedim(-1, 0), segments.mask, "mean").T  # (B, W)
        deviation = seen.std(dim=0, correction=0)
        live = deviation > 1e-5
        self.middle.copy_(seen.mean(dim=0))
        self.spread.copy_(torch.where(live, deviation, torch.ones_like(deviation)))
        state = math.sqrt(max(1, int(live[: self.states].sum())))
        self.factor[: self.states] = (0.5 if self.near else 1.0) / state
        if self.near:
            self.factor[self.states : -2] = 1 / 3
            self.factor[-2:] = 1 / math.sqrt(2)

    @torch.no_grad()
    def sample(self, batch: PreferenceBatch, generator: torch.Generator) -> dict[str, float]:
        """Set the members to draws from the posterior, and the calibration's share of flips to their mean; logs as `loss`."""
        joined = both(batch.first, batch.second)
        features, mask = self._features(joined), joined.mask
        seen = reduce_steps(features.movedim(-1, 0), mask, "mean").T.double().numpy()  # (2N, P)
        first, second = np.split(seen, 2)
        steps = mask.sum(dim=1).clamp(min=1).double().numpy()
        usual = 0.5 * math.log(float(steps.mean()))  # a mean over T steps has a T-th of a step's variance
        directions = self._directions()
        along = (features.double() @ directions.T).numpy()  # (2N, T, R)

        def variance(noise: np.ndarray) -> np.ndarray:
            log_std = np.clip(usual + noise[0] + along @ noise[1:], *LOG_STD)
            own = (np.exp(2 * log_std) * mask.numpy()).sum(axis=1) / steps**2  # (2N,)
            one, other = np.split(own, 2)
            made: np.ndarray = one + other
            return made

        answers = Answers(first - second, batch.prob_first.double().numpy(), batch.weight.double().numpy(), variance)
        rng = np.random.default_rng(int(torch.randint(2**31 - 1, (), generator=generator)))
        found = draw(answers, self._prior(len(directions)), len(self.nets), self.rounds, rng)
        for net, weights, noise in zip(self.nets, found.weights, found.noise, strict=True):
            rows = np.stack([weights, noise[1:] @ directions.numpy()])
            net.weight.copy_(torch.from_numpy(rows) / GAIN)  # type: ignore[operator]
            net.bias.copy_(torch.tensor([0.0, usual + noise[0]]) / GAIN)  # type: ignore[operator]
        self.calibration.flip.fill_(float(found.flip.mean()))
        return self.loss(batch)[1]

    def members(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the step reward for every member, both (K, B, T); padding is 0."""
        features = self._features(segments)
        mean, log_std = torch.stack([GAIN * net(features) for net in self.nets]).unbind(dim=-1)  # (K, B, T) each
        return mean * segments.mask, log_std.clamp(*LOG_STD).exp() * segments.mask

    def score(self, segments: Segments) -> Tensor:
        """Mean reward less `pessimism` deviations, centred, (B, T); padding scores 0."""
        mean, std = self.members(segments)
        return (mean - self.pessimism * std).mean(dim=0).sub(self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Deviation of the step reward under all draws, (B, T): their own noise and their disagreement."""
        mean, std = self.members(segments)
        return (std.square().mean(dim=0) + mean.var(dim=0, correction=0)).sqrt()

    def returns(self, segments: Segments) -> Tensor:
        """Mean step reward of whole segments for every member, (K, B), in logits."""
        return reduce_steps(self.members(segments)[0], segments.mask, "mean")

    def logits(self, first: Segments, second: Segments) -> Tensor:
        """Logit of P(first preferred) for every member, closed form, (K, B)."""
        joined = both(first, second)
        mean, std = self.members(joined)
        one, other = reduce_steps(mean, joined.mask, "mean").chunk(2, dim=1)
        variance = reduce_steps(std.square(), joined.mask, "mean") / joined.mask.sum(dim=-1).clamp(min=1)
        here, there = variance.chunk(2, dim=1)
        return (one - other) / (1 + math.pi / 8 * (here + there)).sqrt()

    def prob_first(self, first: Segments, second: Segments) -> Tensor:
        """P(first preferred) of a rater who does not slip, averaged over draws, (B,)."""
        return self.calibration(self.logits(first, second))

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the answers, of which a share `flip` is turned round, averaged over members, and what to log."""
        flip = self.calibration.flip
        loss, logs = preference_loss(self.logits(batch.first, batch.second), batch, share, flip)
        return loss, {**logs, "reward/flip": float(flip)}

    def _prior(self, directions: int) -> Prior:
        group = np.zeros(len(self.factor), dtype=int)
        scale = np.array([0.5, 1.8]) if self.near else np.array([1.6])
        if self.near:
            group[-2:] = 1
        return Prior(group, scale, np.array([1.0] + [0.2] * directions), self.learn_flip)

    def _directions(self) -> Tensor:
        """(R, P): what the deviation may depend on: the two closenesses, else how far the squares are from usual together."""
        rows = torch.zeros(2 if self.near else 1, len(self.factor), dtype=torch.float64)
        if self.near:
            rows[0, -2], rows[1, -1] = 1.0, 1.0
        else:
            rows[0, self.states // 2 :] = 1 / math.sqrt(self.states // 2)
        return rows

    def _plain(self, segments: Segments) -> Tensor:
        state = self.normalizer.state(segments.observation)
        parts = [state, state.square()]
        if self.near:
            gaps = _gaps(segments.observation)
            parts += [gaps, (-gaps / self.reach).exp(), (-gaps / self.reach / NARROW).exp()]
        return torch.cat(parts, dim=-1)  # (B, T, W)

    def _features(self, segments: Segments) -> Tensor:
        plain = (self._plain(segments) - self.middle) / self.spread
        if self.near:
            wide, sharp = plain[..., -6:-3], plain[..., -3:]
            plain = torch.cat([plain, ((wide + sharp) / 2)[..., :2]], dim=-1)
        return plain * self.factor  # (B, T, P)


def _gaps(observation: Tensor) -> Tensor:
    """|hand - thing|, |thing - goal|, |hand - goal|: (..., D) -> (..., 3)."""
    hand, thing, goal = observation[..., HAND], observation[..., OBJECT], observation[..., GOAL]
    return torch.stack([(a - b).norm(dim=-1) for a, b in ((hand, thing), (thing, goal), (hand, goal))], dim=-1)
