"""OpenVLA (Kim et al. 2024) from its published checkpoint folder: one action of tokens with an exact score.

s = sum over executed numbers of log softmax(logits)[token] over the whole vocabulary, shifted by one; the end marker is not scored. A number
is one of 255 centres between -1 and 1 after scaling by the 1% and 99% quantiles of the data it was trained on; where a sampled token is no
action, the nearest centre is taken, as the original code does. What was acted at exactly +1 turns into the token beside it again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.backbones import extra, fit_weights, read_object
from robopref.networks.bins import chosen, uniforms
from robopref.networks.history import no_draws
from robopref.networks.normalizer import Normalizer
from robopref.networks.prismatic import Prismatic, read_sharded
from robopref.networks.recompute import paused
from robopref.pictures import PictureSpec
from robopref.protocols import Generators
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec

_PROMPT = "In: What action should the robot take to {}?\nOut:"
_SPACE = 29871
"""Llama's token for a lone space, which the policy was trained to find before its first action token."""


class OpenVLA(nn.Module):
    """Looks through one camera and reads one sentence; its actions have H = 1.

    checkpoint, pixels, tokenizer: contents of config.json, preprocessor_config.json and tokenizer.json. data: whose statistics scale the
    actions. observation: width of the environment's state, which is not read. temperature 0 takes the likeliest token.
    """

    def __init__(
        self,
        checkpoint: Mapping[str, Any],
        pixels: Mapping[str, Any],
        tokenizer: str,
        data: str,
        observation: int = 1,
        camera: str = "top",
        temperature: float = 0.0,
        bfloat16: bool = False,
    ) -> None:
        super().__init__()
        low, high = _range(checkpoint, data)
        self.config: dict[str, Any] = {
            "checkpoint": dict(checkpoint), "pixels": dict(pixels), "tokenizer": tokenizer, "data": data, "observation": observation,
            "camera": camera, "temperature": temperature, "bfloat16": bfloat16,
        }  # fmt: skip
        self.network = Prismatic(checkpoint).to(torch.bfloat16 if bfloat16 else torch.float32)
        self.tokenizer = extra("tokenizers", "tokenizers", "vla").Tokenizer.from_str(tokenizer)
        self.temperature = temperature
        self.words = self.network.vocabulary - int(checkpoint["pad_to_multiple_of"])
        self.normalizer = Normalizer(observation, len(low))
        self.normalizer.low.copy_(low)
        self.normalizer.high.copy_(high)
        side, seen = int(checkpoint["image_sizes"][0]), pixels
        self.register_buffer("mean", torch.tensor(seen["means"]).view(-1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(seen["stds"]).view(-1, 3, 1, 1), persistent=False)
        self.register_buffer("edges", torch.linspace(-1, 1, int(checkpoint["n_action_bins"])), persistent=False)
        room = self.network.context - self.network.vision_backbone.patches - len(low)
        self._spec = PolicySpec(
            Dims(observation, len(low)), 1, 1, 1, PictureSpec((camera,), (side, side)), max(room, 1)
        )
        self.eval()

    mean: Tensor
    std: Tensor
    edges: Tensor

    @classmethod
    def from_folder(cls, folder: Path, data: str = "", **options: Any) -> OpenVLA:
        """The policy of a published folder. Raises `InputError` for missing files and statistics, and names weights that do not fit."""
        policy = cls(**arguments(folder, data), **options)
        fit_weights(policy.network, read_sharded(folder), folder)
        return policy

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self._spec

    def train(self, mode: bool = True) -> OpenVLA:
        """Training mode for gradients' sake only; layers that are computed again in the backward pass keep their own mark."""
        self.training = mode
        return self

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Actions (B, 1, A) in environment units. Rows whose prompts are equally long are computed together."""
        prompts, patches = self._prompts(observation), self.network.see(self._pixels(observation))
        uniform = uniforms(self._spec.dims.action, len(observation), generator).to(patches.device)
        tokens = torch.zeros(len(observation), self._spec.dims.action, dtype=torch.int64, device=patches.device)
        for length in sorted({len(p) for p in prompts}):
            rows = [i for i, p in enumerate(prompts) if len(p) == length]
            said = torch.tensor([prompts[i] for i in rows], device=patches.device)
            tokens[rows] = self._decode(self.network.embed(said, patches[rows]), uniform[rows])
        return self.normalizer.unaction(self.centres(tokens))[:, None]

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Nothing is drawn: the score is exact."""
        return no_draws(chunks)

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Log-likelihood (B,) of the executed tokens, at temperature 1."""
        tokens, prompts = self.tokenize(chunks.action)[:, 0], self._prompts(chunks.observation)  # (B, A)
        device, width = tokens.device, tokens.shape[1]
        longest = max(len(p) for p in prompts)
        padded = torch.zeros(
            len(tokens), longest + width, dtype=torch.int64, device=device
        )  # what is behind is never seen
        begin = torch.tensor([len(p) for p in prompts], device=device)
        for row, prompt in enumerate(prompts):
            padded[row, : len(prompt)] = torch.tensor(prompt, device=device)
        places = begin[:, None] + torch.arange(width, device=device)  # (B, A)
        padded = padded.scatter(1, places, tokens)
        patches = self.network.see(self._pixels(chunks.observation))
        logits = self.network.logits(self.network.embed(padded, patches))
        before = places + patches.shape[1] - 1  # the place that predicts each token
        asked = logits.gather(1, before[..., None].expand(-1, -1, logits.shape[-1]))  # (B, A, vocabulary)
        each = asked.log_softmax(dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
        return (each * chunks.mask[:, 0]).sum(dim=1)

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Deviance per executed number, -2 log-likelihood / numbers, (B,)."""
        return -2 * self.score(chunks, draws) / chunks.mask.sum(dim=(1, 2)).clamp(min=1)

    def reference(self) -> OpenVLA:
        """A frozen copy of this policy as it is now; `policies.lora` needs none."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def tokenize(self, action: Tensor) -> Tensor:
        """Actions in environment units -> ids of the same shape; beyond the range, the outermost."""
        return self.words - torch.bucketize(
            self.normalizer.action(action).clamp(-1, 1).contiguous(), self.edges, right=True
        )

    def centres(self, tokens: Tensor) -> Tensor:
        """Ids, any shape -> numbers in [-1, 1]; what is no action token becomes the nearest."""
        middle = (self.edges[:-1] + self.edges[1:]) / 2
        return middle[(self.words - tokens - 1).clamp(0, len(middle) - 1)]

    def _decode(self, embedded: Tensor, uniform: Tensor) -> Tensor:
        """Ids (B, A) after a prompt (B, S, width), one after the other."""
        cache: Any = None
        taken = []
        for place in range(uniform.shape[1]):
            with paused(self.network):
                logits, cache = self.network.next(embedded, cache)
            taken.append(chosen(logits, uniform[:, place], self.temperature))
            embedded = self.network.language_model.get_input_embeddings()(taken[-1])[:, None]
        return torch.stack(taken, dim=1)

    def _pixels(self, observation: Observation) -> Tensor:
        """Pictures (B, 3 or 6, side, side), scaled for each vision model."""
        (camera,) = self._spec.pictures.cameras
        seen = observation.picture(camera, self._spec.pictures.size)[:, -1].movedim(-1, 1).to(self.mean.device) / 255
        return torch.cat([(seen - m) / s for m, s in zip(self.mean, self.std, strict=True)], dim=1)

    def _prompts(self, observation: Observation) -> list[Sequence[int]]:
        """Ids of each row's prompt. Raises `InputError` for no sentence, and one longer than the context."""
        if not observation.sentence:
            raise InputError(
                "Observation: got no sentence, wanted one for every row: the policy reads what is asked of it."
            )
        prompts = [self.tokenizer.encode(_PROMPT.format(one.lower())).ids for one in observation.sentence]
        prompts = [ids if ids[-1] == _SPACE else [*ids, _SPACE] for ids in prompts]
        for ids, sentence in zip(prompts, observation.sentence, strict=True):
            if len(ids) > self._spec.words:
                raise InputError(
                    f"sentence: got {len(ids)} tokens ({sentence[:40]!r} ...), wanted at most {self._spec.words}: the context of "
                    f"{self.network.context} also holds {self.network.vision_backbone.patches} patches and the action. Say it shorter."
                )
        return prompts


def arguments(folder: Path, data: str = "") -> dict[str, Any]:
    """Constructor arguments of a published folder, without weights. data: may be left out where there is one data set's statistics."""
    files = {name: folder / f"{name}.json" for name in ("config", "preprocessor_config", "tokenizer")}
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise InputError(
            f"{folder}: got no {', '.join(missing)}, wanted an OpenVLA checkpoint folder. Copy all of its files."
        )
    config, pixels = read_object(files["config"]), read_object(files["preprocessor_config"])
    read_object(files["tokenizer"])  # a torn one is told now, and not by the library that reads it
    if config.get("model_type") != "openvla":
        raise InputError(f"{folder}/config.json: got model_type {config.get('model_type')!r}, wanted 'openvla'.")
    if not {"means", "stds"} <= pixels.keys():
        raise InputError(
            f"{folder}/preprocessor_config.json: got no means and stds, wanted them: pictures are scaled by them."
        )
    extra_file = folder / "dataset_statistics.json"  # what a fine-tuning of OpenVLA leaves
    if extra_file.is_file():
        config["norm_stats"] = {**config.get("norm_stats", {}), **read_object(extra_file)}
    known = sorted(config.get("norm_stats") or {})
    if not data and len(known) == 1:
        data = known[0]
    said = files["tokenizer"].read_text(encoding="utf-8")
    return {"checkpoint": config, "pixels": pixels, "tokenizer": said, "data": data}


def _range(checkpoint: Mapping[str, Any], data: str) -> tuple[Tensor, Tensor]:
    """Lowest and highest action (A,) of a data set; numbers that were not scaled keep -1 and 1. Raises `InputError` where they are missing."""
    known = checkpoint.get("norm_stats") or {}
    if data not in known:
        there = f"those of {', '.join(sorted(known)[:5])}" if known else "none: the normaliser is missing"
        raise InputError(
            f"OpenVLA.data: got {data!r}, wanted a data set whose statistics the checkpoint has ({there}).\n"
            "Statistics of other data move the robot wrongly: take the data that the policy was tuned on."
        )
    told = known[data].get("action", {})
    lost = [key for key in ("q01", "q99") if key not in told]
    if lost or len(told["q01"]) != len(told["q99"]):
        raise InputError(
            f"OpenVLA.data: got statistics of {data!r} without {', '.join(lost) or 'equal widths'}, wanted q01 and q99."
        )
    low, high = torch.tensor(told["q01"]).float(), torch.tensor(told["q99"]).float()
    scaled = torch.tensor(told.get("mask", [True] * len(low)))
    still = scaled & (high <= low)  # a number that never moved
    high = torch.where(still, low + 1e-6 * low.abs().clamp(min=1), high)
    return torch.where(scaled, low, -torch.ones_like(low)), torch.where(scaled, high, torch.ones_like(high))
