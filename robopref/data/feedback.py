"""The sidecar's other tables beside the pairs: rankings, judgements of single windows, keypoints. Files are only added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robopref.arrays import InputError
from robopref.data.files import atomic_file

_WHO = {"annotator": pa.string(), "question_id": pa.string(), "created_at": pa.string(), "uid": pa.string()}
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
    """All rows of one table of a sidecar folder, in order. Raises `InputError` for a damaged file."""
    rows: list[dict[str, Any]] = []
    for path in _files(folder, table):
        try:
            rows += pq.read_table(path).to_pylist()
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: got a damaged parquet file, wanted a table of {table}. Restore it.") from error
    return rows


def append_feedback(folder: Path, table: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Add the rows whose uid is not stored yet, as one new file; returns how many."""
    taken = {row["uid"] for row in read_feedback(folder, table)}
    new = [dict(row) for row in rows if row["uid"] not in taken]
    if new:
        files = _files(folder, table)
        number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 0
        with atomic_file(folder / f"{table}-{number:03d}.parquet") as temporary:
            pq.write_table(pa.Table.from_pylist(new, schema=pa.schema(list(TABLES[table].items()))), temporary)
    return len(new)


def _files(folder: Path, table: str) -> list[Path]:
    return sorted(folder.glob(f"{table}-*.parquet"), key=lambda path: int(path.stem.rpartition("-")[2]))
