"""The preference sidecar: `meta/preferences/` beside a trajectory store. Files are only added, rows only superseded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robopref.arrays import InputError
from robopref.data.files import atomic_file, one_writer, read_json, write_json
from robopref.data.pairs import REQUIRED, Pair, Window, columns, from_row, to_row
from robopref.data.store import TrajectoryStore, fingerprint

__all__ = ["Pair", "PreferenceStore", "Window"]

FORMAT, VERSION = "robopref-preferences", "1.0"
_ARROW = {"int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_(), "string": pa.string()}


class PreferenceStore:
    """The answers about the episodes of one store.

    Opening checks that the sidecar belongs to this store: the episodes it was begun with are unchanged (by
    fingerprint) and so is every judged episode (by hash). Episodes may be added. Raises `InputError` otherwise.
    """

    def __init__(self, store: TrajectoryStore) -> None:
        self.store = store
        self.folder = store.root / "meta/preferences"
        self._check_info()

    def append(self, pairs: Sequence[Pair]) -> int:
        """Add rows as one new file; returns how many. Rows whose uid is stored already are left out.

        Raises `InputError` and writes nothing when a pair points outside its episode, compares two tasks unflagged,
        supersedes an unknown row, or when the disk is full.
        """
        with one_writer(self.folder):
            stored = self.rows()
            taken = {pair.uid for pair in stored}
            new: list[Pair] = []
            for pair in pairs:
                if pair.uid and pair.uid in taken:
                    continue
                row = self._completed(pair, taken)
                if row.supersedes and row.supersedes not in taken:
                    raise InputError(f"PreferenceStore.append: got supersedes={row.supersedes!r}, which no row has.")
                taken.add(row.uid)
                new.append(row)
            if problems := split_problems([*stored, *new]):
                raise InputError(f"PreferenceStore.append: {problems[0]}")
            if new:
                files = self._files()
                self._write(new, _number(files[-1]) + 1 if files else 0)
        return len(new)

    def rows(self) -> list[Pair]:
        """Every row ever appended, in order, superseded ones too."""
        return [pair for path in self._files() for pair in self._read(path)]

    def pairs(self) -> list[Pair]:
        """The valid rows: of each chain of superseding rows the newest, in the order in which chains began."""
        newest: dict[str, Pair] = {}
        root: dict[str, str] = {}
        for pair in self.rows():
            root[pair.uid] = root.get(pair.supersedes, pair.uid)
            newest[root[pair.uid]] = pair
        return list(newest.values())

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("pairs-*.parquet"), key=_number)

    def _check_info(self) -> None:
        path = self.folder / "info.json"
        if not path.exists():
            if files := self._files():
                raise InputError(
                    f"{path}: got no such file beside {files[0].name}, wanted one. Restore it from a copy."
                )
            return
        info = read_json(path)
        got = (info.get("format"), str(info.get("version", "")).split(".")[0]) if isinstance(info, dict) else None
        if got != (FORMAT, VERSION.split(".")[0]):
            raise InputError(f"{path}: got {got}, wanted the format {FORMAT!r}, version {VERSION}. Update robopref.")
        missing = [key for key in ("store_fingerprint", "store_episodes") if key not in info]
        if missing:
            raise InputError(f"{path}: got no {', '.join(missing)}, wanted both. Restore the file from a copy.")
        count = info["store_episodes"]
        if count > len(self.store) or fingerprint(self.store.episodes[:count]) != info["store_fingerprint"]:
            raise InputError(
                f"{path}: the fingerprint does not match the store: its first {count} episodes are not those that were "
                "judged.\nPut back the dataset that belongs to these preferences, or move meta/preferences away."
            )

    def _completed(self, pair: Pair, taken: set[str]) -> Pair:
        """The row with everything filled in that follows from the store."""
        for window in (pair.first, pair.second):
            _check_window(self.store, window, "PreferenceStore.append")
        first, second = (self.store.episodes[w.episode] for w in (pair.first, pair.second))
        if first.task != second.task and not pair.cross_task:
            raise InputError(
                f"PreferenceStore.append: got a pair of the tasks {first.task!r} and {second.task!r}, wanted one task.\n"
                "Set cross_task=True if that is meant."
            )
        same = first.seed >= 0 and (first.env, first.task, first.seed) == (second.env, second.task, second.seed)
        same = same and pair.first.start == pair.second.start == 0
        row = replace(
            pair,
            first_hash=first.hash,
            second_hash=second.hash,
            pair_id=_pair_id(pair, first.hash, second.hash),
            same_init=same,
            init_seed=first.seed if same else -1,
            policy_first=first.policy,
            policy_second=second.policy,
            prompt=pair.prompt or first.task,
            created_at=pair.created_at or datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return row if row.uid else replace(row, uid=_free_uid(row, taken))

    def _write(self, rows: Sequence[Pair], number: int) -> None:
        schema = pa.schema([(name, _ARROW[kind]) for name, kind in columns().items()])
        table = pa.Table.from_pylist([to_row(pair) for pair in rows], schema=schema)
        if not (self.folder / "info.json").exists():
            write_json(self.folder / "info.json", self._info())
        with atomic_file(self.folder / f"pairs-{number:03d}.parquet") as temporary:
            pq.write_table(table, temporary)

    def _info(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "store": "lerobot-v3.0",
            "store_fingerprint": self.store.fingerprint,
            "store_episodes": len(self.store),
            "feedback": ["pairwise"],
            "label_semantics": "prob_first; 0.5 tie; null skipped",
            "criteria": {},
        }

    def _read(self, path: Path) -> Iterator[Pair]:
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            reason = str(error).splitlines()[0][:120]
            raise InputError(
                f"{path}: got a torn or damaged parquet file ({reason}). Restore it from a copy."
            ) from error
        missing = [name for name in REQUIRED if name not in table.column_names]
        if missing:
            raise InputError(
                f"{path}: got no column {', '.join(missing)}, wanted the sidecar's columns. Restore it from a copy."
            )
        for number, row in enumerate(table.to_pylist()):
            where = f"{path}, row {number}"
            try:
                pair = from_row(row)
            except (InputError, TypeError) as error:
                raise InputError(f"{where}: {error}") from error
            for window, wanted in ((pair.first, pair.first_hash), (pair.second, pair.second_hash)):
                _check_window(self.store, window, where)
                if self.store.episode_hash(window.episode) != wanted:
                    raise InputError(
                        f"{where}: episode {window.episode} has changed since it was judged (its hash differs).\n"
                        "Put back the dataset that belongs to these preferences, or move meta/preferences away."
                    )
            yield pair


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("pairs-")
    if not digits.isdecimal():
        raise InputError(f"{path}: got a name without a number, wanted pairs-NNN.parquet. Rename or remove it.")
    return int(digits)


def split_problems(pairs: Sequence[Pair]) -> list[str]:
    """Pairs and episodes that stand in two splits: a learner would be tested on what it was trained on."""
    problems: list[str] = []
    pair_split: dict[str, str] = {}
    episode_split: dict[int, str] = {}
    for pair in pairs:
        if not pair.split:
            continue
        if pair_split.setdefault(pair.pair_id, pair.split) != pair.split:
            problems.append(
                f"pair {pair.uid} is in the splits {pair_split[pair.pair_id]!r} and {pair.split!r}, wanted one."
            )
        for window in (pair.first, pair.second):
            if episode_split.setdefault(window.episode, pair.split) != pair.split:
                seen = episode_split[window.episode]
                problems.append(f"episode {window.episode} is in the splits {seen!r} and {pair.split!r}, wanted one.")
    return problems


def _check_window(store: TrajectoryStore, window: Window, where: str) -> None:
    if window.episode >= len(store):
        raise InputError(f"{where}: got episode {window.episode}, wanted one of the store's {len(store)}.")
    length = store.episodes[window.episode].length
    if window.end > length:
        raise InputError(
            f"{where}: got the window [{window.start}, {window.end}) of episode {window.episode}, "
            f"wanted one inside its {length} steps."
        )


def _pair_id(pair: Pair, first_hash: str, second_hash: str) -> str:
    sides = sorted(
        f"{digest}:{window.start}:{window.end}"
        for digest, window in ((first_hash, pair.first), (second_hash, pair.second))
    )
    return hashlib.sha256(" ".join(sides).encode()).hexdigest()[:32]


def _free_uid(pair: Pair, taken: set[str]) -> str:
    """Derived from the content, so that the same run writes the same file; numbered when asked again."""
    row = to_row(pair)
    told = [str(row[name]) for name in sorted(row) if name not in ("uid", "created_at", "response_time_s")]
    for repeat in range(len(taken) + 1):
        uid = hashlib.sha256("\x1f".join([*told, str(repeat)]).encode()).hexdigest()[:32]
        if uid not in taken:
            break
    return uid
