"""The sidecar's other tables beside the pairs: rankings, judgements of single windows, keypoints. Files are only added.

What was taken back is not removed: a row that is `undone` supersedes it, and readers leave both out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robopref.arrays import InputError
from robopref.data.files import atomic_file, one_writer

_WHO = {
    "annotator": pa.string(), "question_id": pa.string(), "created_at": pa.string(), "uid": pa.string(), "supersedes": pa.string(),
    "undone": pa.bool_(),
}  # fmt: skip
_WINDOW = {"episode_index": pa.int64(), "start": pa.int64(), "end": pa.int64()}
TABLES: dict[str, dict[str, pa.DataType]] = {
    "ranks": {"preference_group_id": pa.string(), **_WINDOW, "preference_rank": pa.int64(), **_WHO},
    "unpaired": {**_WINDOW, "label": pa.bool_(), "quality_label": pa.string(), **_WHO},
    "keypoints": {
        "episode_index": pa.int64(),
        "frame": pa.int64(),
        "kind": pa.string(),
        "weight": pa.float64(),
        **_WHO,
    },
}
"""Table -> columns. `preference_rank` 0 is best and ties share a rank; `label` true is good; `frame` counts the episode's steps."""


def read_feedback(folder: Path, table: str) -> list[dict[str, Any]]:
    """The rows of one table of a sidecar folder that hold, in order. Raises `InputError` for a damaged file."""
    rows = _every(folder, table)
    gone = {row["supersedes"] for row in rows if row["supersedes"]}
    return [row for row in rows if row["uid"] not in gone and not row["undone"]]


def append_feedback(folder: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add the rows whose uid is not stored yet, as one new file; returns how many."""
    with one_writer(folder):
        taken = {row["uid"] for row in _every(folder, table)}
        new = [{"supersedes": "", "undone": False} | dict(row) for row in rows if row["uid"] not in taken]
        if new:
            files = _files(folder, table)
            number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 0
            with atomic_file(folder / f"{table}-{number:03d}.parquet") as temporary:
                pq.write_table(pa.Table.from_pylist(new, schema=pa.schema(list(TABLES[table].items()))), temporary)
    return len(new)


def take_back(folder: Path, table: str, answers: set[str]) -> int:
    """Supersede the rows of these answers (a row's uid is its answer's, a colon, a number); returns how many were still standing."""
    standing = [row for row in read_feedback(folder, table) if row["uid"].partition(":")[0] in answers]
    return append_feedback(
        folder,
        table,
        [row | {"uid": f"{row['uid']}~undone", "supersedes": row["uid"], "undone": True} for row in standing],
    )


def _every(folder: Path, table: str) -> list[dict[str, Any]]:
    """All rows ever appended."""
    rows: list[dict[str, Any]] = []
    for path in _files(folder, table):
        try:
            rows += pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: got a damaged parquet file, wanted a table of {table}. Restore it.") from error
    return [{"supersedes": "", "undone": False} | row for row in rows]


def _files(folder: Path, table: str) -> list[Path]:
    return sorted(folder.glob(f"{table}-*.parquet"), key=lambda path: int(path.stem.rpartition("-")[2]))
