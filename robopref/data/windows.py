"""From trajectories to tensors: padded segments for reward models, flat chunk tables for policies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import InputError, Trajectory, check_shape
from robopref.pictures import Frames
from robopref.types import Chunks, Observation, PolicySpec, PreferenceBatch, Segments

MASKED = "safety.masked"
"""Feature of a recorded episode, 1 where the arm was held or stopped: what was meant to run then did not."""


def live_steps(trajectory: Trajectory) -> np.ndarray:
    """Steps (T,) bool in which the policy's actions ran: all of them unless the episode says otherwise."""
    masked = trajectory.extra.get(MASKED)
    return np.ones(len(trajectory), dtype=bool) if masked is None else masked[:, 0] == 0


def segments(trajectories: Sequence[Trajectory], stride: int = 1, cameras: Sequence[str] = ()) -> Segments:
    """Whole trajectories as padded segments, every `stride`-th step: (B, T', D), (B, T', A), (B, T'), and pictures by `cameras`.

    Steps in which a recorded arm was held are masked like padding. Raises `InputError` for no trajectory, unequal widths, and one without the pictures.
    """
    if not trajectories:
        raise InputError("segments: got no trajectory, wanted at least 1.")
    parts = [(t.observation[::stride], t.action[::stride], live_steps(t)[::stride]) for t in trajectories]
    widths = {(o.shape[1], a.shape[1]) for o, a, _ in parts}
    if len(widths) > 1:
        raise InputError(
            f"segments: got (observation, action) widths {sorted(widths)}, wanted one. Split the data by task."
        )
    longest = max(len(o) for o, _, _ in parts)
    observation = np.zeros((len(parts), longest, parts[0][0].shape[1]), dtype=np.float32)
    action = np.zeros((len(parts), longest, parts[0][1].shape[1]), dtype=np.float32)
    mask = np.zeros((len(parts), longest), dtype=np.float32)
    for row, (seen, done, live) in enumerate(parts):
        observation[row, : len(seen)], action[row, : len(seen)], mask[row, : len(seen)] = seen, done, live
    images = {camera: _filmed(trajectories, camera, stride, longest) for camera in cameras}
    return Segments(torch.from_numpy(observation), torch.from_numpy(action), torch.from_numpy(mask), images)


