"""FAST (Pertsch et al. 2025): a chunk as byte pairs of its rounded cosine coefficients, read from the folder of a published tokenizer.

That folder brings Python code of its own, which is not run here: `tokenizer.json` and `processor_config.json` say all that is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.fft import dct, idct
from torch import Tensor

from robopref.arrays import InputError
from robopref.networks.backbones import extra, read_object

_HOW = (
    "Nothing is downloaded here. Where there is network: hf download lerobot/fast-action-tokenizer --local-dir DIR\n"
    "and copy it to the checkpoint's folder as action_tokenizer, or say action_tokenizer=DIR."
)


class FastTokens:
    """Chunks (H, A) of normalised numbers <-> ids. Raises `InputError` for a folder that holds no such tokenizer."""

    def __init__(self, folder: str) -> None:
        files = [Path(folder) / name for name in ("tokenizer.json", "processor_config.json")]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise InputError(f"action_tokenizer: got {folder!r} without {', '.join(missing)}, wanted FAST's.\n{_HOW}")
        told = read_object(files[1])
        if not {"scale", "min_token"} <= told.keys():
            raise InputError(f"{files[1]}: got no scale and min_token, wanted FAST's processor_config.json.\n{_HOW}")
        self.scale, self.least = float(told["scale"]), int(told["min_token"])
        self._pairs = extra("tokenizers", "tokenizers", "lerobot").Tokenizer.from_file(str(files[0]))

    def encode(self, chunk: Tensor) -> list[int]:
        """Ids of a chunk (H, A); how many depends on it."""
        rounded = np.around(dct(chunk.detach().cpu().numpy(), axis=0, norm="ortho") * self.scale)
        kept = np.maximum(rounded.flatten() - self.least, 0).astype(int)
        return list(self._pairs.encode("".join(map(chr, kept))).ids)

    def decode(self, ids: Sequence[int], horizon: int, action: int) -> np.ndarray:
        """Chunk (H, A). As lerobot decodes: too many coefficients are cut, missing ones are 0, and what is no id at all gives a chunk of 0."""
        found = np.zeros(horizon * action)
        if min(ids, default=0) >= 0:
            told = [ord(one) + self.least for one in self._pairs.decode(list(ids), skip_special_tokens=False)]
            found[: min(len(told), len(found))] = told[: len(found)]
        return idct(found.reshape(horizon, action) / self.scale, axis=0, norm="ortho")
