"""Formats in and out: `convert SRC DST --to FORMAT`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from robopref.arrays import InputError, Trajectory
from robopref.data.robomimic import read_hdf5, write_hdf5
from robopref.data.store import StoreWriter, TrajectoryStore

FORMATS = ("lerobot", "robomimic")
"""`lerobot`: a LeRobotDataset v3.0 folder, the package's own store. `robomimic`: one HDF5 file."""


def convert(src: Path, dst: Path, to: str) -> str:
    """Write the trajectories of `src` (a store or a robomimic file) to `dst`; returns what was done, in one line.

    Raises `InputError` for an unknown format, a source that cannot be read, a `dst` that exists, a full disk.
    Nothing appears under `dst` unless it is complete.
    """
    src, dst = Path(src), Path(dst)
    if to not in FORMATS:
        near = difflib.get_close_matches(to, FORMATS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise InputError(f"convert: got --to {to}, wanted one of {', '.join(FORMATS)}. {hint}")
    if dst.exists():
        raise InputError(f"convert: {dst} exists already, wanted a new name. Choose another or remove it.")
    if not src.exists():
        raise InputError(f"convert: got no file or folder {src}, wanted a dataset. Check the path.")
    fps, render, trajectories = _open(src)
    if to == "robomimic":
        count = write_hdf5(trajectories, dst)
        return f"wrote {count} episodes to {dst} (robomimic HDF5; next_obs repeats the last observation)"
    with StoreWriter(dst, fps=fps, render=render) as writer:
        count = sum(1 for trajectory in trajectories if writer.add(trajectory) >= 0)
    return f"wrote {count} episodes to {dst} (LeRobotDataset v3.0)"


def _open(src: Path) -> tuple[int, dict, Iterator[Trajectory]]:
    """Steps per second, render settings and episodes of a source; robomimic's files carry no frame rate."""
    if src.is_file():
        return 20, {}, read_hdf5(src)  # robosuite's control rate
    store = TrajectoryStore(src)
    render = store.info.get("robopref", {}).get("render", {})
    return store.fps, render, (store.read(i, images=bool(store.cameras)) for i in range(len(store)))
