"""Low-rank adapters (LoRA, Hu et al. 2022, eq. 3) on any module through peft: attach, switch off, merge, read and write as peft's folder.

With its adapters off a model is bit for bit what it was before they were attached, so it is its own reference and no copy is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.backbones import extra, fit_weights, read_object

_NAME = "default"  # peft names every adapter; one is enough here
_PREFIX = "base_model.model."  # peft's own folders carry it before every name
_BASE = "robopref_base.json"
_LOOKED_AT = 256  # numbers of each tensor that a fingerprint reads: of seven billion weights, all would take a minute


def linear_layers(root: nn.Module) -> list[str]:
    """Names of all linear layers whose own `forward` is called (those inside `nn.MultiheadAttention` are not)."""
    inside = tuple(name for name, m in root.named_modules() if isinstance(m, nn.MultiheadAttention))
    return [name for name, m in root.named_modules() if type(m) is nn.Linear and not name.startswith(inside or ("\0",))]


def attach(root: nn.Module, rank: int, alpha: float, targets: Sequence[str] = ()) -> list[str]:
    """Put adapters on the linear layers of `root` whose names end with one of `targets` (all without); everything else is frozen.

    The product of the two factors starts at exactly 0. Returns the layers' names. Raises `InputError` for no such layer.
    """
    peft = extra("peft", "peft", "vla")
    if rank < 1 or alpha <= 0:
        raise InputError(f"LoRA: got rank={rank}, alpha={alpha}, wanted rank >= 1 and alpha > 0.")
    layers = linear_layers(root)
    chosen = [name for name in layers if not targets or f".{name}".endswith(tuple(f".{t}" for t in targets))]
    if not chosen:
        raise InputError(
            f"LoRA.targets: got {', '.join(targets)}, wanted ends of names of linear layers. There are: {', '.join(layers[:5])}."
        )
    peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen), root, _NAME)
    for name, parameter in root.named_parameters():
        parameter.requires_grad_(_is_adapter(name))
        if _is_adapter(name):
            parameter.data = parameter.data.float()  # steps of 1e-5 are lost in bfloat16
    return chosen


@contextmanager
def switched_off(root: nn.Module) -> Iterator[None]:
    """Within, `root` computes as if it had no adapters."""
    layers = _layers(root)
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def merge(root: nn.Module) -> None:
    """Add what the adapters learned to the weights below them and take the adapters away, in place."""
    for name, layer in [(n, m) for n, m in root.named_modules() if m in set(_layers(root))]:
        layer.merge()
        owner, _, last = name.rpartition(".")
        setattr(root.get_submodule(owner), last, layer.base_layer)
    if hasattr(root, "peft_config"):  # peft leaves its notes on the module
        del root.peft_config


def check_frozen(root: nn.Module) -> None:
    """Raise `InputError` when anything but adapters would learn: switching them off would not undo that."""
    loose = [name for name, p in root.named_parameters() if p.requires_grad and not _is_adapter(name)]
    if loose:
        raise InputError(
            f"LoRA: {len(loose)} weights outside the adapters would learn ({', '.join(loose[:5])}), wanted none: "
            "with adapters off they would not be the reference's.\nFreeze them with requires_grad_(False)."
        )


def fingerprint(root: nn.Module) -> str:
    """Short hash of the names, shapes and first numbers of everything but the adapters: which base they belong to."""
    digest = hashlib.sha256()
    for name, value in sorted(root.state_dict().items()):
        if not _is_adapter(name):
            digest.update(f"{name.replace('.base_layer', '')} {tuple(value.shape)}".encode())
            digest.update(value.flatten()[:_LOOKED_AT].double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def write_adapter(root: nn.Module, base: str, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors` as peft does, and which `base` they belong to, into a folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config: Any = root.peft_config
    config[_NAME].save_pretrained(str(folder))
    state = {_PREFIX + k: v.cpu().contiguous() for k, v in adapter_state(root).items()}
    save_file(state, folder / "adapter_model.safetensors")
    (folder / _BASE).write_text(json.dumps({"base": base}), encoding="utf-8")


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """rank, alpha and targets of an adapter folder. Raises `InputError` where there is none, or one of another kind."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError(f"{folder}: got no adapter_config.json, wanted an adapter folder as peft writes it.")
    config = read_object(path)
    other = [k for k in ("use_dora", "use_rslora", "modules_to_save", "rank_pattern", "alpha_pattern") if config.get(k)]
    if config.get("peft_type") != "LORA" or other or not isinstance(config.get("target_modules"), list):
        raise InputError(
            f"{path}: got peft_type={config.get('peft_type')!r} with {', '.join(other) or 'unlisted layers'}, wanted plain LoRA "
            "with a list of layers.\nMerge it into its base with peft and load that."
        )
    return {"rank": config["r"], "alpha": config["lora_alpha"], "targets": config["target_modules"]}


def read_adapter(root: nn.Module, base: str, folder: Path) -> None:
    """Fill the adapters of `root` from a folder. Raises `InputError` for another base (where the folder tells), other names or shapes."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    told = folder / _BASE
    if told.is_file() and (found := read_object(told).get("base")) != base:
        raise InputError(
            f"{folder}: got adapters of base {found}, wanted {base}: weights or normaliser differ. Load them onto their own base."
        )
    try:
        state = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: got missing or torn adapters ({error}), wanted safetensors.") from error
    inside = {_inside(k.removeprefix(_PREFIX)): v for k, v in state.items()}
    outside = tuple(k for k in root.state_dict() if not _is_adapter(k))
    fit_weights(root, inside, folder, spare=outside)


def adapter_state(root: nn.Module) -> dict[str, Tensor]:
    """The adapters' tensors under the names that peft writes, without its prefix."""
    mark = f".{_NAME}."
    return {k.replace(mark, "."): v.detach() for k, v in root.state_dict().items() if _is_adapter(k)}


def _inside(name: str) -> str:
    """The name of a written tensor inside the module: `x.lora_A.weight` -> `x.lora_A.default.weight`."""
    return name.replace(".lora_A.weight", f".lora_A.{_NAME}.weight").replace(
        ".lora_B.weight", f".lora_B.{_NAME}.weight"
    )


def _is_adapter(name: str) -> bool:
    return ".lora_" in name


def _layers(root: nn.Module) -> list[Any]:
    tuners = extra("peft.tuners.tuners_utils", "peft", "vla")
    return [m for m in root.modules() if isinstance(m, tuners.BaseTunerLayer)]