def _filmed(trajectories: Sequence[Trajectory], camera: str, stride: int, steps: int) -> Frames:
    """Pictures of every `stride`-th step, the last one repeated where an episode ends early."""
    for one in trajectories:
        if camera not in one.images:
            raise InputError(
                f"segments: got an episode (seed {one.seed}) without pictures by {camera!r}, wanted them: the reward looks through it.\n"
                "Collect with cameras=[...], and read the store with `robopref.data.picture_cache.cached(store, cameras)`."
            )
    last = [(len(t) - 1) // stride for t in trajectories]
    at = np.stack([np.minimum(np.arange(steps), n) * stride for n in last])
    return Frames(tuple(t.images[camera] for t in trajectories), torch.arange(len(trajectories)), torch.from_numpy(at))


def pair_batch(
    first: Sequence[Trajectory],
    second: Sequence[Trajectory],
    prob_first: np.ndarray,
    weight: np.ndarray,
    stride: int = 1,
    cameras: Sequence[str] = (),
) -> PreferenceBatch:
    """Compared trajectories (or windows of them), padded to one length, with prob_first (N,) and weight (N,)."""
    if not len(first) == len(second) == len(prob_first) == len(weight):
        raise InputError(
            f"pair_batch: got {len(first)} first, {len(second)} second, {len(prob_first)} labels, {len(weight)} weights, "
            "wanted as many of each."
        )
    every = segments([*first, *second], stride, cameras)
    half = len(first)
    labels, weights = (torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in (prob_first, weight))
    return PreferenceBatch(every[:half], every[half:], labels, weights)


def history_steps(at: np.ndarray, history: int) -> np.ndarray:
    """The last `history` steps up to each step of `at`, the first one repeated: (len(at), K)."""
    return np.maximum(at[:, None] + np.arange(1 - history, 1)[None], 0)


def chunk_rows(
    trajectory: Trajectory, spec: PolicySpec, every: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """History (C, K, D), action (C, H, A), mask (C, H) and steps of the history (C, K) of a trajectory's chunks.

    Where a policy acted: its own predicted chunks with their executed mask. Otherwise windows of the executed actions starting at
    every `every`-th step, the part beyond the episode's end masked, and that from the next step on in which a recorded arm was held.
    """
    if trajectory.chunk is not None and trajectory.executed is not None:
        at = np.flatnonzero(trajectory.executed.any(axis=1))
        action, mask = trajectory.chunk[at], trajectory.executed[at]
    else:
        live = live_steps(trajectory)
        at = np.arange(0, len(trajectory), every)
        at = at[live[at]]
        index = at[:, None] + np.arange(spec.horizon)[None]  # (C, H)
        mask = (index < len(trajectory)) & np.logical_and.accumulate(live[np.minimum(index, len(live) - 1)], axis=1)
        action = trajectory.action[np.minimum(index, len(trajectory) - 1)]
    steps = history_steps(at, spec.history)
    return trajectory.observation[steps], action, mask, steps


@dataclass(frozen=True)
class ChunkTable:
    """All chunks of several trajectories in one flat batch; trajectory i owns rows [start[i], start[i + 1])."""

    chunks: Chunks
    start: Tensor
    """(N + 1,) int64."""

    def __len__(self) -> int:
        return len(self.start) - 1

    def to(self, device: torch.device) -> ChunkTable:
        """The same with its chunks on a device; which rows to take is always chosen on the CPU."""
        return ChunkTable(self.chunks.to(device), self.start)

    def count(self, trajectories: Tensor) -> Tensor:
        """Chunks of each trajectory: (B,) -> (B,)."""
        return self.start[trajectories + 1] - self.start[trajectories]

    def sample(
        self, trajectories: Tensor, per_trajectory: int, generator: torch.Generator, early: float = 0.0
    ) -> Tensor:
        """Rows (B, per_trajectory), stratified in time over each of the given trajectories (B,).

        early: chunks at a position x in [0, 1] of their trajectory come with density ~ exp(-early x); 0 draws all alike.
        """
        return self.rows(trajectories, torch.rand(len(trajectories), per_trajectory, generator=generator), early)

    def rows(self, trajectories: Tensor, uniform: Tensor, early: float = 0.0) -> Tensor:
        """The rows (B, C) that `sample` takes of trajectories (B,) by uniform random numbers (B, C)."""
        per_trajectory = uniform.shape[1]
        position = (torch.arange(per_trajectory) + uniform) / per_trajectory  # (B, C) in [0, 1)
        if early > 0:  # the inverse of the distribution function keeps the strata
            position = -torch.log1p(position * math.expm1(-early)) / early
        start, end = self.start[trajectories, None], self.start[trajectories + 1, None]
        # (C - 1 + u) / C can round up to 1, which would be the next trajectory's first chunk.
        return torch.minimum(start + (position * (end - start)).long(), end - 1)


def chunk_table(trajectories: Sequence[Trajectory], spec: PolicySpec, every: int = 1) -> ChunkTable:
    """The chunk table of trajectories; `every` thins windows where no policy acted.

    Pictures stay in the trajectories and are copied when rows are taken. Raises `InputError` where the policy looks through a camera
    that an episode lacks, or reads a sentence and an episode has none.
    """
    if not trajectories:
        raise InputError("chunk_table: got no trajectory, wanted at least 1.")
    rows = [chunk_rows(t, spec, every) for t in trajectories]
    state, action, mask = (np.concatenate([r[k] for r in rows]).astype(np.float32) for k in range(3))
    width = spec.dims.action
    chunks = Chunks(
        Observation(
            torch.from_numpy(state),
            _pictures(trajectories, spec, [r[3] for r in rows]),
            _sentences(trajectories, spec, [len(r[1]) for r in rows]),
        ),
        torch.from_numpy(action),
        torch.from_numpy(mask)[..., None].expand(-1, -1, width).contiguous(),
    )
    start = np.cumsum([0, *(len(r[1]) for r in rows)])
    return ChunkTable(chunks, torch.from_numpy(start))


def _pictures(trajectories: Sequence[Trajectory], spec: PolicySpec, steps: Sequence[np.ndarray]) -> dict[str, Frames]:
    """camera -> the pictures of all chunks, for the cameras of a policy."""
    for camera in spec.pictures.cameras:
        for one in trajectories:
            if camera not in one.images:
                raise InputError(
                    f"chunk_table: got an episode (seed {one.seed}) without pictures by {camera!r}, wanted them: the policy looks "
                    "through it.\nRead the store with `robopref.data.picture_cache.cached(store, cameras)`."
                )
            size = spec.pictures.size
            do = "Train on pictures of the policy's size."
            check_shape("chunk_table", f"images[{camera}]", one.images[camera].shape, (None, *size, 3), do)
    owner = torch.repeat_interleave(torch.arange(len(steps)), torch.tensor([len(s) for s in steps]))
    at = torch.from_numpy(np.concatenate(steps))
    return {c: Frames(tuple(t.images[c] for t in trajectories), owner, at) for c in spec.pictures.cameras}


def _sentences(trajectories: Sequence[Trajectory], spec: PolicySpec, counts: Sequence[int]) -> tuple[str, ...]:
    """What every chunk was asked for, for a policy that reads."""
    if spec.words == 0:
        return ()
    for one in trajectories:
        if not one.sentence:
            raise InputError(
                f"chunk_table: got an episode ({one.task}, seed {one.seed}) without a sentence, wanted one: the policy reads.\n"
                "Collect with `robopref run experiment=vla`, which asks for every episode in words."
            )
    return tuple(one.sentence for one, count in zip(trajectories, counts, strict=True) for _ in range(count))
