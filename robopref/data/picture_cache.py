"""Decoded pictures of a store: uint8 frames in one memory-mapped file per camera, made once from the videos.

`STORE/cache/CAMERA.u8` holds the frames of all episodes in order, (F, height, width, 3); `CAMERA.json` beside it says of which
videos and how many are done, so that a killed build goes on where it was. Reading a random frame costs one copy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data import features as f
from robopref.data.files import disk_errors, locked, read_json, write_json
from robopref.data.store import TrajectoryStore
from robopref.data.video import decode
from robopref.progress import track

FORMAT = 1
FOLDER = "cache"
_STEP_BYTES = 64 * 2**20  # what a kill costs at most: decoded frames between two notes of how far it is


@dataclass(frozen=True)
class Plan:
    """What a cache takes, known before anything is decoded."""

    folder: Path
    frames: int
    """Frames of each camera."""
    bytes: int
    """Size of the complete cache on disk."""
    left: int
    """Bytes that are still to be decoded."""

    def __str__(self) -> str:
        done = "" if self.left == self.bytes else f", {_size(self.bytes - self.left)} of it done"
        return f"pictures: {_size(self.bytes)} for {self.frames} frames in {self.folder}{done}"


def cached(
    store: TrajectoryStore, cameras: Sequence[str], tell: Callable[[str], None] | None = None
) -> list[Trajectory]:
    """All episodes of a store, their pictures by `cameras` views of the cache, which is built where it is missing or old.

    tell: hears the size before the first frame is decoded. Raises `InputError` as `build` does. Without cameras: `store.load()`.
    """
    episodes = store.load()
    if not cameras:
        return episodes
    build(store, cameras, tell)
    ends = np.cumsum([e.length for e in store.episodes])
    frames = {camera: _opened(store, camera) for camera in cameras}
    return [
        replace(one, images={camera: array[end - len(one) : end] for camera, array in frames.items()})
        for one, end in zip(episodes, ends, strict=True)
    ]


def plan(store: TrajectoryStore, cameras: Sequence[str]) -> Plan:
    """The size of the cache of some cameras. Raises `InputError` for a camera that the store lacks."""
    whole = left = 0
    for camera in cameras:
        shape = frame_shape(store, camera)
        one = int(np.prod(shape))
        whole += one * _total(store)
        left += one * (_total(store) - _done(store, camera))
    return Plan(store.root / FOLDER, _total(store), whole, left)


def build(store: TrajectoryStore, cameras: Sequence[str], tell: Callable[[str], None] | None = None) -> Path:
    """Decode what the cache of some cameras still lacks; returns its folder. A second process waits for the first.

    Raises `InputError` for a camera that the store lacks, too little room on the disk, a video that ends early or lacks a frame,
    and pictures of another size than the store says.
    """
    folder = store.root / FOLDER
    if plan(store, cameras).left == 0:
        return folder
    with locked(folder, wait=True):
        wanted = plan(store, cameras)
        if wanted.left == 0:
            return folder
        if tell is not None:
            tell(str(wanted))
        # The file's blocks are taken at once, so that a build never fills the disk halfway.
        room = shutil.disk_usage(folder).free + sum(_taken(store, camera) for camera in cameras)
        if room < wanted.bytes:
            raise InputError(
                f"{folder}: got {_size(room)} of room, wanted {_size(wanted.bytes)} for decoded pictures. Free space first."
            )
        for camera in cameras:
            if _done(store, camera) < _total(store):
                with disk_errors(folder):
                    _decode(store, camera)
    return folder


def frame_shape(store: TrajectoryStore, camera: str) -> tuple[int, int, int]:
    """(height, width, 3) of a camera's pictures. Raises `InputError` for a camera that the store lacks."""
    if camera not in store.cameras:
        known = f"one of {', '.join(store.cameras)}" if store.cameras else "a store with pictures"
        raise InputError(
            f"{store.root}: got no pictures by {camera!r}, wanted {known}.\n"
            f"Collect them with `robopref collect cameras=[{camera}]`, or name other cameras."
        )
    height, width, channels = store.info["features"][f.IMAGES + camera]["shape"]
    return int(height), int(width), int(channels)


