"""Tensor-level nouns: frozen dataclasses whose constructors check shapes with "got / wanted / do" messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from robopref.arrays import InputError, check_shape
from robopref.pictures import Frames, PictureSpec, joined


@dataclass(frozen=True)
class Dims:
    """Widths of one environment."""

    observation: int
    """D, width of the state vector."""
    action: int
    """A, width of an action; actions lie in [-1, 1]."""

    def __post_init__(self) -> None:
        if self.observation < 1 or self.action < 1:
            raise InputError(
                f"Dims: got observation={self.observation}, action={self.action}, wanted both >= 1. "
                "Read them from the environment's spaces."
            )


@dataclass(frozen=True)
class Observation:
    """What a policy sees: a short history, oldest first."""

    state: Tensor
    """(B, K, D) float32, K observations of history."""
    images: Mapping[str, Tensor | Frames] = field(default_factory=dict)
    """camera -> (B, K, height, width, 3) uint8; `Frames` are read when rows are taken."""
    sentence: tuple[str, ...] = ()
    """What each of the B rows is asked to do, or nothing where nobody is asked in words."""

    def __post_init__(self) -> None:
        check_shape("Observation", "state", tuple(self.state.shape), (None, None, None), "Add the history axis K.")
        if self.sentence and len(self.sentence) != len(self.state):
            raise InputError(
                f"Observation.sentence: got {len(self.sentence)} sentences, wanted {len(self.state)}. Give one for every row, or none."
            )
        for name, image in self.images.items():
            wanted = (self.state.shape[0], self.state.shape[1], None, None, 3)
            check_shape(
                "Observation", f"images[{name}]", tuple(image.shape), wanted, "Pictures follow the state's (B, K)."
            )

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, index: Tensor | slice) -> Observation:
        images = {k: v[index] for k, v in self.images.items()}
        return Observation(self.state[index], images, _taken(self.sentence, index))

    def to(self, device: torch.device) -> Observation:
        """The same on a device; pictures that are still to be read are moved when a policy looks at them."""
        images = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.images.items()}
        return Observation(self.state.to(device), images, self.sentence)

    def picture(self, camera: str, size: tuple[int, int]) -> Tensor:
        """Pictures (B, K, height, width, 3) uint8 by a camera. Raises `InputError` when they are missing or of another size."""
        if camera not in self.images:
            seen = f"those by {', '.join(self.images)}" if self.images else "none"
            raise InputError(
                f"Observation: got no pictures by {camera!r} ({seen}), wanted them: the policy looks through it."
            )
        image = self.images[camera]
        do = "Draw pictures of the size the policy learned from."
        check_shape("Observation", f"images[{camera}]", tuple(image.shape), (None, None, *size, 3), do)
        return image if isinstance(image, Tensor) else image[:]


@dataclass(frozen=True)
class Segments:
    """B windows of trajectories, padded to one length."""

    observation: Tensor
    """(B, T, D) float32."""
    action: Tensor
    """(B, T, A) float32."""
    mask: Tensor
    """(B, T) float32, 1 at real steps, 0 at padding."""
    images: Mapping[str, Tensor | Frames] = field(default_factory=dict)
    """camera -> (B, T, height, width, 3) uint8, for rewards that look; `Frames` are read when rows are taken."""

    def __post_init__(self) -> None:
        check_shape("Segments", "mask", tuple(self.mask.shape), (None, None), "One mask value per step.")
        batch, steps = self.mask.shape
        do = "Pad all windows of a batch to one length and mask the padding."
        check_shape("Segments", "observation", tuple(self.observation.shape), (batch, steps, None), do)
        check_shape("Segments", "action", tuple(self.action.shape), (batch, steps, None), do)
        for name, image in self.images.items():
            check_shape("Segments", f"images[{name}]", tuple(image.shape), (batch, steps, None, None, 3), do)

    def __len__(self) -> int:
        return len(self.mask)

    def __getitem__(self, index: Tensor | slice) -> Segments:
        images = {k: v[index] for k, v in self.images.items()}
        return Segments(self.observation[index], self.action[index], self.mask[index], images)


@dataclass(frozen=True)
class PreferenceBatch:
    """B compared pairs. The direction is in the name: `prob_first` = P(first preferred over second), 0.5 a tie."""

    first: Segments
    second: Segments
    prob_first: Tensor
    """(B,) float32 in [0, 1]."""
    weight: Tensor
    """(B,) float32 >= 0, how much a pair counts."""

    def __post_init__(self) -> None:
        pairs = len(self.first)
        do = "Let first, second, prob_first and weight describe the same pairs."
        check_shape("PreferenceBatch", "second", (len(self.second),), (pairs,), do)
        check_shape("PreferenceBatch", "prob_first", tuple(self.prob_first.shape), (pairs,), do)
        check_shape("PreferenceBatch", "weight", tuple(self.weight.shape), (pairs,), do)
        if pairs and not bool(((self.prob_first >= 0) & (self.prob_first <= 1)).all()):
            raise InputError(
                "PreferenceBatch.prob_first: got a value outside [0, 1], wanted probabilities. Convert the labels at the door."
            )
        if pairs and not bool((self.weight >= 0).all()):
            raise InputError(
                "PreferenceBatch.weight: got a negative or NaN weight, wanted weights >= 0. Leave pairs out that shall not count."
            )

    def __len__(self) -> int:
        return len(self.prob_first)

    def __getitem__(self, index: Tensor | slice) -> PreferenceBatch:
        return PreferenceBatch(self.first[index], self.second[index], self.prob_first[index], self.weight[index])


@dataclass(frozen=True)
class Chunks:
    """B predicted action chunks with what was seen and which elements count."""

    observation: Observation
    action: Tensor
    """(B, H, A) float32, environment units."""
    mask: Tensor
    """(B, H, A) float32, 1 where the element was executed and is no padding."""

    def __post_init__(self) -> None:
        do = "Observation, action and mask describe the same chunks."
        check_shape("Chunks", "action", tuple(self.action.shape), (len(self.observation), None, None), do)
        check_shape("Chunks", "mask", tuple(self.mask.shape), tuple(self.action.shape), do)

    def __len__(self) -> int:
        return len(self.action)

    def __getitem__(self, index: Tensor | slice) -> Chunks:
        if _everything(index) and all(isinstance(v, Tensor) for v in self.observation.images.values()):
            return self  # pictures that are still to be read are read by taking rows
        return Chunks(self.observation[index], self.action[index], self.mask[index])

    def split(self, chunks: int) -> list[Chunks]:
        """Parts of so many chunks each; all as one part is the same object."""
        if chunks == len(self):
            return [self]
        return [self[begin : begin + chunks] for begin in range(0, len(self), chunks)]

    def to(self, device: torch.device) -> Chunks:
        """The same on a device."""
        return Chunks(self.observation.to(device), self.action.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Noised:
    """What a denoiser sees of B chunks at M draws each and what it should say, all of it known without its weights."""

    noisy: Tensor
    """(B M, H, A) float32."""
    time: Tensor
    """(B M,), see `Draws.time`."""
    condition: Tensor
    """(B M, C) float32."""
    target: Tensor
    """(B, M, H, A) float32."""
    elements: Tensor
    """(B,) float32, executed elements of a chunk, at least 1."""
    made_by: Mapping[str, Any]
    """Settings of the policy that made it; a policy with others makes its own."""

    def split(self, chunks: int) -> list[Noised]:
        """Parts of so many chunks each."""
        probes = self.target.shape[1]
        noisy, time, condition = (part.split(chunks * probes) for part in (self.noisy, self.time, self.condition))
        parts = zip(noisy, time, condition, self.target.split(chunks), self.elements.split(chunks), strict=True)
        return [Noised(*part, made_by=self.made_by) for part in parts]


@dataclass(frozen=True)
class Draws:
    """The noise and times at which a score is taken: M probes per chunk, shared by everything that is compared."""

    time: Tensor
    """(B, M), diffusion step (int64) or flow time (float32)."""
    noise: Tensor
    """(B, M, H, A) float32."""
    noised: Noised | None = None
    """These draws applied to their chunks, where that has been done ahead (`protocols.Preparing`); taking rows leaves it out."""

    def __post_init__(self) -> None:
        check_shape("Draws", "time", tuple(self.time.shape), (None, None), "One time per chunk and probe.")
        wanted = (*self.time.shape, None, None)
        check_shape("Draws", "noise", tuple(self.noise.shape), wanted, "One noise per chunk and probe.")

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, index: Tensor | slice) -> Draws:
        if _everything(index):
            return self
        return Draws(self.time[index], self.noise[index])

    def split(self, chunks: int) -> list[Draws]:
        """Parts of so many chunks each, with what has been done ahead for them."""
        times = self.time.split(chunks)
        noised: Sequence[Noised | None] = [None] * len(times) if self.noised is None else self.noised.split(chunks)
        return list(map(Draws, times, self.noise.split(chunks), noised))


@dataclass(frozen=True)
class PolicySpec:
    """What a caller must know of a policy to feed it and run it."""

    dims: Dims
    horizon: int
    """H, predicted steps per chunk."""
    execute: int
    """E, steps of a chunk that run before the next is predicted."""
    history: int
    """K, observations a prediction sees."""
    pictures: PictureSpec = field(default_factory=PictureSpec)
    """Pictures the policy wants; none without cameras."""
    words: int = 0
    """Longest sentence that the policy reads, in words; 0: it reads none."""

    def __post_init__(self) -> None:
        if not 1 <= self.execute <= self.horizon or self.history < 1:
            raise InputError(
                f"PolicySpec: got execute={self.execute}, horizon={self.horizon}, history={self.history}, "
                "wanted 1 <= execute <= horizon and history >= 1. Predict at least as many steps as are run."
            )


def _taken(sentence: tuple[str, ...], index: Tensor | slice) -> tuple[str, ...]:
    """The sentences of some rows, chosen as a tensor's rows are."""
    if isinstance(index, slice) or not sentence:
        return sentence[index] if isinstance(index, slice) else ()
    rows = torch.as_tensor(index)
    return tuple(sentence[i] for i in (rows.nonzero().flatten() if rows.dtype == torch.bool else rows).tolist())


def _everything(index: Tensor | slice) -> bool:
    """Whether an index takes all rows as they are, so that nothing need be built anew."""
    return isinstance(index, slice) and index == slice(None)


def joined_draws(parts: Sequence[Draws]) -> Draws:
    """Draws of several batches, one after the other; what has been done ahead for them is left out."""
    return Draws(torch.cat([d.time for d in parts]), torch.cat([d.noise for d in parts]))


def concatenate(batches: list[Chunks]) -> Chunks:
    """Chunks of several batches, one after the other."""
    observation = Observation(
        torch.cat([b.observation.state for b in batches]),
        {k: joined([b.observation.images[k] for b in batches]) for k in batches[0].observation.images},
        tuple(chain.from_iterable(b.observation.sentence for b in batches)),
    )
    return Chunks(observation, torch.cat([b.action for b in batches]), torch.cat([b.mask for b in batches]))
