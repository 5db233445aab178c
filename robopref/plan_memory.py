"""`robopref plan-memory`: what fine-tuning a policy needs of a GPU, counted on the model's own shapes before any weight exists.

Weights, gradients and AdamW's two moments follow from the numbers of weights; what the forward pass keeps for the backward pass is
counted by running the cloning loss on the "meta" device, where tensors have shapes and no numbers. Left out: the allocator's slack and
buffers of single kernels, about a fifth in the test that compares with memory really taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.cli_errors import did_you_mean
from robopref.types import Chunks, Dims, Observation

GB = 1e9
_NUMBERS = {"batch": 112, "rank": 32, "observation": 39, "action": 4}
_MOMENTS, _FLOAT, _HALF = 8, 4, 2


@dataclass(frozen=True)
class Shape:
    """Counts of one policy; sizes in bytes."""

    weights: int
    """Numbers in all weights and buffers."""
    learned: int
    """Numbers of those that learn."""
    kept: int | None
    """What the forward pass keeps for the backward pass, float32; None where the model cannot be built here."""
    kept_recomputed: int | None
    """The same with gradient checkpointing; None where the model has no blocks."""


@dataclass(frozen=True)
class Choice:
    """One way of fine-tuning."""

    name: str
    adapters: bool = False
    """Only adapters learn."""
    copy: bool = False
    """A second copy of the policy is the reference."""
    half: bool = False
    """bfloat16: products by autocast; frozen weights are stored so."""
    recompute: bool = False
    offload: bool = False


CHOICES = (
    Choice("cloning, all weights"),
    Choice("alignment, all weights, a copy as reference", copy=True),
    Choice("  the same, bfloat16", copy=True, half=True),
    Choice("  the same, checkpointing", copy=True, half=True, recompute=True),
    Choice("  the same, optimiser on the CPU", copy=True, half=True, recompute=True, offload=True),
    Choice("cloning, LoRA", adapters=True),
    Choice("alignment, LoRA, adapters off as reference", adapters=True),
    Choice("  the same, bfloat16", adapters=True, half=True),
    Choice("  the same, checkpointing", adapters=True, half=True, recompute=True),
)


def need(choice: Choice, shape: Shape) -> dict[str, float] | None:
    """Bytes on the GPU by what they are for, and `processor` for what lies in the processor's memory; None where it cannot be told."""
    kept = shape.kept_recomputed if choice.recompute else shape.kept
    if kept is None:
        return None
    frozen = shape.weights - shape.learned
    stored = _HALF if choice.half and choice.adapters else _FLOAT
    cast = _HALF * shape.learned if choice.half and not choice.adapters else 0  # autocast's copies of what learns
    parts = {
        "weights": frozen * stored + shape.learned * _FLOAT,
        "reference": shape.weights * (_HALF if choice.half else _FLOAT) if choice.copy else 0,
        "gradients": shape.learned * _FLOAT,
        "optimiser": 0 if choice.offload else shape.learned * _MOMENTS,
        "activations": kept / (2 if choice.half else 1) + cast,
    }
    total = sum(parts.values())
    held = shape.learned * (_MOMENTS + 2 * _FLOAT) if choice.offload else 0  # moments, weights, gradients
    return {**parts, "total": total, "processor": held}


def measure(build: Callable[[], nn.Module], batch: int, rank: int = 0, root: str = "") -> Shape:
    """The counts of the policy that `build` makes on the meta device; rank > 0: of its adapters. batch: chunks scored at once."""
    from robopref.networks.recompute import recompute
    from robopref.policies.lora import LoRA

    with torch.device("meta"):
        policy: Any = build()
        if rank:
            policy = LoRA(policy, rank=rank, root=root)
    weights = sum(t.numel() for t in policy.state_dict().values())
    learned = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    kept = kept_for_backward(policy, batch)
    try:
        blocks = recompute(policy)
    except InputError:
        return Shape(weights, learned, kept, None)
    inputs = kept_for_backward(policy, batch)
    return Shape(
        weights, learned, kept, inputs + max(0, kept - inputs) // blocks
    )  # one block is computed again at a time


