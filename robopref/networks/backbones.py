"""Vision models of torchvision, timm and transformers from a local folder: nothing is downloaded while a program runs.

The folder holds `model.safetensors` and a `config.json` that says whose model it is: transformers' own (`model_type`), timm's own
(`architecture`), or `{"torchvision": "resnet50"}`. A policy keeps what config.json said and the weights, and needs the folder no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HOW = (
    "On a machine with network: `hf download timm/resnet18.a1_in1k --local-dir DIR` (or any vision model of timm or transformers),\n"
    'or save torchvision\'s weights with safetensors beside a config.json {"torchvision": "resnet18"}; then copy DIR here.'
)


class Backbone(nn.Module):
    """A vision model without its classifier: pictures (B, 3, height, width) in [0, 1] -> features (B, `features`).

    It stays in evaluation mode: batch norms with running statistics and dropout would make a score depend on its neighbours and on
    chance. described: what `describe` read; folder: where weights come from, None leaves them random.
    """

    def __init__(self, described: Mapping[str, Any], folder: Path | None = None) -> None:
        super().__init__()
        library, config = described["library"], dict(described["config"])
        build = {"transformers": _transformers, "timm": _timm, "torchvision": _torchvision}[library]
        self.library = library
        self.body, self.size = build(config, folder)
        self.body.eval()
        self.register_buffer("mean", torch.tensor(described["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(described["std"]).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            side = self.size or 64
            self.features = int(self(torch.zeros(1, 3, side, side)).shape[-1])

    mean: Tensor
    std: Tensor

    def train(self, mode: bool = True) -> Backbone:
        """Training mode for gradients' sake only: the model itself stays in evaluation mode."""
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, height, width) float in [0, 1] -> (B, features). Models of one fixed size get pictures scaled to it."""
        if self.size is not None and tuple(pictures.shape[-2:]) != (self.size, self.size):
            pictures = nn.functional.interpolate(pictures, size=(self.size, self.size), mode="bilinear", antialias=True)
        pictures = (pictures - self.mean) / self.std
        if self.library == "transformers":
            hidden = self.body(pixel_values=pictures).last_hidden_state
            return hidden.mean(dim=1) if hidden.dim() == 3 else hidden.mean(dim=(2, 3))
        return self.body(pictures)


def describe(folder: Path) -> dict[str, Any]:
    """Whose model a folder holds: {"library", "config", "mean", "std"}, all of it JSON. Raises `InputError` when it holds none."""
    path = folder / "config.json"
    if not path.is_file():
        there = "a folder without config.json" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: got {there}, wanted a vision model. Nothing is downloaded here.\n{_HOW}")
    config = read_object(path)
    known = {"torchvision": "torchvision", "architecture": "timm", "model_type": "transformers"}
    library = next((name for key, name in known.items() if key in config), None)
    if library is None:
        raise InputError(f"{path}: got none of {', '.join(known)}, wanted one of them: whose model is it?\n{_HOW}")
    told = config.get("pretrained_cfg", {})
    extra_file = folder / "preprocessor_config.json"
    if library == "transformers" and extra_file.is_file():
        said = read_object(extra_file)
        told = {"mean": said.get("image_mean"), "std": said.get("image_std")}
    mean, std = told.get("mean") or IMAGENET_MEAN, told.get("std") or IMAGENET_STD
    return {"library": library, "config": config, "mean": list(mean), "std": list(std)}


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a foreign folder. Raises `InputError` for one that cannot be read, is torn or holds another kind."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: got broken JSON ({error}). Copy the folder again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: got a {type(found).__name__}, wanted a JSON object. Copy the folder again.")
    return found


def extra(module: str, package: str, name: str = "vision") -> Any:
    """A module of the extra `name`. Raises `InputError` where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"got no package {error.name}, wanted {package}. Install the extra: pip install 'robopref[{name}]'."
        ) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of `model.safetensors`. Raises `InputError` for a missing folder or file, and for a torn one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        there = "a folder without model.safetensors" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: got {there}, wanted weights. Nothing is downloaded here.\n{_HOW}")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: got a torn file ({error}), wanted safetensors. Copy it again.") from error


def fit_weights(model: nn.Module, weights: Mapping[str, Tensor], folder: Path, spare: Sequence[str] = ()) -> None:
    """Load weights of exactly the model's names and shapes; names that begin with one of `spare` may be missing or too many.

    Raises `InputError` that names the first five which do not fit.
    """
    wanted = {k: tuple(v.shape) for k, v in model.state_dict().items() if not k.startswith(tuple(spare))}
    got = {k: tuple(v.shape) for k, v in weights.items() if not k.startswith(tuple(spare))}
    wrong = sorted(k for k in wanted.keys() | got.keys() if wanted.get(k) != got.get(k))
    if wrong:
        shown = ", ".join(f"{k}: got {got.get(k)}, wanted {wanted.get(k)}" for k in wrong[:5])
        raise InputError(f"{folder}: {len(wrong)} weights do not fit ({shown}). Is config.json of the same model?")
    model.load_state_dict({k: v for k, v in weights.items() if k in wanted}, strict=False)


def _timm(config: dict[str, Any], folder: Path | None) -> tuple[nn.Module, int | None]:
    timm = extra("timm", "timm")
    name, told = config["architecture"], config.get("pretrained_cfg", {})
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **config.get("model_args", {}))
    except RuntimeError as error:
        raise InputError(f"config.json: timm knows no architecture {name!r} ({error}). Is timm too old?") from error
    if folder is not None:
        head = told.get("classifier") or ()
        fit_weights(
            model,
            read_weights(folder),
            folder,
            spare=tuple(f"{h}." for h in ([head] if isinstance(head, str) else head)) or ("head.", "fc."),
        )
    cfg = model.default_cfg
    return model, int(cfg["input_size"][-1]) if cfg.get("fixed_input_size") else None


def _transformers(config: dict[str, Any], folder: Path | None) -> tuple[nn.Module, int | None]:
    transformers = extra("transformers", "transformers")
    if folder is not None:
        read_weights(folder)  # says what is missing before transformers does
        model, told = transformers.AutoModel.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
        # A pooler is not used here, and many checkpoints have none; anything else that is missing would silently stay random.
        wrong = {k: f"{k}: got none" for k in told["missing_keys"] if "pooler" not in k}
        wrong |= {k: f"{k}: got {tuple(got)}, wanted {tuple(own)}" for k, got, own in told["mismatched_keys"]}
        if wrong:
            shown = ", ".join(wrong[k] for k in sorted(wrong)[:5])
            raise InputError(f"{folder}: {len(wrong)} weights do not fit ({shown}). Is config.json of the same model?")
    else:
        model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**config))
    model = getattr(model, "vision_model", model)  # of a model that also reads, the part that sees
    size = getattr(model.config, "image_size", None)
    return model.float(), int(size) if isinstance(size, int) else None


def _torchvision(config: dict[str, Any], folder: Path | None) -> tuple[nn.Module, int | None]:
    models = extra("torchvision.models", "torchvision")
    try:
        model = models.get_model(config["torchvision"], weights=None)
    except ValueError as error:
        raise InputError(f"config.json: torchvision knows no model {config['torchvision']!r}. {error}") from error
    head = next(name for name in ("fc", "classifier", "heads", "head") if name in dict(model.named_children()))
    if folder is not None:
        fit_weights(model, read_weights(folder), folder, spare=(f"{head}.",))
    setattr(model, head, nn.Identity())
    return model, getattr(model, "image_size", None)
