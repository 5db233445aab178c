"""What a policy that looks says of its pictures, and the pictures of many chunks without holding them all in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import InputError, check_shape

NOT_PIXELS = frozenset({"cameras"})
"""Render settings that say which pictures there are, not how they look."""


@dataclass(frozen=True)
class PictureSpec:
    """Which pictures a policy sees, how they were drawn, and how they are changed in training (never in scoring)."""

    cameras: tuple[str, ...] = ()
    size: tuple[int, int] = (84, 84)
    """Height and width in pixels."""
    shift: int = 0
    """Random shift in training, at most this many pixels each way (Yarats et al. 2021, DrQ)."""
    colour: float = 0.0
    """Random change of brightness, contrast and each colour in training, at most this share."""
    render: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the training pictures were drawn with; empty where nobody recorded them."""

    def __post_init__(self) -> None:
        if min(self.size) < 1 or not 0 <= self.shift < min(self.size) or not 0 <= self.colour < 1:
            raise InputError(
                f"PictureSpec: got size={self.size}, shift={self.shift}, colour={self.colour}, wanted a size of at least one "
                "pixel, a shift of 0 to below the size, a colour change of 0 to below 1."
            )

    def check_drawn(self, owner: str, settings: Mapping[str, Any]) -> None:
        """Raise `InputError` unless pictures drawn with `settings` look like those the policy learned from."""
        size = (settings.get("height"), settings.get("width"))
        if size != self.size:
            raise InputError(
                f"{owner}: got pictures of {size[0]}x{size[1]}, wanted {self.size[0]}x{self.size[1]} as the policy learned from.\n"
                f"Say env.image_size={self.size[0]}, or train a policy on pictures of that size."
            )
        keys = sorted((self.render.keys() | settings.keys()) - NOT_PIXELS) if self.render else []
        other = [k for k in keys if self.render.get(k) != settings.get(k)]
        if other:
            shown = ", ".join(f"{k}: got {settings.get(k)!r}, wanted {self.render.get(k)!r}" for k in other[:5])
            raise InputError(
                f"{owner}: pictures are drawn otherwise than those the policy learned from ({shown}).\n"
                "Draw them alike, or collect again and train on pictures drawn like this."
            )


@dataclass(frozen=True)
class Frames:
    """Pictures of B histories that are copied out of their episodes when rows are asked for."""

    sources: tuple[np.ndarray, ...]
    """(T, height, width, 3) uint8 each, for example views of a memory map."""
    source: Tensor
    """(B,) int64, which of the sources a row is from."""
    at: Tensor
    """(B, K) int64, the steps of a row."""

    def __post_init__(self) -> None:
        do = "Every row has one source and K steps of it."
        check_shape("Frames", "source", tuple(self.source.shape), (len(self.at),), do)
        for array in self.sources:
            check_shape("Frames", "sources", array.shape[1:], self.sources[0].shape[1:], "One size for all episodes.")

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, K, height, width, 3)."""
        return (*self.at.shape, *self.sources[0].shape[1:])

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """The pictures of some rows, (rows, K, height, width, 3) uint8."""
        source, at = self.source[rows].tolist(), self.at[rows].numpy()
        out = np.empty((*at.shape, *self.sources[0].shape[1:]), dtype=np.uint8)
        for row, (which, steps) in enumerate(zip(source, at, strict=True)):
            out[row] = self.sources[which][steps]
        return torch.from_numpy(out)


def joined(parts: Sequence[Tensor | Frames]) -> Tensor | Frames:
    """Pictures of several batches, one after the other; `Frames` stay uncopied."""
    frames = [p for p in parts if isinstance(p, Frames)]
    if len(frames) < len(parts):
        return torch.cat([p if isinstance(p, Tensor) else p[:] for p in parts])
    offsets = np.cumsum([0, *(len(p.sources) for p in frames[:-1])]).tolist()
    source = torch.cat([p.source + offset for p, offset in zip(frames, offsets, strict=True)])
    return Frames(tuple(a for p in frames for a in p.sources), source, torch.cat([p.at for p in frames]))
