"""Checkpoints of lerobot 0.6 from a local folder: the model, its statistics as our normaliser, observations in its words, and what all
adapters to them share (`LeRobotPolicy`).

Needs an environment of its own (Python 3.12, docs/checkpoints.md). Nothing is downloaded: pretrained backbones are never asked for.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from robopref.arrays import InputError, check_shape
from robopref.networks.backbones import extra, fit_weights, read_object, read_weights
from robopref.networks.normalizer import Normalizer
from robopref.pictures import PictureSpec
from robopref.types import Dims, Observation, PolicySpec

_STATES = ("observation.state", "observation.environment_state")
_OFFLINE = {"device": "cpu", "pretrained_backbone_weights": None, "load_vlm_weights": False, "compile_model": False}
_RANGES = {"MIN_MAX": ("min", "max"), "QUANTILES": ("q01", "q99"), "QUANTILE10": ("q10", "q90")}


def read_config(folder: Path, kind: str) -> dict[str, Any]:
    """`config.json` of a lerobot policy of a kind ("diffusion"). Raises `InputError` for a missing folder or another kind."""
    path = folder / "config.json"
    if not path.is_file():
        there = "a folder without config.json" if folder.is_dir() else "no such folder"
        raise InputError(
            f"{folder}: got {there}, wanted a lerobot policy: the folder `pretrained_model` of its training."
        )
    config = read_object(path)
    if config.get("type") != kind:
        raise InputError(f"{path}: got type {config.get('type')!r}, wanted {kind!r}. Take the adapter of that policy.")
    return config


def read_statistics(folder: Path) -> dict[str, Tensor]:
    """The statistics that the policy normalises with, "action.min" -> tensor. Raises `InputError` where they are missing."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "policy_preprocessor.json"
    how = "Older folders keep them with the weights: move them with lerobot's migrate_policy_normalization.py."
    if not path.is_file():
        raise InputError(f"{folder}: got no policy_preprocessor.json, wanted it: the normaliser is missing.\n{how}")
    steps = read_object(path).get("steps", [])
    files = [step.get("state_file") for step in steps if step.get("registry_name") == "normalizer_processor"]
    if not files or not files[0] or not (folder / files[0]).is_file():
        raise InputError(f"{folder}: got no file of statistics, wanted one: the normaliser is missing.\n{how}")
    try:
        return load_file(folder / files[0])
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / files[0]}: got a torn file ({error}), wanted safetensors. Copy it again."
        ) from error


class LeRobotPolicy(nn.Module):
    """What adapters share. checkpoint: the content of a config.json; options: further constructor arguments of the adapter, kept for saving.

    The model stays in evaluation mode: dropout, random crops and latents would make policy and reference differ.
    """

    kind: ClassVar[str]
    """`type` in lerobot's config.json."""

    def __init__(self, checkpoint: Mapping[str, Any], **options: Any) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"checkpoint": dict(checkpoint), **options}
        self.body = Body(checkpoint, self.bare)
        told = self.body.policy.config
        self._spec = self.body.spec(self.horizon(told), told.n_action_steps, told.n_obs_steps)
        self.body.eval()

    @staticmethod
    def bare(known: Any) -> Any:
        """The class that is built instead of lerobot's own: the same unless an adapter leaves something out."""
        return known

    @staticmethod
    def horizon(told: Any) -> int:
        """H by lerobot's configuration."""
        return int(told.chunk_size)

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> Self:
        """The policy of a folder as lerobot writes it. Raises `InputError` for what is missing or does not fit."""
        policy = cls(read_config(folder, cls.kind), **options)
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

    def train(self, mode: bool = True) -> Self:
        """Training mode for gradients' sake only; layers that are computed again in the backward pass keep their own mark."""
        self.training = mode
        return self

    def reference(self) -> Self:
        """A frozen copy of this policy as it is now; `policies.lora` needs none."""
        return copy.deepcopy(self).requires_grad_(False)


