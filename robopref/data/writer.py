"""Write trajectories as a LeRobotDataset v3.0 folder, one episode at a time, in bounded memory.

One row group per episode. The folder appears under its name only when complete; see `features` for the columns.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robopref.arrays import InputError, Trajectory
from robopref.data import features as f
from robopref.data.content import trajectory_hash
from robopref.data.features import Layout
from robopref.data.files import atomic_folder, disk_errors, write_json
from robopref.data.stats import RunningStats, as_lists, describe, picture_rows
from robopref.data.video import VideoWriter

_DATA_BYTES, _VIDEO_BYTES = 100 * 2**20, 200 * 2**20
_EPISODES_PER_FILE = 1000  # keeps parquet footers small
_FLUSH = 256  # episode rows held back, so that their statistics do not pile up
# Statistics of these would depend on padding; LeRobot's normalisation never asks for them.
_NO_STATS = frozenset({f.SIM, f.SIM_LENGTH, f.CHUNK, f.EXECUTED})


class StoreWriter:
    """`with StoreWriter(root) as writer: writer.add(trajectory)`. On an exception nothing is left behind.

    `render` (camera, size, convention, ...) is recorded with every episode. Raises `InputError` when `root` exists,
    when an episode does not fit the ones before, and when the disk is full.
    """

    def __init__(self, root: Path | str, fps: int = 80, render: Mapping[str, Any] | None = None) -> None:
        if fps < 1:
            raise InputError(f"StoreWriter: got fps={fps}, wanted at least 1 step per second.")
        self.root, self.fps, self.render = Path(root), fps, dict(render or {})
        self._folder: AbstractContextManager[Path] | None = None
        self._layout: Layout | None = None
        self._tasks: dict[str, int] = {}
        self._rows: list[dict[str, Any]] = []
        self._stats: dict[str, RunningStats] = {}
        self._videos: dict[str, _VideoTrack] = {}
        self._file_layouts: list[Layout] = []
        self._data: pq.ParquetWriter | None = None
        self._episode_table: pq.ParquetWriter | None = None
        self._in_file = self._episodes = self._frames = 0

    def __enter__(self) -> StoreWriter:
        self._folder = atomic_folder(self.root)
        self._partial = self._folder.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._folder is not None
        if error is None:
            try:
                with disk_errors(self.root):
                    self._finish()
            except BaseException as failure:
                self._abandon()
                self._folder.__exit__(type(failure), failure, failure.__traceback__)
                raise
        else:
            self._abandon()
        self._folder.__exit__(kind, error, trace)

    def add(self, trajectory: Trajectory) -> int:
        """Append one episode; returns its index. Raises `InputError` for NaN or infinity in a reward or a further feature."""
        if self._folder is None:
            raise InputError(
                "StoreWriter.add: got a writer that is not open, wanted `with StoreWriter(...) as writer`."
            )
        for name, rows in {"reward": trajectory.reward, **trajectory.extra}.items():
            if not np.isfinite(rows).all():
                raise InputError(
                    f"StoreWriter.add: got NaN or infinity in {name} of episode {self._episodes}, wanted numbers. Leave that episode out."
                )
        with disk_errors(self.root):
            return self._add(trajectory)

    def _add(self, trajectory: Trajectory) -> int:
        needed = Layout.of(trajectory)
        layout = needed if self._layout is None else self._layout.grown(needed)
        if self._layout is None:
            self._videos = {k: _VideoTrack(self._partial, f.IMAGES + k, self.fps) for k in layout.cameras}
        if layout != self._layout or self._full():
            self._next_file(layout)
        self._layout = layout
        assert self._data is not None
        episode, task = self._episodes, self._tasks.setdefault(trajectory.task, len(self._tasks))
        table = layout.table(trajectory, episode, self._frames, task, self.fps)
        self._data.write_table(table, row_group_size=len(trajectory))
        row = self._row(trajectory, episode)
        for camera, track in self._videos.items():
            row |= track.add(trajectory.images[camera])
        self._rows.append(row | self._describe(trajectory, table))
        self._in_file, self._episodes, self._frames = self._in_file + 1, episode + 1, self._frames + len(trajectory)
        if len(self._rows) >= _FLUSH:
            self._flush()
        return episode

    def _row(self, trajectory: Trajectory, episode: int) -> dict[str, Any]:
        return {
            "episode_index": episode,
            "tasks": [trajectory.task],
            "length": len(trajectory),
            "data/chunk_index": (len(self._file_layouts) - 1) // f.FILES_PER_CHUNK,
            "data/file_index": (len(self._file_layouts) - 1) % f.FILES_PER_CHUNK,
            "data/row_group": self._in_file,
            "dataset_from_index": self._frames,
            "dataset_to_index": self._frames + len(trajectory),
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "seed": trajectory.seed,
            "policy": trajectory.policy,
            "env": trajectory.env,
            f.SENTENCE: trajectory.sentence,
            "render": json.dumps(self.render, sort_keys=True),
            "hash": trajectory_hash(trajectory),
        }

    def _describe(self, trajectory: Trajectory, table: pa.Table) -> dict[str, Any]:
        """Statistics of one episode as columns `stats/<feature>/<name>`; the store's own run along."""
        rows = {name: f.decode(table, name) for name in table.column_names if name not in _NO_STATS}
        columns: dict[str, Any] = {}
        pictures = {f.IMAGES + k: picture_rows(v) for k, v in trajectory.images.items()}
        for name, values in (rows | pictures).items():
            flat = values.reshape(len(values), -1)
            self._stats.setdefault(name, RunningStats(flat.shape[1])).add(flat)
            lists = as_lists(describe(flat), picture=name in pictures)
            columns |= {f"stats/{name}/{key}": value for key, value in lists.items()}
        return columns

    def _data_path(self, number: int) -> Path:
        chunk, file = divmod(number, f.FILES_PER_CHUNK)
        return self._partial / f.DATA.format(chunk_index=chunk, file_index=file)

    def _full(self) -> bool:
        size = os.path.getsize(self._data_path(len(self._file_layouts) - 1))
        return self._in_file >= _EPISODES_PER_FILE or size > _DATA_BYTES

    def _next_file(self, layout: Layout) -> None:
        if self._data is not None:
            self._data.close()
        path = self._data_path(len(self._file_layouts))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file_layouts.append(layout)
        self._data, self._in_file = _data_writer(path, layout), 0

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._rows)
        if self._episode_table is None:
            path = self._partial / f.EPISODES
            path.parent.mkdir(parents=True, exist_ok=True)
            self._episode_table = pq.ParquetWriter(path, table.schema)
        self._episode_table.write_table(table.cast(self._episode_table.schema))
        self._rows = []

    def _finish(self) -> None:
        if self._layout is None or self._data is None:
            raise InputError(f"{self.root}: got no episode to write, wanted at least one. Nothing was written.")
        self._data.close()
        for track in self._videos.values():
            track.close()
        if self._rows:
            self._flush()
        assert self._episode_table is not None
        self._episode_table.close()
        for number, written in enumerate(self._file_layouts):
            if written != self._layout:
                _rewrite(self._data_path(number), self._layout)
        pq.write_table(_task_table(self._tasks), self._partial / f.TASKS)
        stats = {k: as_lists(v.result(), k.startswith(f.IMAGES)) for k, v in self._stats.items()}
        write_json(self._partial / "meta/stats.json", stats)
        write_json(self._partial / "meta/info.json", self._info(self._layout))

    def _info(self, layout: Layout) -> dict[str, Any]:
        return {
            "codebase_version": f.VERSION,
            "robot_type": None,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": f.FILES_PER_CHUNK,
            "data_files_size_in_mb": _DATA_BYTES // 2**20,
            "video_files_size_in_mb": _VIDEO_BYTES // 2**20,
            "fps": self.fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": f.DATA,
            "video_path": f.VIDEO if layout.cameras else None,
            "features": layout.features(self.fps),
            "robopref": {"format": f.FORMAT, "chunk_horizon": layout.horizon, "render": self.render},
        }

    def _abandon(self) -> None:
        """Close what is open; the folder is thrown away, so errors while closing (a full disk) say nothing new."""
        for open_file in (self._data, self._episode_table, *self._videos.values()):
            with suppress(OSError, ValueError):
                if open_file is not None:
                    open_file.close()


