"""The trajectory store: read (and, by `StoreWriter`, write) LeRobotDataset v3.0 folders with robopref's features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robopref.arrays import InputError, Trajectory
from robopref.data import features as f
from robopref.data.files import read_json
from robopref.data.writer import StoreWriter

__all__ = ["Episode", "StoreWriter", "TrajectoryStore", "fingerprint"]

_NEEDED = (f.STATE, f.ACTION, f.REWARD, f.SUCCESS, "episode_index", "frame_index")
_EPISODE_COLUMNS = (
    "episode_index", "tasks", "length", "data/chunk_index", "data/file_index", "data/row_group",
    "seed", "policy", "env", "hash",
)  # fmt: skip


@dataclass(frozen=True)
class Episode:
    """A row of the episode table."""

    index: int
    task: str
    seed: int
    policy: str
    env: str
    length: int
    hash: str
    """sha256 of the episode's content, see `content.trajectory_hash`."""
    sentence: str = ""


@dataclass(frozen=True)
class _Place:
    path: Path
    group: int
    videos: dict[str, tuple[Path, int]]
    """camera -> (file, first frame)."""


def fingerprint(episodes: Sequence[Episode]) -> str:
    """sha256 of an episode table: who did what, how long, and the content of each episode."""
    digest = hashlib.sha256()
    for e in episodes:
        digest.update(json.dumps([e.task, e.seed, e.policy, e.env, e.length, e.hash]).encode() + b"\n")
    return digest.hexdigest()


