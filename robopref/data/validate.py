"""`validate DIR`: what is wrong with a dataset and its preferences, where, and how to mend it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from robopref.arrays import InputError
from robopref.data import features as f
from robopref.data.content import trajectory_hash
from robopref.data.preferences import PreferenceStore, split_problems
from robopref.data.robomimic import read_hdf5
from robopref.data.store import TrajectoryStore

_MOST = 20  # findings of one kind that are listed


def validate(root: Path) -> list[str]:
    """Findings about a store (every episode is read) or a robomimic file, each in one line; empty when all is well.

    Raises `InputError` only when there is nothing at `root`.
    """
    root = Path(root)
    if not root.exists():
        raise InputError(f"validate: got no file or folder {root}, wanted a dataset. Check the path.")
    if root.is_file():
        return _hdf5(root)
    try:
        store = TrajectoryStore(root)
    except InputError as error:
        return [_line(error)]
    return _episodes(store) + _indexes(store) + _statistics(store) + _leftovers(root) + _preferences(store)


def _episodes(store: TrajectoryStore) -> list[str]:
    findings = []
    for i in range(len(store)):
        try:
            trajectory = store.read(i, images=bool(store.cameras))
        except InputError as error:
            findings.append(f"episode {i}: {_line(error)}")
            continue
        if trajectory_hash(trajectory) != store.episode_hash(i):
            findings.append(
                f"{store.root}, episode {i}: its content is not what was written (hash differs); "
                "restore the data file from a copy, or write the dataset again"
            )
        if not np.isfinite(trajectory.reward).all():
            findings.append(
                f"{store.root}, episode {i}: a reward is NaN or infinite; drop the episode when writing again"
            )
        if np.abs(trajectory.action).max() > 1 + 1e-6:
            findings.append(
                f"{store.root}, episode {i}: an action lies outside [-1, 1]; scale actions when writing again"
            )
    return _short(findings)


def _indexes(store: TrajectoryStore) -> list[str]:
    """Frame, episode and global indexes and timestamps, by which LeRobot finds rows and video frames."""
    findings, first = [], 0
    paths = sorted((store.root / "data").rglob("*.parquet"))
    for path in paths:
        table = pq.read_table(path, columns=["timestamp", "frame_index", "episode_index", "index"])
        column = {name: f.decode(table, name) for name in table.column_names}
        rows = len(table)
        if not np.array_equal(column["index"], np.arange(first, first + rows)):
            findings.append(f"{path}: the column `index` does not count rows from {first}; write the dataset again")
        elif np.abs(column["timestamp"] - column["frame_index"] / store.fps).max(initial=0) > 1e-4:
            findings.append(f"{path}: timestamps are not frame_index / {store.fps}; write the dataset again")
        else:
            lengths = np.array([e.length for e in store.episodes])
            starts = np.concatenate([[0], np.cumsum(lengths)])
            episode = np.searchsorted(starts, column["index"], side="right") - 1
            frame = column["index"] - starts[episode]
            if not np.array_equal(episode, column["episode_index"]) or not np.array_equal(frame, column["frame_index"]):
                findings.append(
                    f"{path}: episode or frame indexes do not fit the episode table; write the dataset again"
                )
        first += rows
    return _short(findings)


def _statistics(store: TrajectoryStore) -> list[str]:
    missing = [name for name in ("meta/stats.json", f.TASKS) if not (store.root / name).is_file()]
    return [f"{store.root / name}: no such file, LeRobot needs it; write the dataset again" for name in missing]


def _leftovers(root: Path) -> list[str]:
    return _short(
        [f"{p}: left behind by a killed writer; remove it" for p in sorted(root.parent.glob(f".{root.name}.partial-*"))]
    )


def _preferences(store: TrajectoryStore) -> list[str]:
    if not (store.root / "meta/preferences").is_dir():
        return []
    try:
        rows = PreferenceStore(store).rows()
    except InputError as error:
        return [_line(error)]
    findings = [f"{store.root}/meta/preferences: {problem}" for problem in split_problems(rows)]
    uids: set[str] = set()
    for row in rows:
        if row.uid in uids:
            findings.append(
                f"{store.root}/meta/preferences: two rows have the uid {row.uid}; remove one file that holds it"
            )
        if row.supersedes and row.supersedes not in uids:
            findings.append(
                f"{store.root}/meta/preferences: row {row.uid} supersedes {row.supersedes}, which no row before it has; "
                "restore the missing pairs file"
            )
        uids.add(row.uid)
    return _short(findings)


def _hdf5(path: Path) -> list[str]:
    findings = []
    try:
        for number, trajectory in enumerate(read_hdf5(path)):
            if np.abs(trajectory.action).max() > 1:
                findings.append(
                    f"{path}, demo {number}: an action lies outside [-1, 1]; robomimic refuses it, scale actions"
                )
    except InputError as error:
        findings.append(_line(error))
    return _short(findings)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _short(findings: list[str]) -> list[str]:
    more = len(findings) - _MOST
    return findings if more <= 0 else [*findings[:_MOST], f"... and {more} more of this kind"]