class _VideoTrack:
    """The video files of one camera."""

    def __init__(self, root: Path, key: str, fps: int) -> None:
        self._root, self._key, self._fps = root, key, fps
        self._number, self._writer = -1, None

    _writer: VideoWriter | None

    def add(self, images: np.ndarray) -> dict[str, Any]:
        """Append one episode; returns its columns of the episode table."""
        if self._writer is None or os.path.getsize(self._path()) > _VIDEO_BYTES:
            self.close()
            self._number += 1
            self._writer = VideoWriter(self._path(), self._fps, images.shape[1], images.shape[2])
        first = self._writer.frames
        self._writer.add(images)
        chunk, file = divmod(self._number, f.FILES_PER_CHUNK)
        return {
            f"videos/{self._key}/chunk_index": chunk,
            f"videos/{self._key}/file_index": file,
            f"videos/{self._key}/from_timestamp": first / self._fps,
            f"videos/{self._key}/to_timestamp": self._writer.frames / self._fps,
        }

    def close(self) -> None:
        """Complete the file that is open."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _path(self) -> Path:
        chunk, file = divmod(self._number, f.FILES_PER_CHUNK)
        return self._root / f.VIDEO.format(video_key=self._key, chunk_index=chunk, file_index=file)


def _data_writer(path: Path, layout: Layout) -> pq.ParquetWriter:
    # A dictionary of floats that hardly repeat makes writing three times slower and random columns a quarter larger.
    return pq.ParquetWriter(path, layout.schema(), use_dictionary=False)


def _rewrite(path: Path, layout: Layout) -> None:
    """Bring a file written under an earlier layout to the final one, row group by row group."""
    wide = path.with_suffix(".wide")
    with pq.ParquetFile(path) as old, _data_writer(wide, layout) as new:
        for group in range(old.num_row_groups):
            table = old.read_row_group(group)
            new.write_table(layout.widened(table), row_group_size=max(table.num_rows, 1))
    os.replace(wide, path)


def _task_table(tasks: Mapping[str, int]) -> pa.Table:
    """task_index by task, with the metadata by which pandas finds its index named `task`."""
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.2.0"}
    table = pa.table(
        {"task_index": pa.array(list(tasks.values()), pa.int64()), "task": pa.array(list(tasks), pa.string())}
    )
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