class TrajectoryStore:
    """Episodes on disk, read on demand. Indexing and iterating read everything but pictures.

    Raises `InputError` at opening when the folder is no complete store of this format: something is missing,
    of another version, or torn.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.info: dict[str, Any] = self._open_info()
        self.fps = int(self.info["fps"])
        self.cameras = tuple(k.removeprefix(f.IMAGES) for k, v in self._features.items() if v["dtype"] == "video")
        self.episodes, self._places = self._open_episodes()
        self._check_files()
        self._open: tuple[Path, pq.ParquetFile] | None = None

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, i: int) -> Trajectory:
        """Episode `i` without pictures; a negative `i` counts from the end. Raises `IndexError` beyond the store."""
        return self.read(i)

    def __iter__(self) -> Iterator[Trajectory]:
        """All episodes in order, one in memory at a time."""
        for i in range(len(self)):
            yield self.read(i)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the episode table; changes when any episode changes or one is added."""
        return fingerprint(self.episodes)

    def episode_hash(self, i: int) -> str:
        """sha256 of the content of episode `i`, as written."""
        return self.episodes[i].hash

    def read(self, i: int, sim_state: bool = True, images: bool = False) -> Trajectory:
        """Episode `i`, with or without simulator states and (lossy) pictures."""
        i = range(len(self))[i]
        place = self._places[i]
        if self._open is None or self._open[0] != place.path:
            if self._open is not None:
                self._open[1].close()
            self._open = (place.path, _parquet(place.path))
        with _reading(place.path):
            table = self._open[1].read_row_group(place.group, columns=self._columns(sim_state))
        if table.num_rows != self.episodes[i].length or table["episode_index"][0].as_py() != i:
            raise InputError(
                f"{place.path}: row group {place.group} is not episode {i}. Run `robopref validate {self.root}`."
            )
        return self._trajectory(i, _Arrays(table), slice(0, table.num_rows), self._images(i) if images else {})

    def load(self, sim_state: bool = False) -> list[Trajectory]:
        """All episodes, file by file, which is far quicker than one by one. No pictures."""
        out: list[Trajectory] = []
        while len(out) < len(self):
            path = self._places[len(out)].path
            with _reading(path), _parquet(path) as file:
                arrays = _Arrays(file.read(columns=self._columns(sim_state)))
            start = 0
            while len(out) < len(self) and self._places[len(out)].path == path:
                end = start + self.episodes[len(out)].length
                out.append(self._trajectory(len(out), arrays, slice(start, end), {}))
                start = end
        return out

    @property
    def _features(self) -> dict[str, Any]:
        return self.info["features"]

    def _columns(self, sim_state: bool) -> list[str]:
        unread = {"timestamp", "frame_index", "index", "task_index", f.DONE} | (set() if sim_state else {f.SIM})
        return [k for k, v in self._features.items() if v["dtype"] != "video" and k not in unread]

    def _trajectory(self, i: int, arrays: _Arrays, rows: slice, images: dict[str, np.ndarray]) -> Trajectory:
        episode, has = self.episodes[i], self._features
        action = arrays.matrix(f.ACTION, rows)
        sim = chunk = executed = None
        if arrays.has(f.SIM) and (width := int(arrays[f.SIM_LENGTH][rows.start])):
            sim = arrays.matrix(f.SIM, rows)[:, :width]
        if f.CHUNK in has:
            executed = arrays.matrix(f.EXECUTED, rows)
            chunk = arrays.matrix(f.CHUNK, rows).reshape(*executed.shape, action.shape[1])
            if not executed.any() and not chunk.any():  # how an episode without a policy is stored beside others
                chunk = executed = None
        return Trajectory(
            observation=arrays.matrix(f.STATE, rows),
            action=action,
            reward=arrays[f.REWARD][rows],
            success=arrays[f.SUCCESS][rows],
            task=episode.task,
            seed=episode.seed,
            policy=episode.policy,
            env=episode.env,
            sim_state=sim,
            chunk=chunk,
            executed=executed,
            images=images,
            extra={k.removeprefix(f.EXTRA): arrays.matrix(k, rows) for k in has if k.startswith(f.EXTRA)},
            sentence=episode.sentence,
        )

    def videos(self, i: int) -> dict[str, tuple[Path, int]]:
        """Where the pictures of episode `i` are: camera -> (file, number of its first frame)."""
        return self._places[i].videos

    def _images(self, i: int) -> dict[str, np.ndarray]:
        from robopref.data.video import read_frames  # PyAV takes time to import and most runs need no pictures

        length = self.episodes[i].length
        return {camera: read_frames(path, first, length, self.fps) for camera, (path, first) in self.videos(i).items()}

    def _open_info(self) -> dict[str, Any]:
        path = self.root / "meta/info.json"
        if not path.is_file():
            raise InputError(
                f"{self.root}: got no meta/info.json, wanted a LeRobotDataset v3.0 folder. Check the path."
            )
        info = read_json(path)
        version = info.get("codebase_version") if isinstance(info, dict) else None
        if version != f.VERSION:
            raise InputError(
                f"{path}: got format {version!r}, wanted {f.VERSION!r}. Convert the dataset to v3.0 first."
            )
        number = info.get("robopref", {}).get("format", f.FORMAT)
        if number > f.FORMAT:
            raise InputError(f"{path}: got store format {number}, wanted at most {f.FORMAT}. Update robopref.")
        missing = [k for k in ("fps", "features", "total_episodes", "total_frames") if k not in info]
        missing += [k for k in _NEEDED if k not in info.get("features", {})]
        if missing:
            raise InputError(
                f"{path}: got a dataset without {', '.join(missing)}, wanted robopref's columns.\n"
                "Write it with `robopref collect` or bring it in with `robopref convert`."
            )
        return info

    def _open_episodes(self) -> tuple[list[Episode], list[_Place]]:
        path = self.root / f.EPISODES
        videos = [
            f"videos/{f.IMAGES}{camera}/{k}"
            for camera in self.cameras
            for k in ("chunk_index", "file_index", "from_timestamp")
        ]
        wanted = [*_EPISODE_COLUMNS, *videos]
        with _reading(path), _parquet(path) as file:
            _check_columns(path, wanted, file.schema_arrow.names)
            rows = file.read(columns=[*wanted, *({f.SENTENCE} & set(file.schema_arrow.names))]).to_pylist()
        rows.sort(key=lambda row: row["episode_index"])
        if [row["episode_index"] for row in rows] != list(range(self.info["total_episodes"])):
            raise InputError(
                f"{path}: got {len(rows)} episodes, wanted {self.info['total_episodes']} as in meta/info.json."
            )
        said = [(r["tasks"][0], r["seed"], r["policy"], r["env"], r["length"], r["hash"]) for r in rows]
        episodes = [Episode(i, *one, r.get(f.SENTENCE, "")) for i, (one, r) in enumerate(zip(said, rows, strict=True))]
        return episodes, [self._place(row) for row in rows]

    def _place(self, row: dict[str, Any]) -> _Place:
        data = f.DATA.format(chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        videos = {}
        for camera in self.cameras:
            key = f.IMAGES + camera
            chunk, file, start = (row[f"videos/{key}/{k}"] for k in ("chunk_index", "file_index", "from_timestamp"))
            video = f.VIDEO.format(video_key=key, chunk_index=chunk, file_index=file)
            videos[camera] = (self.root / video, round(start * self.fps))
        return _Place(self.root / data, row["data/row_group"], videos)

    def _check_files(self) -> None:
        """Footers only: every data file is there, whole, and has the columns and rows it should have."""
        wanted = [k for k, v in self._features.items() if v["dtype"] != "video"]
        rows = 0
        for path in dict.fromkeys(place.path for place in self._places):
            with _reading(path), _parquet(path) as file:
                _check_columns(path, wanted, file.schema_arrow.names)
                rows += file.metadata.num_rows
        if rows != self.info["total_frames"] or rows != sum(e.length for e in self.episodes):
            raise InputError(
                f"{self.root}: got {rows} rows of data, wanted {self.info['total_frames']}. Restore it from a copy."
            )
        for path in {video for place in self._places for video, _ in place.videos.values()}:
            if not path.is_file():
                raise InputError(
                    f"{path}: got no such file, wanted the video of some episodes. Restore it from a copy."
                )


class _Arrays:
    """The columns of a table as arrays, each decoded once."""

    def __init__(self, table: pa.Table) -> None:
        self._arrays = {name: f.decode(table, name) for name in table.column_names}

    def has(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def matrix(self, name: str, rows: slice) -> np.ndarray:
        """Rows as (T, W)."""
        part = self._arrays[name][rows]
        return part.reshape(len(part), -1)


class _reading:
    """Turn pyarrow's errors about missing and torn files into `InputError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise InputError(
                f"{self._path}: got no such file, wanted a part of the dataset. Restore it from a copy."
            ) from error
        if isinstance(error, (pa.ArrowInvalid, OSError)):
            reason = str(error).splitlines()[0][:120]
            raise InputError(
                f"{self._path}: got a torn or damaged parquet file ({reason}).\n"
                "Restore it from a copy, or write the dataset again."
            ) from error


def _parquet(path: Path) -> pq.ParquetFile:
    with _reading(path):
        return pq.ParquetFile(path)


def _check_columns(path: Path, wanted: Sequence[str], got: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in got]
    if missing:
        raise InputError(
            f"{path}: got a table without {', '.join(missing[:5])}, wanted robopref's columns.\n"
            "Write it with `robopref collect` or bring it in with `robopref convert`."
        )