def kept_for_backward(policy: Any, batch: int) -> int:
    """Bytes that the cloning loss of `batch` chunks keeps for its gradient, weights not counted. The policy may be on the meta device."""
    own = {_memory(t) for t in [*policy.parameters(), *policy.buffers()]}
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _memory(tensor) not in own:
            seen[_memory(tensor)] = tensor  # held, so that no other tensor takes its place
        return tensor

    chunks = made_up(policy, batch)
    draws = policy.draw(chunks, torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = policy.loss(chunks, draws).mean()
    assert loss.requires_grad
    return sum(t.untyped_storage().nbytes() for t in seen.values())


def made_up(policy: Any, batch: int) -> Chunks:
    """Chunks of the policy's shapes on its device, without meaning."""
    spec, device = policy.spec, next(policy.parameters()).device
    state = torch.zeros(batch, spec.history, spec.dims.observation, device=device)
    pictures = (batch, spec.history, *spec.pictures.size, 3)
    images = {c: torch.zeros(pictures, dtype=torch.uint8, device=device) for c in spec.pictures.cameras}
    sentence = (" ".join(["do"] * min(spec.words, 16)),) * batch if spec.words else ()
    action = torch.zeros(batch, spec.horizon, spec.dims.action, device=device)
    return Chunks(Observation(state, images, sentence), action, torch.ones_like(action))


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def main(options: dict[str, str]) -> str:
    """The table for `key=value` options of the command. Raises `InputError` for unknown keys and folders."""
    known = ("policy", "checkpoint", "gpu", *_NUMBERS)
    for key in options:
        if key not in known and not key.startswith("policy."):
            raise InputError(f"plan-memory: unknown key {key!r}.{did_you_mean(key, known)}")
    if ("policy" in options) == ("checkpoint" in options):
        raise InputError("plan-memory: wanted policy=NAME or checkpoint=DIR, one of them.")
    numbers = {key: _number(key, options.get(key, str(value)), int) for key, value in _NUMBERS.items()}
    build, root = _builder(options, Dims(numbers["observation"], numbers["action"]))
    batch, rank = numbers["batch"], numbers["rank"]
    whole, adapted = measure(build, batch), measure(build, batch, rank, root)
    title = f"{whole.weights / 1e6:.1f} million weights, {adapted.learned / 1e6:.2f} million in adapters of rank {rank}, {batch} chunks a step, GB"
    gpu = _number("gpu", options["gpu"], float) if "gpu" in options else None
    return f"{title}\n{table([(c, need(c, adapted if c.adapters else whole)) for c in CHOICES], gpu)}"


def table(rows: list[tuple[Choice, dict[str, float] | None]], gpu: float | None) -> str:
    """Text of the rows in GB; gpu: GB of the GPU, for a column that says whether it fits with a fifth of slack."""
    columns = ("weights", "reference", "gradients", "optimiser", "activations", "total", "processor")
    lines = [f"{'':46}" + "".join(f"{c:>13}" for c in columns) + ("" if gpu is None else f"{'fits':>6}")]
    for choice, parts in rows:
        cells = f"{'has no blocks':>13}" if parts is None else "".join(f"{parts[c] / GB:13.3f}" for c in columns)
        fits = "" if gpu is None or parts is None else f"{'yes' if 1.2 * parts['total'] <= gpu * GB else 'NO':>6}"
        lines.append(f"{choice.name:46}{cells}{fits}")
    return "\n".join(lines) + "\n"


def _number(key: str, text: str, kind: type) -> Any:
    try:
        value = kind(text)
    except ValueError as error:
        raise InputError(f"plan-memory: got {key}={text}, wanted a number.") from error
    if value <= 0:
        raise InputError(f"plan-memory: got {key}={text}, wanted more than 0.")
    return value


def _builder(options: dict[str, str], dims: Dims) -> tuple[Callable[[], nn.Module], str]:
    """What makes the policy, and which part of it gets adapters."""
    if "checkpoint" in options:
        return _of_folder(Path(options["checkpoint"]))
    from hydra.utils import instantiate

    from robopref.run import compose

    preset = compose([f"{k}={v}" for k, v in options.items() if k == "policy" or k.startswith("policy.")])["policy"]
    return lambda: instantiate(preset, _partial_=True)(dims=dims), ""


def _of_folder(folder: Path) -> tuple[Callable[[], nn.Module], str]:
    """A folder of this package, of OpenVLA or of lerobot, told by the keys of its config.json."""
    from robopref.checkpoint import outline
    from robopref.networks.backbones import read_object
    from robopref.policies import lerobot_act, lerobot_diffusion, openvla

    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder}: got no config.json, wanted a model folder. Check checkpoint=DIR.")
    config = read_object(path)
    if config.get("model_type") == "openvla":
        told = openvla.arguments(folder)
        told["data"] = told["data"] or next(iter(config.get("norm_stats") or {}), "")  # memory is the same for all
        return lambda: openvla.OpenVLA(**told), "network"
    foreign = {"diffusion": lerobot_diffusion.LeRobotDiffusion, "act": lerobot_act.LeRobotACT}
    if "class" not in config and config.get("type") in foreign:
        return lambda: foreign[config["type"]](config), "body.policy"
    return lambda: outline(folder), ""
