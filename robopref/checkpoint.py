"""Models as folders: config.json, model.safetensors, normalizer.safetensors, provenance.json. No pickle.

`load` builds only classes of this package: a config names a class path, and a path from outside `robopref` is refused.
"""

from __future__ import annotations

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn

from robopref.arrays import InputError
from robopref.data.files import atomic_folder, write_json
from robopref.types import Dims

FORMAT = 1
NORMALIZER = "normalizer."


def save(model: nn.Module, folder: Path, provenance: dict[str, Any] | None = None) -> Path:
    """Write a model folder; it appears under its name only when complete. `model.config` holds its constructor arguments."""
    from safetensors.torch import save_file

    # Cloned, because a wrapper may hold one policy twice and safetensors refuses shared memory.
    state = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    with atomic_folder(folder) as partial:
        save_file({k: v for k, v in state.items() if not k.startswith(NORMALIZER)}, partial / "model.safetensors")
        frozen = {k.removeprefix(NORMALIZER): v for k, v in state.items() if k.startswith(NORMALIZER)}
        save_file(frozen, partial / "normalizer.safetensors")
        path = f"{type(model).__module__}.{type(model).__qualname__}"
        write_json(partial / "config.json", {"format": FORMAT, "class": path, "arguments": model.config})
        write_json(partial / "provenance.json", provenance or {})
    return folder


def load(folder: Path | str) -> Any:
    """The model of a folder, in evaluation mode. Raises `InputError` for a missing, foreign or mismatching folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    config = _read_config(folder)
    model = _build(folder, config)
    try:
        state = load_file(folder / "model.safetensors")
        frozen = load_file(folder / "normalizer.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder}: got a torn or missing weights file ({error}), wanted safetensors. Train it again."
        ) from error
    state |= {NORMALIZER + k: v for k, v in frozen.items()}
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    got = {k: tuple(v.shape) for k, v in state.items()}
    wrong = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
    if wrong:
        shown = ", ".join(f"{k}: got {got.get(k)}, wanted {wanted.get(k)}" for k in wrong[:5])
        raise InputError(f"{folder}: weights do not fit the configuration ({shown}). Use the folder as it was saved.")
    model.load_state_dict(state)
    return model.eval()


def outline(folder: Path | str) -> Any:
    """The model of a folder without its weights: on the device where modules are being made, "meta" for shapes alone."""
    return _build(Path(folder), _read_config(Path(folder)))


def fingerprint(folder: Path) -> str:
    """Short hash of a model folder's weights and configuration."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors", "normalizer.safetensors"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{folder}: got no config.json, wanted a model folder. Check checkpoint=DIR.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{folder}/config.json: got broken JSON ({error}). Train or copy the model again.") from error
    if not isinstance(config, dict) or not {"format", "class", "arguments"} <= config.keys():
        raise InputError(f"{folder}/config.json: wanted the keys format, class and arguments. Is it a robopref model?")
    if config["format"] != FORMAT:
        raise InputError(f"{folder}: got model format {config['format']}, wanted {FORMAT}. Use the matching robopref.")
    return config


def _build(folder: Path, config: dict[str, Any]) -> nn.Module:
    """The model of {"class": path, "arguments": {...}}; arguments of the same form are models that it wraps."""
    arguments = {name: _argument(folder, value) for name, value in config["arguments"].items()}
    if "dims" in arguments:
        arguments["dims"] = Dims(**arguments["dims"])
    return _class(folder, config["class"])(**arguments)


def _argument(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_argument(folder, one) for one in value]
    wrapped = isinstance(value, dict) and value.keys() == {"class", "arguments"}
    return _build(folder, value) if wrapped else value


def _class(folder: Path, path: str) -> type[nn.Module]:
    module, _, name = path.rpartition(".")
    if not module.startswith(("robopref.policies.", "robopref.rewards.")):
        raise InputError(f"{folder}: got class {path!r}, wanted one of robopref.policies or robopref.rewards.")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{folder}: class {path!r} does not exist in this robopref. Use the matching version."
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise InputError(f"{folder}: {path!r} is no model class.")
    return found