class Body(nn.Module):
    """A lerobot policy with random weights, and what is needed to feed it. config: the content of its config.json."""

    def __init__(self, config: Mapping[str, Any], bare: Callable[[Any], Any] = lambda known: known) -> None:
        super().__init__()
        self.policy = _build({**config, **_OFFLINE}, bare)
        told = self.policy.config
        inputs = told.input_features
        self.states = [key for key in _STATES if key in inputs]
        self.widths = [int(inputs[key].shape[0]) for key in self.states]
        names = {key.split(".")[-1]: key for key in told.image_features}
        self.cameras = {name: key for name, key in names.items() if not name.startswith("empty_camera_")}
        self.modes = {kind: mode.value for kind, mode in told.normalization_mapping.items()}
        self.action = int(told.action_feature.shape[0])
        self.normalizer = Normalizer(sum(self.widths), self.action)
        for name in self.cameras:  # pixels in [0, 1], each colour scaled
            self.register_buffer(f"shift_{name}", torch.zeros(3, 1, 1))
            self.register_buffer(f"scale_{name}", torch.ones(3, 1, 1))

    def spec(self, horizon: int, execute: int, history: int) -> PolicySpec:
        """Shapes and execution; every camera has one size."""
        sizes = {tuple(self.policy.config.input_features[key].shape[1:]) for key in self.cameras.values()}
        if len(sizes) > 1:
            raise InputError(f"lerobot: got cameras of sizes {sorted(sizes)}, wanted one size.")
        height, width = sizes.pop() if sizes else (84, 84)
        pictures = PictureSpec(tuple(self.cameras), (height, width))
        return PolicySpec(Dims(sum(self.widths), self.action), horizon, execute, history, pictures)

    def read(self, folder: Path) -> None:
        """Take weights and statistics of a folder. Raises `InputError` that names the first five weights which do not fit."""
        fit_weights(self.policy, _renamed(self.policy, read_weights(folder)), folder)
        statistics = read_statistics(folder)
        parts = [_affine(folder, statistics, k, self.modes, w) for k, w in zip(self.states, self.widths, strict=True)]
        self.normalizer.mean.copy_(torch.cat([shift for shift, _ in parts]))
        self.normalizer.std.copy_(torch.cat([scale for _, scale in parts]))
        middle, half = _affine(folder, statistics, "action", self.modes, self.action)
        self.normalizer.low.copy_(middle - half)
        self.normalizer.high.copy_(middle + half)
        for name, key in self.cameras.items():
            shift, scale = _affine(folder, statistics, key, self.modes, 3)
            self.get_buffer(f"shift_{name}").copy_(shift.view(3, 1, 1))
            self.get_buffer(f"scale_{name}").copy_(scale.view(3, 1, 1))

    def batch(self, observation: Observation, spec: PolicySpec) -> dict[str, Tensor]:
        """Normalised inputs under lerobot's names, history kept: states (B, K, D), pictures (B, K, 3, height, width)."""
        wanted = (None, spec.history, spec.dims.observation)
        check_shape(
            "lerobot", "observation", tuple(observation.state.shape), wanted, "Use the policy's own environment."
        )
        state = (observation.state - self.normalizer.mean) / self.normalizer.std
        found = dict(zip(self.states, state.split(self.widths, dim=-1), strict=True))
        for name, key in self.cameras.items():
            pixels = observation.picture(name, spec.pictures.size).movedim(-1, -3).to(state) / 255
            found[key] = (pixels - self.get_buffer(f"shift_{name}")) / self.get_buffer(f"scale_{name}")
        return found


def _renamed(policy: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under today's names: the pi family has been written with others (openpi's), which lerobot knows."""
    if not hasattr(policy, "_fix_pytorch_state_dict_keys"):
        return weights
    fixed = policy._fix_pytorch_state_dict_keys(weights, policy.config)
    return {k if k.startswith("model.") else f"model.{k}": v for k, v in fixed.items()}


def _build(config: dict[str, Any], bare: Callable[[Any], Any]) -> Any:
    """A policy of lerobot from the content of a config.json."""
    configs = extra("lerobot.configs.policies", "lerobot", "lerobot")
    factory = extra("lerobot.policies.factory", "lerobot", "lerobot")
    known = factory.get_policy_class(config["type"])
    fields = known.config_class.__dataclass_fields__
    kept = {k: v for k, v in config.items() if k == "type" or k in fields}
    with tempfile.TemporaryDirectory() as folder:  # lerobot reads configurations from files only
        (Path(folder) / "config.json").write_text(json.dumps(kept), encoding="utf-8")
        parsed = configs.PreTrainedConfig.from_pretrained(folder, local_files_only=True)
    return bare(known)(parsed)


def _affine(
    folder: Path, statistics: Mapping[str, Tensor], key: str, modes: Mapping[str, str], width: int
) -> tuple[Tensor, Tensor]:
    """shift and scale (width,) each of (x - shift) / scale, as lerobot normalises that feature."""
    kind = (
        "ACTION"
        if key == "action"
        else "STATE"
        if key == "observation.state"
        else "ENV"
        if key in _STATES
        else "VISUAL"
    )
    mode = modes.get(kind, "IDENTITY")
    if mode == "IDENTITY":
        return torch.zeros(width), torch.ones(width)
    names = ("mean", "std") if mode == "MEAN_STD" else _RANGES[mode]
    missing = [f"{key}.{name}" for name in names if f"{key}.{name}" not in statistics]
    if missing:
        raise InputError(
            f"{folder}: got statistics without {', '.join(missing)}, wanted them: the normaliser is of other data."
        )
    first, second = (statistics[f"{key}.{name}"].float().flatten() for name in names)
    if len(first) != width or len(second) != width:
        raise InputError(
            f"{folder}: got statistics of {len(first)} numbers for {key}, wanted {width}: they are of other data."
        )
    if mode == "MEAN_STD":
        return first, second + 1e-8
    half = (second - first) / 2
    least = 1e-6 * first.abs().clamp(min=1)  # a dimension that never moved
    half = torch.where(half == 0, least, half)
    return first + half, half
