"""A small vision-language-action policy: pictures, a sentence and some of the robot's state -> a chunk of actions.

Two heads over one transformer (`networks/vision_language.py`). `TokenVLA` predicts all H x A tokens at once, independent of each other
given what was seen and said (parallel decoding, Kim et al. 2025, OpenVLA-OFT), so that its score is an exact log-likelihood:
s = sum over executed elements of log softmax(logits)[token]. `FlowVLA` carries noise to a chunk along a learned velocity (Black et al.
2024, pi0), with the surrogate score s = -1/2 sum over executed elements of (u - v)^2, averaged over the probes of the draws.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.bins import chosen, to_bins, to_centres, uniforms
from robopref.networks.embedding import TimeEmbedding
from robopref.networks.flow_matching import integrate, squared_errors, stratified
from robopref.networks.history import no_draws
from robopref.networks.normalizer import Normalizer
from robopref.networks.vision_language import AnsweringTransformer, Context, Senses
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

_TIME_SCALE = 50.0  # as in `flow`: the fastest wave then turns 8 times between action and noise


class TokenVLA(nn.Module):
    """Predicts the H x A tokens of a chunk at once from pictures, a sentence and the state.

    eyes: arguments of `networks.eyes.Eyes` (cameras, size, which numbers of the state may be read). words: longest sentence, in words.
    """

    def __init__(
        self,
        dims: Dims,
        eyes: Mapping[str, Any],
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        words: int = 16,
        buckets: int = 2048,
        bins: int = 64,
        temperature: float = 1.0,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if bins < 2 or temperature < 0:
            raise InputError(
                f"TokenVLA: got bins={bins}, temperature={temperature}, wanted bins >= 2, temperature >= 0."
            )
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.senses = Senses(dims.observation, history, eyes, words, buckets, width)
        self._spec = PolicySpec(dims, horizon, execute, history, self.senses.eyes.spec, words)
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "eyes": self.senses.eyes.config, "horizon": horizon, "execute": execute, "history": history,
            "words": words, "buckets": buckets, "bins": bins, "temperature": temperature, "width": width, "depth": depth,
            "heads": heads,
        }  # fmt: skip
        self.bins, self.temperature = bins, temperature
        self.network = AnsweringTransformer(width, depth, heads)
        self.queries = nn.Parameter(0.02 * torch.randn(horizon * dims.action, width))
        self.leave = nn.Linear(width, bins)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units; temperature 0 takes the likeliest token of each number."""
        logits = self.logits(self.encode(observation))
        batch, horizon, width, _ = logits.shape
        uniform = uniforms(horizon * width, batch, generator).to(logits.device).view(batch, horizon, width)
        centres = to_centres(chosen(logits, uniform, self.temperature), self.bins, self.normalizer.low.dtype)
        return self.normalizer.unaction(centres)

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the executed tokens, at temperature 1."""
        tokens = to_bins(self.normalizer.action(chunks.action), self.bins)  # (B, H, A)
        logits = self.logits(self.encode(chunks.observation))
        each = logits.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)  # (B, H, A)
        return (each * chunks.mask).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed element, -2 log-likelihood / elements, (B,)."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> TokenVLA:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def encode(self, observation: Observation) -> Context:
        """What B rows saw and were told. Raises `InputError` for other shapes, missing pictures, no sentence or one too long."""
        return _context("TokenVLA", self._spec, self.normalizer, self.senses, self.network, observation)

    def logits(self, context: Context) -> Tensor:
        """Logits (B, H, A, bins) of every number of a chunk."""
        queries = self.queries.expand(len(context), -1, -1)
        answers = self.leave(self.network(queries, context))  # (B, H A, bins)
        return answers.unflatten(1, (self._spec.horizon, self._spec.dims.action))


class FlowVLA(nn.Module):
    """Carries noise to a chunk of H actions along a learned velocity, given pictures, a sentence and the state.

    eyes, words: as in `TokenVLA`. sample_steps: Euler steps from noise to action. probes: M, noises and times of a score.
    """

    def __init__(
        self,
        dims: Dims,
        eyes: Mapping[str, Any],
        horizon: int = 8,
        execute: int = 8,
        history: int = 1,
        words: int = 16,
        buckets: int = 2048,
        sample_steps: int = 8,
        probes: int = 4,
        time_power: float = 1.5,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if sample_steps < 1 or probes < 1 or time_power <= 0:
            raise InputError(
                f"FlowVLA: got sample_steps={sample_steps}, probes={probes}, time_power={time_power}, "
                "wanted sample_steps and probes >= 1, time_power > 0."
            )
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.senses = Senses(dims.observation, history, eyes, words, buckets, width)
        self._spec = PolicySpec(dims, horizon, execute, history, self.senses.eyes.spec, words)
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "eyes": self.senses.eyes.config, "horizon": horizon, "execute": execute, "history": history,
            "words": words, "buckets": buckets, "sample_steps": sample_steps, "probes": probes, "time_power": time_power,
            "width": width, "depth": depth, "heads": heads,
        }  # fmt: skip
        self.sample_steps, self.probes, self.time_power = sample_steps, probes, time_power
        self.network = AnsweringTransformer(width, depth, heads)
        self.enter = nn.Linear(dims.action, width)
        self.place = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.time = nn.Sequential(TimeEmbedding(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.leave = nn.Linear(width, dims.action)

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units; pictures and words are read once for all steps."""
        context = self.encode(observation)
        shape = (len(observation), self._spec.horizon, self._spec.dims.action)
        chunk = integrate(
            lambda noisy, time: self.velocity(noisy, time, context), shape, self.sample_steps, generator, self.place
        )
        return self.normalizer.unaction(chunk.clamp(-1, 1))

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """M probes per chunk, times stratified."""
        return stratified(chunks, self.probes, self.time_power, generator)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return -0.5 * self._errors(chunks, draws).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared velocity error per executed element, (B,)."""
        return self._errors(chunks, draws).sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> FlowVLA:
        """A frozen copy of this policy as it is now."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def encode(self, observation: Observation) -> Context:
        """What B rows saw and were told. Raises `InputError` for other shapes, missing pictures, no sentence or one too long."""
        return _context("FlowVLA", self._spec, self.normalizer, self.senses, self.network, observation)

    def velocity(self, noisy: Tensor, time: Tensor, context: Context) -> Tensor:
        """dx/dt (B, H, A) at x_t (B, H, A), t (B,) in [0, 1] and a context of B rows."""
        moment = self.time(time * _TIME_SCALE)  # (B, width)
        queries = self.enter(noisy) + self.place + moment[:, None]
        return self.leave(self.network(queries, context))

    def _errors(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        context = self.encode(chunks.observation).repeated(draws.time.shape[1])  # (B M)
        clean = self.normalizer.action(chunks.action)
        return squared_errors(lambda noisy, time: self.velocity(noisy, time, context), clean, draws) * chunks.mask


def _context(
    owner: str, spec: PolicySpec, normalizer: Normalizer, senses: Senses, network: AnsweringTransformer, seen: Observation
) -> Context:  # fmt: skip
    wanted = (None, spec.history, spec.dims.observation)
    check_shape(owner, "observation", tuple(seen.state.shape), wanted, "Use the policy's own environment.")
    vectors, live = senses(seen, normalizer.state(seen.state))
    return network.read(vectors, live)