def _total(store: TrajectoryStore) -> int:
    return sum(e.length for e in store.episodes)


def _paths(store: TrajectoryStore, camera: str) -> tuple[Path, Path]:
    """Frames and note of a camera."""
    folder = store.root / FOLDER
    return folder / f"{camera}.u8", folder / f"{camera}.json"


def _source(store: TrajectoryStore, camera: str) -> str:
    """What the frames are decoded from: episodes, and names and sizes of the videos."""
    digest = hashlib.sha256(store.fingerprint.encode())
    for path in dict.fromkeys(store.videos(i)[camera][0] for i in range(len(store))):
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _done(store: TrajectoryStore, camera: str) -> int:
    """Frames that are decoded; 0 when there is no cache or one of other videos."""
    frames, note = _paths(store, camera)
    if not note.is_file() or not frames.is_file():
        return 0
    said = read_json(note)
    shape = [_total(store), *frame_shape(store, camera)]
    same = (said.get("format"), said.get("source"), said.get("shape")) == (FORMAT, _source(store, camera), shape)
    return int(said["done"]) if same and frames.stat().st_size == np.prod(shape) else 0


def _taken(store: TrajectoryStore, camera: str) -> int:
    frames, _ = _paths(store, camera)
    return frames.stat().st_size if frames.is_file() else 0


def _decode(store: TrajectoryStore, camera: str) -> None:
    """Decode the frames of a camera from where the last build ended."""
    frames, note = _paths(store, camera)
    shape, done = frame_shape(store, camera), _done(store, camera)
    said = {"format": FORMAT, "source": _source(store, camera), "shape": [_total(store), *shape]}
    size, every = int(np.prod(shape)), max(1, _STEP_BYTES // int(np.prod(shape)))
    with open(frames, "r+b" if done else "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size * _total(store))
        file.seek(size * done)
        wanted = _frames(store, camera, done)
        for picture in track(wanted, f"decode {camera}", _total(store) - done):
            file.write(_checked(store, camera, picture, shape))
            done += 1
            if done % every == 0:
                _note(file, note, {**said, "done": done})
        _note(file, note, {**said, "done": done})


def _note(file: object, note: Path, said: dict[str, object]) -> None:
    """Say how far it is, once the frames before that are on the disk."""
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]
    write_json(note, said)


def _frames(store: TrajectoryStore, camera: str, first: int) -> Iterator[np.ndarray]:
    """The store's frames by a camera in order from number `first` on, each video file read in one pass."""
    for path, start, count in _runs(store, camera):
        if first >= count:
            first -= count
            continue
        yield from decode(path, start + first, count - first, store.fps)
        first = 0


def _runs(store: TrajectoryStore, camera: str) -> Iterable[tuple[Path, int, int]]:
    """(file, first frame, frames) of episodes that follow each other in one file, joined."""
    runs: list[tuple[Path, int, int]] = []
    for episode in store.episodes:
        path, start = store.videos(episode.index)[camera]
        if runs and runs[-1][0] == path and sum(runs[-1][1:]) == start:
            runs[-1] = (path, runs[-1][1], runs[-1][2] + episode.length)
        else:
            runs.append((path, start, episode.length))
    return runs


def _checked(store: TrajectoryStore, camera: str, picture: np.ndarray, shape: tuple[int, int, int]) -> bytes:
    if picture.shape != shape:
        raise InputError(
            f"{store.root}: got a video of {camera} with pictures of {picture.shape[0]}x{picture.shape[1]}, wanted "
            f"{shape[0]}x{shape[1]} as meta/info.json says. Restore it from a copy."
        )
    return picture.tobytes()


def _opened(store: TrajectoryStore, camera: str) -> np.ndarray:
    shape = (_total(store), *frame_shape(store, camera))
    # Copy-on-write: nothing reaches the file, and tensors may share it without a warning about read-only memory.
    return np.memmap(_paths(store, camera)[0], dtype=np.uint8, mode="c", shape=shape)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
