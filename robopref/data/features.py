"""The columns of a LeRobotDataset v3.0 folder that robopref writes: which there are, and how arrays become them.

Vectors are fixed-size lists, a width of 1 is a plain column (LeRobot's rule). `policy.chunk` (H, A) is stored flat.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from robopref.arrays import InputError, Trajectory

VERSION = "v3.0"
FORMAT = 1
STATE, ACTION, REWARD, SUCCESS, DONE = "observation.state", "action", "next.reward", "next.success", "next.done"
SIM, SIM_LENGTH, CHUNK, EXECUTED = "sim_state", "sim_state_len", "policy.chunk", "policy.executed"
EXTRA, IMAGES = "extra.", "observation.images."
INDEXES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
FILES_PER_CHUNK = 1000
SENTENCE = "sentence"
"""Column of the episode table: what the actor was asked to do. Stores from before it lack it."""

_TYPES = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64(), "bool": pa.bool_()}


@dataclass(frozen=True)
class Column:
    """One stored feature: element type and width."""

    dtype: str
    width: int

    @property
    def arrow(self) -> pa.DataType:
        """Its type in parquet."""
        element = _TYPES[self.dtype]
        return element if self.width == 1 else pa.list_(element, self.width)

    def encode(self, rows: np.ndarray) -> pa.Array:
        """`rows` (T, W) or (T,), as an arrow array."""
        flat = pa.array(np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1))
        return flat if self.width == 1 else pa.FixedSizeListArray.from_arrays(flat, self.width)


@dataclass(frozen=True)
class Layout:
    """Widths of everything in a store. It grows while episodes come in: sim_state and the chunk may appear late."""

    observation: int
    action: int
    sim_state: int = 0
    """Widest sim_state so far; 0 when no episode has one."""
    horizon: int = 0
    """H of the stored chunks; 0 when no policy acted."""
    extra: Mapping[str, int] = field(default_factory=dict)
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, trajectory: Trajectory) -> Layout:
        """What one episode needs."""
        widths = {"observation": trajectory.observation.shape[1], "action": trajectory.action.shape[1]}
        extra = {name: trajectory.extra[name].shape[1] for name in sorted(trajectory.extra)}
        for name, width in (widths | extra).items():
            if width == 0:
                raise InputError(f"StoreWriter.add: got {name} of width 0, wanted at least 1. Leave the feature out.")
        for name in (*extra, *trajectory.images):
            if not name or "/" in name:
                raise InputError(f"StoreWriter.add: got the feature name {name!r}, wanted one without '/'. Rename it.")
        return cls(
            **widths,
            sim_state=0 if trajectory.sim_state is None else trajectory.sim_state.shape[1],
            horizon=0 if trajectory.chunk is None else trajectory.chunk.shape[1],
            extra=extra,
            cameras={k: trajectory.images[k].shape[1:3] for k in sorted(trajectory.images)},
        )

    def grown(self, other: Layout) -> Layout:
        """The layout that also holds `other`. Raises `InputError` where two episodes cannot share a store."""
        for name in ("observation", "action", "extra", "cameras"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise InputError(
                    f"StoreWriter.add: got an episode with {name} {theirs}, wanted {ours} as in the episodes before.\n"
                    "Write episodes of another shape into another store."
                )
        if self.horizon and other.horizon and self.horizon != other.horizon:
            raise InputError(
                f"StoreWriter.add: got chunks of {other.horizon} steps, wanted {self.horizon} as before.\n"
                "Write episodes of another policy horizon into another store."
            )
        return replace(
            self, sim_state=max(self.sim_state, other.sim_state), horizon=max(self.horizon, other.horizon)
        )  # fmt: skip

    def columns(self) -> dict[str, Column]:
        """Every parquet column but the indexes, in order."""
        columns = {
            STATE: Column("float32", self.observation),
            ACTION: Column("float32", self.action),
            REWARD: Column("float32", 1),
            SUCCESS: Column("bool", 1),
            DONE: Column("bool", 1),
        }
        if self.sim_state:
            columns |= {SIM: Column("float64", self.sim_state), SIM_LENGTH: Column("int64", 1)}
        if self.horizon:
            columns |= {
                CHUNK: Column("float32", self.horizon * self.action),
                EXECUTED: Column("bool", self.horizon),
            }
        return columns | {EXTRA + name: Column("float32", width) for name, width in self.extra.items()}

    def schema(self) -> pa.Schema:
        """The parquet schema of a data file."""
        fields = [(name, column.arrow) for name, column in self.columns().items()]
        return pa.schema(fields + [(name, _TYPES[kind]) for name, kind in INDEXES.items()])

    def table(self, trajectory: Trajectory, episode: int, first_index: int, task: int, fps: int) -> pa.Table:
        """One episode as rows of this layout; what it lacks is zero."""
        steps = len(trajectory)
        frame = np.arange(steps)
        values = feature_rows(trajectory)
        indexes: dict[str, np.ndarray] = {
            "timestamp": (frame / fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(steps, episode),
            "index": first_index + frame,
            "task_index": np.full(steps, task),
        }
        arrays = [column.encode(_padded(values.get(name), steps, column)) for name, column in self.columns().items()]
        arrays += [pa.array(indexes[name].astype(kind)) for name, kind in INDEXES.items()]
        return pa.Table.from_arrays(arrays, schema=self.schema())

    def widened(self, table: pa.Table) -> pa.Table:
        """Rows written under an earlier, narrower layout, as rows of this one."""
        arrays = []
        for name, column in self.columns().items():
            if name in table.column_names and table.schema.field(name).type == column.arrow:
                arrays.append(table[name].combine_chunks())
            else:
                rows = decode(table, name) if name in table.column_names else None
                arrays.append(column.encode(_padded(rows, table.num_rows, column)))
        arrays += [table[name].combine_chunks() for name in INDEXES]
        return pa.Table.from_arrays(arrays, schema=self.schema())

    def features(self, fps: int) -> dict[str, Any]:
        """The `features` of info.json."""
        features: dict[str, Any] = {
            name: {"dtype": column.dtype, "shape": [column.width], "names": None}
            for name, column in self.columns().items()
        }
        for camera, (height, width) in self.cameras.items():
            video = {"height": height, "width": width, "codec": "h264", "pix_fmt": "yuv420p", "fps": fps, "channels": 3}
            features[IMAGES + camera] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {f"video.{k}": v for k, v in video.items()} | {"video.is_depth_map": False, "has_audio": False},
            }
        return features | {name: {"dtype": kind, "shape": [1], "names": None} for name, kind in INDEXES.items()}


def feature_rows(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Column name -> (T, W) or (T,), for what the episode has."""
    steps = len(trajectory)
    rows = {
        STATE: trajectory.observation,
        ACTION: trajectory.action,
        REWARD: trajectory.reward,
        SUCCESS: trajectory.success,
        DONE: np.arange(steps) == steps - 1,
    }
    if trajectory.sim_state is not None:
        rows |= {SIM: trajectory.sim_state, SIM_LENGTH: np.full(steps, trajectory.sim_state.shape[1])}
    if trajectory.chunk is not None and trajectory.executed is not None:
        rows |= {CHUNK: trajectory.chunk.reshape(steps, -1), EXECUTED: trajectory.executed}
    return rows | {EXTRA + name: trajectory.extra[name] for name in trajectory.extra}


def decode(table: pa.Table, name: str) -> np.ndarray:
    """A column as a writable array, (T,) or (T, W)."""
    array = table[name].combine_chunks()
    if not pa.types.is_fixed_size_list(array.type):
        return np.array(array.to_numpy(zero_copy_only=False))
    width = array.type.list_size
    return np.array(array.flatten().to_numpy(zero_copy_only=False)).reshape(-1, width)


def _padded(rows: np.ndarray | None, steps: int, column: Column) -> np.ndarray:
    """`rows` with zeros to the right up to the column's width."""
    if rows is None:
        return np.zeros((steps, column.width), dtype=column.dtype)
    rows = rows.reshape(steps, -1)
    if rows.shape[1] == column.width:
        return rows
    wide = np.zeros((steps, column.width), dtype=column.dtype)
    wide[:, : rows.shape[1]] = rows
    return wide
