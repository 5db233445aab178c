"""What pi0, pi0.5 and pi0-FAST (Physical Intelligence 2024-2025, as lerobot ports them) read: PaliGemma's tokenizer and a state in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from torch import Tensor

from robopref.arrays import InputError
from robopref.networks.backbones import extra, read_object
from robopref.networks.lerobot_flow import LeRobotReader

_BINS = np.linspace(-1, 1, 256 + 1)[:-1]
_HOW = (
    "Nothing is downloaded here. Where there is network: hf download google/paligemma-3b-pt-224 tokenizer.json tokenizer_config.json "
    "special_tokens_map.json --local-dir DIR\n(its licence must be accepted), and copy the files into the checkpoint's folder or say tokenizer=DIR."
)


class LeRobotPi(LeRobotReader):
    """A policy of the pi family. tokenizer: folder of PaliGemma's; bfloat16: of the weights, where config.json does not ask for it already.

    Norms, the vision tower and the projections of states and actions stay float32, as lerobot keeps them.
    """

    def __init__(self, checkpoint: Mapping[str, Any], tokenizer: str, bfloat16: bool = False, **options: Any) -> None:
        read = read_tokenizer(tokenizer)  # said before a model of billions of weights is made
        told = {**checkpoint, "dtype": "bfloat16"} if bfloat16 else checkpoint
        super().__init__(told, tokenizer=tokenizer, **options)
        self.tokenizer = read

    @classmethod
    def from_folder(cls, folder: Path, **options: Any) -> Self:
        """The policy of a folder as lerobot writes it; tokenizer=DIR where it is not in it. Raises `InputError` for what is missing or does not fit."""
        if "tokenizer" not in options:
            options["tokenizer"] = tokenizer_folder(folder)
        return super().from_folder(folder, **options)


def tokenizer_folder(folder: Path) -> str:
    """Where a checkpoint's tokenizer lies: in its own folder, or in the local one that its preprocessor names. Raises `InputError` for neither."""
    if (folder / "tokenizer.json").is_file():
        return str(folder)
    path = folder / "policy_preprocessor.json"
    steps = read_object(path).get("steps", []) if path.is_file() else []
    named = [one["config"].get("tokenizer_name") for one in steps if one.get("registry_name") == "tokenizer_processor"]
    for name in filter(None, named):
        if (Path(name) / "tokenizer.json").is_file():
            return str(name)
    raise InputError(
        f"{folder}: got no tokenizer.json{f' (the preprocessor names {named[0]})' if named else ''}, wanted PaliGemma's.\n{_HOW}"
    )


def read_tokenizer(folder: str, **options: Any) -> Any:
    """The tokenizer of a local folder, as transformers reads it. Raises `InputError` where there is none."""
    if not (Path(folder) / "tokenizer.json").is_file():
        raise InputError(f"tokenizer: got {folder!r}, a folder without tokenizer.json, wanted PaliGemma's.\n{_HOW}")
    transformers = extra("transformers", "transformers", "lerobot")
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)


def with_state(said: Sequence[str], state: Tensor) -> list[str]:
    """Tasks and normalised states (B, D) -> what is read: numbers of [-1, 1] as one of 256 bins, beyond it -1 or 255."""
    bins = np.digitize(state.detach().cpu().numpy(), bins=_BINS) - 1
    cleaned = [one.strip().replace("_", " ").replace("\n", " ") for one in said]
    return [f"Task: {one}, State: {' '.join(map(str, row))};\n" for one, row in zip(cleaned, bins, strict=True)]
