"""Flow matching through the vision-language-action networks of lerobot: SmolVLA, pi0 and pi0.5 differ in what they are told, and in no more.

t = 1 is noise. The networks' actions are wider than the robot's (32): noise is drawn and shared at that width, what is beyond the robot's
numbers never counts. Score: surrogate log-likelihood as in `policies/flow.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.arrays import InputError
from robopref.networks.flow_matching import stratified
from robopref.networks.lerobot import LeRobotPolicy
from robopref.networks.recompute import paused
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation


class LeRobotReader(LeRobotPolicy):
    """A policy of lerobot that reads a sentence. `tokenizer` and `padding` are set by the adapter.

    Raises `InputError` for actions that are changed in ways which are not done here.
    """

    tokenizer: Any
    padding: str = "max_length"

    def __init__(self, checkpoint: Mapping[str, Any], **options: Any) -> None:
        for name in ("adapt_to_pi_aloha", "use_relative_actions"):
            if checkpoint.get(name):
                raise InputError(
                    f"{type(self).__name__}: got {name}=true, wanted false: its change of actions is not done here."
                )
        super().__init__(checkpoint, **options)
        self._spec = replace(self._spec, words=self.body.policy.config.tokenizer_max_length)

    def latest(self, observation: Observation) -> dict[str, Tensor]:
        """Normalised inputs of now under lerobot's names: states (B, D), pictures (B, 3, height, width)."""
        return {key: value[:, -1] for key, value in self.body.batch(observation, self._spec).items()}

    def sentences(self, observation: Observation) -> Sequence[str]:
        """What each row is asked. Raises `InputError` where nothing is."""
        if not observation.sentence:
            raise InputError(
                "Observation: got no sentence, wanted one for every row: the policy reads what is asked of it."
            )
        return observation.sentence

    def tokens(self, said: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) of what is read. Raises `InputError` for more than the context."""
        most = self._spec.words
        for one in dict.fromkeys(said):
            if (count := len(self.tokenizer(one)["input_ids"])) > most:
                raise InputError(
                    f"sentence: got {count} tokens ({one[:40]!r} ...), wanted at most {most}. Say it shorter."
                )
        found = self.tokenizer(
            list(said), padding=self.padding, max_length=most, padding_side="right", return_tensors="pt"
        )
        device = self.normalizer.low.device
        return found["input_ids"].to(device), found["attention_mask"].bool().to(device)


class LeRobotFlow(LeRobotReader):
    """Carries noise to a chunk by lerobot's own network and statistics. probes: M."""

    def __init__(self, checkpoint: Mapping[str, Any], probes: int = 4, **options: Any) -> None:
        super().__init__(checkpoint, probes=probes, **options)
        self.probes = probes
        self.width = int(self.body.policy.config.max_action_dim)

    def inputs(self, observation: Observation) -> tuple[Any, ...]:
        """What lerobot's network takes before actions, noise and times: pictures, their masks, tokens, their mask, perhaps a state."""
        raise NotImplementedError

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units: Euler steps from t = 1 to 0; the start noise decides all."""
        from diffusers.utils.torch_utils import randn_tensor

        given: Any = generator if isinstance(generator, torch.Generator) else list(generator)
        shape = (len(observation), self._spec.horizon, self.width)
        noise = randn_tensor(shape, generator=given, device=self.normalizer.low.device)
        with paused(self.body):
            found = self.body.policy.model.sample_actions(*self.inputs(observation), noise=noise)
        return self.normalizer.unaction(found[..., : self._spec.dims.action].float())

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """M probes per chunk, noise (B, M, H, 32) of the network's width, times as lerobot's, stratified."""
        return stratified(Chunks(chunks.observation, self._wide(chunks.action), self._wide(chunks.mask)), self.probes, 1.5, generator)  # fmt: skip

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Surrogate log-likelihood (B,): minus half the squared error, executed elements summed, probes averaged."""
        return -0.5 * self._errors(chunks, draws).sum(dim=(1, 2))

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared velocity error per executed element, (B,)."""
        return self._errors(chunks, draws).sum(dim=(1, 2)) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def _errors(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        batch, probes = draws.time.shape
        rows = torch.arange(batch).repeat_interleave(probes)
        clean = self._wide(self.normalizer.action(chunks.action)).repeat_interleave(probes, dim=0)
        inputs = self.inputs(chunks.observation[rows])
        found = self.body.policy.model.forward(*inputs, clean, draws.noise.flatten(0, 1), draws.time.flatten())
        errors = found.float().unflatten(0, (batch, probes)).mean(dim=1)
        return errors[..., : self._spec.dims.action] * chunks.mask

    def _wide(self, action: Tensor) -> Tensor:
        """(B, H, A) -> (B, H, 32), zeros behind."""
        return F.pad(action, (0, self.width - action.shape[-1]))


def ended(said: Sequence[str]) -> list[str]:
    """Every sentence with a line's end behind it, which is where SmolVLA and pi0 were trained to find their first action."""
    return [one if one.endswith("\n") else f"{one}\n" for one in said]
