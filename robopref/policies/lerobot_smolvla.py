"""lerobot's SmolVLA (Shukor et al. 2025) from its checkpoint folder, with the surrogate score of `policies/flow.py`.

t = 1 is noise. The network's actions are wider than the robot's (32): noise is drawn and shared at that width, what is beyond the robot's
numbers never counts. `vlm_model_name` of the checkpoint must be a local folder with the language model's config.json and tokenizer.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.flow_matching import stratified
from robopref.networks.lerobot import Body, read_config
from robopref.networks.normalizer import Normalizer
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation, PolicySpec


class LeRobotSmolVLA(nn.Module):
    """Carries noise to a chunk by lerobot's own network and statistics. checkpoint: the content of its config.json; probes: M."""

    def __init__(self, checkpoint: Mapping[str, Any], probes: int = 4) -> None:
        super().__init__()
        name = Path(str(checkpoint.get("vlm_model_name")))
        if not (name / "config.json").is_file():
            raise InputError(
                f"LeRobotSmolVLA: got vlm_model_name={str(name)!r}, wanted a local folder with config.json and tokenizer: nothing is "
                "downloaded.\nhf download HuggingFaceTB/SmolVLM2-500M-Video-Instruct --local-dir DIR, and name DIR in config.json."
            )
        if checkpoint.get("adapt_to_pi_aloha"):
            raise InputError(
                "LeRobotSmolVLA: got adapt_to_pi_aloha=true, wanted false: its change of joints is not done here."
            )
        self.config: dict[str, Any] = {"checkpoint": dict(checkpoint), "probes": probes}
        self.body, self.probes = Body({**checkpoint, "load_vlm_weights": False}), probes
        told = self.body.policy.config
        spec = self.body.spec(told.chunk_size, told.n_action_steps, 1)
        self._spec = replace(spec, words=told.tokenizer_max_length)
        self.width = int(told.max_action_dim)
        self.tokenizer = self.body.policy.model.vlm_with_expert.processor.tokenizer
        self.eval()

    @classmethod
    def from_folder(cls, folder: Path, probes: int = 4) -> LeRobotSmolVLA:
        """The policy of a folder as lerobot writes it. Raises `InputError` for what is missing or does not fit."""
        policy = cls(read_config(folder, "smolvla"), probes)
        policy.body.read(folder)
        return policy

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    @property
    def normalizer(self) -> Normalizer:
        """Statistics of the checkpoint."""
        return self.body.normalizer

    def train(self, mode: bool = True) -> LeRobotSmolVLA:
        """Training mode for gradients' sake only: dropout would make policy and reference differ."""
        super().train(mode)
        self.body.eval()
        return self

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units: Euler steps from t = 1 to 0; the start noise decides all."""
        from diffusers.utils.torch_utils import randn_tensor

        inputs = self._inputs(observation)
        given: Any = generator if isinstance(generator, torch.Generator) else list(generator)
        shape = (len(observation), self._spec.horizon, self.width)
        noise = randn_tensor(shape, generator=given, device=self.normalizer.low.device)
        found = self.body.policy.model.sample_actions(*inputs, noise=noise)
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

    def reference(self) -> LeRobotSmolVLA:
        """A frozen copy of this policy as it is now; `policies.lora` needs none."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def _errors(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Squared errors of executed elements, averaged over probes: (B, H, A)."""
        batch, probes = draws.time.shape
        rows = torch.arange(batch).repeat_interleave(probes)
        clean = self._wide(self.normalizer.action(chunks.action)).repeat_interleave(probes, dim=0)
        inputs = self._inputs(chunks.observation[rows])
        found = self.body.policy.model.forward(*inputs, clean, draws.noise.flatten(0, 1), draws.time.flatten())
        errors = found.float().unflatten(0, (batch, probes)).mean(dim=1)
        return errors[..., : self._spec.dims.action] * chunks.mask

    def _wide(self, action: Tensor) -> Tensor:
        """(B, H, A) -> (B, H, 32), zeros behind."""
        return F.pad(action, (0, self.width - action.shape[-1]))

    def _inputs(self, observation: Observation) -> tuple[Any, ...]:
        """Pictures and their masks, tokens and their mask, padded state: what lerobot's network takes first."""
        batch = {key: value[:, -1] for key, value in self.body.batch(observation, self._spec).items()}
        images, masks = self.body.policy.prepare_images(batch)
        return images, masks, *self._tokens(observation), self.body.policy.prepare_state(batch)

    def _tokens(self, observation: Observation) -> tuple[Tensor, Tensor]:
        """Ids and mask (B, L) of the sentences. Raises `InputError` for none, and one longer than the context."""
        if not observation.sentence:
            raise InputError(
                "Observation: got no sentence, wanted one for every row: the policy reads what is asked of it."
            )
        most, told = self._spec.words, self.body.policy.config
        said = [one if one.endswith("\n") else f"{one}\n" for one in observation.sentence]
        for one in dict.fromkeys(said):
            if (count := len(self.tokenizer(one)["input_ids"])) > most:
                raise InputError(
                    f"sentence: got {count} tokens ({one[:40]!r} ...), wanted at most {most}. Say it shorter."
                )
        found = self.tokenizer(
            said, padding=told.pad_language_to, max_length=most, padding_side="right", return_tensors="pt"
        )
        device = self.normalizer.low.device
        return found["input_ids"].to(device), found["attention_mask"].bool().to(device)
