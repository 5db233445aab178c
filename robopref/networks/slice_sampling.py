"""Draws from the posterior of a linear preference model whose labels may be turned round: elliptical slice sampling.

A pair's logit is w . x / sqrt(1 + pi / 8 v): x the difference of two segments' features, v the variance of that difference (MacKay 1992).
Weights of group g are N(0, s_g^2) with log s_g ~ N(m_g, 1); a label says the opposite with probability e, uniform in [0, 0.45). Weights move
by elliptical slice sampling (Murray, Adams and MacKay 2010), which has nothing to tune; s, e and what v depends on by Metropolis steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MOST_FLIPS = 0.45
"""At half of the labels turned round nothing is left to learn."""


@dataclass(frozen=True)
class Answers:
    """What the draws are conditioned on: N compared pairs."""

    inputs: np.ndarray
    """(N, P) features of the first less those of the second segment."""
    prob_first: np.ndarray
    """(N,) in [0, 1]."""
    weight: np.ndarray
    """(N,) >= 0: how much a pair counts."""
    variance: Callable[[np.ndarray], np.ndarray]
    """Noise parameters (R,) -> variance of every pair's difference (N,)."""


@dataclass(frozen=True)
class Prior:
    """What is held likely beforehand."""

    group: np.ndarray
    """(P,) int: which group a weight is of."""
    scale: np.ndarray
    """(G,) middle of the log of each group's deviation."""
    noise: np.ndarray
    """(R,) deviation of the noise parameters about 0."""
    learn_flip: bool = True


@dataclass(frozen=True)
class Draws:
    """K draws."""

    weights: np.ndarray
    """(K, P)."""
    noise: np.ndarray
    """(K, R)."""
    flip: np.ndarray
    """(K,)."""


def draw(answers: Answers, prior: Prior, count: int, rounds: int, rng: np.random.Generator) -> Draws:
    """`count` draws, evenly spaced over the last two thirds of `rounds` rounds of one chain that begins at weights of 0.

    Raises nothing; `rounds` below `count` gives repeated draws.
    """
    state = _Chain(answers, prior)
    kept: list[tuple[np.ndarray, np.ndarray, float]] = []
    wanted = np.linspace(rounds // 3, rounds - 1, count).round().astype(int)
    for number in range(rounds):
        state.weights(rng)
        for _ in range(2):
            state.scales(rng)
        state.noise(rng)
        kept += [(np.exp(state.scale)[prior.group] * state.white, state.noises, state.flip)] * int(
            (wanted == number).sum()
        )
    weights, noise, flip = zip(*kept, strict=True)
    return Draws(np.stack(weights), np.stack(noise), np.array(flip))


class _Chain:
    """Where the chain is. Weights are kept white (deviation 1), so that scales can move without them."""

    def __init__(self, answers: Answers, prior: Prior) -> None:
        self.answers, self.prior = answers, prior
        groups = len(prior.scale)
        self.parts = [np.flatnonzero(prior.group == g) for g in range(groups)]
        self.white = np.zeros(answers.inputs.shape[1])
        self.margin = np.zeros((groups, len(answers.inputs)))  # of each group at scale 1
        self.scale = prior.scale.astype(float)
        self.flip = 0.15 if prior.learn_flip else 0.0
        self.noises = np.zeros(len(prior.noise))
        self.shrink = self._shrink(self.noises)
        self.now = self._likelihood(np.exp(self.scale) @ self.margin, self.flip, self.shrink)

    def weights(self, rng: np.random.Generator) -> None:
        """One elliptical slice: a point on the ellipse through the weights and a draw from their prior."""
        other = rng.normal(size=len(self.white))
        across = self._margins(other)
        size = np.exp(self.scale)
        here, there = size @ self.margin, size @ across
        least = self.now + np.log(rng.random())
        angle = rng.uniform(0, 2 * np.pi)
        low, high = angle - 2 * np.pi, angle
        while True:
            found = self._likelihood(here * np.cos(angle) + there * np.sin(angle), self.flip, self.shrink)
            if found > least:
                break
            low, high = (angle, high) if angle < 0 else (low, angle)
            angle = rng.uniform(low, high)
        self.white = self.white * np.cos(angle) + other * np.sin(angle)
        self.margin = self.margin * np.cos(angle) + across * np.sin(angle)
        self.now = found

    def scales(self, rng: np.random.Generator) -> None:
        """A Metropolis step of the groups' scales and the share of flips."""
        groups = len(self.scale)
        scale = self.scale + 0.3 * rng.normal(size=groups) * (rng.random(groups) < 0.6)
        flip = abs(self.flip + 0.04 * rng.normal()) if self.prior.learn_flip else 0.0
        if flip >= MOST_FLIPS:
            return
        found = self._likelihood(np.exp(scale) @ self.margin, flip, self.shrink)
        middle = self.prior.scale
        gain = found - self.now - 0.5 * float((np.square(scale - middle) - np.square(self.scale - middle)).sum())
        if np.log(rng.random()) < gain:
            self.scale, self.flip, self.now = scale, flip, found

    def noise(self, rng: np.random.Generator) -> None:
        """A Metropolis step of what the variance depends on."""
        deviation = self.prior.noise
        noises = self.noises + 0.3 * deviation * rng.normal(size=len(deviation))
        shrink = self._shrink(noises)
        found = self._likelihood(np.exp(self.scale) @ self.margin, self.flip, shrink)
        gain = (
            found - self.now - 0.5 * float((np.square(noises / deviation) - np.square(self.noises / deviation)).sum())
        )
        if np.log(rng.random()) < gain:
            self.noises, self.shrink, self.now = noises, shrink, found

    def _margins(self, white: np.ndarray) -> np.ndarray:
        return np.stack([self.answers.inputs[:, part] @ white[part] for part in self.parts])  # (G, N)

    def _shrink(self, noises: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(1 + np.pi / 8 * self.answers.variance(noises))  # (N,)

    def _likelihood(self, margin: np.ndarray, flip: float, shrink: np.ndarray) -> float:
        logit = np.clip(margin * shrink, -30, 30)
        first = 1 / (1 + np.exp(-logit))
        first = (1 - flip) * first + flip * (1 - first)
        prob = self.answers.prob_first
        return float(self.answers.weight @ (prob * np.log(first) + (1 - prob) * np.log1p(-first)))
