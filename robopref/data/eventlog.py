"""An append-only event log in one SQLite file: nothing acknowledged is lost, nothing stored is changed unnoticed.

WAL with full sync: an append that returned survives `kill -9` and power loss. Every row carries
h_n = SHA-256(h_(n-1) || canonical JSON of row n); h_0 = SHA-256 of the project's header.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.data.files import DiskFullError

__all__ = ["COLUMNS", "DiskFullError", "EventLog", "canonical", "filesystem", "refuse_network", "statements"]

_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE event(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, item TEXT, slot INTEGER,
  gen INTEGER, annotator TEXT NOT NULL, supersedes TEXT, counted INTEGER NOT NULL, body TEXT NOT NULL,
  t_ms INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE UNIQUE INDEX event_counted ON event(item, slot, gen) WHERE kind = 'answer' AND counted = 1;
CREATE TRIGGER event_fixed BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER event_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
"""
COLUMNS = ("seq", "uid", "kind", "item", "slot", "gen", "annotator", "supersedes", "counted", "body", "t_ms")
_REMOTE = frozenset(
    [
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "sshfs",
        "9p",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "glusterfs",
        "davfs",
        "davfs2",
        "beegfs",
        "orangefs",
        "rclone",
        "s3fs",
        "gcsfuse",
        "juicefs",
        "mount-s3",
    ]
)
"""Types of file systems that other machines may write, bare or as `fuse.TYPE`."""


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class EventLog:
    """The log and its database; other tables may live beside it and are written in the same transactions.

    `schema` creates those tables in a new file. Raises `InputError` where a database would not be safe: a network file
    system, a folder that cannot be written, a file that is no such log, is damaged, or belongs to another project.
    """

    def __init__(self, path: Path | str, header: dict[str, Any], schema: str = "") -> None:
        self.path = Path(path)
        refuse_network(self.path.parent)
        with _database_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.db = sqlite3.connect(self.path, isolation_level=None, timeout=10.0)
            self.db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
                self.db.execute(f"PRAGMA {pragma}")
            with self.write():  # two processes may start at once: the second finds what the first made
                fresh = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
                if fresh:
                    for statement in statements(_SCHEMA + schema):
                        self.db.execute(statement)
                    named = header | {"project": secrets.token_hex(16)}
                    self.db.execute("INSERT INTO meta VALUES ('header', ?)", (canonical(named),))
            self.header = json.loads(self._header())
        if {name: self.header.get(name) for name in header} != header:
            raise InputError(
                f"{self.path}: got a file with the header {self.header}, wanted {header}.\n"
                "Update robopref, or move the file away."
            )
        self._clock = _Clock(self.db.execute("SELECT max(t_ms) FROM event").fetchone()[0] or 0)

    def now(self) -> int:
        """Milliseconds since 1970 that never run backwards, also when the machine's clock is set back."""
        return self._clock.now()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start. A full disk raises `InputError` and changes nothing."""
        with _database_errors(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def append(self, **row: Any) -> dict[str, Any]:
        """Add one event inside `write()`: uid, kind, item, slot, gen, annotator, supersedes, counted, body (JSON-able)."""
        last = self.db.execute("SELECT seq, hash, t_ms FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        before = last["hash"] if last else self._origin()
        now = max(self.now(), last["t_ms"] if last else 0)  # another process may have been ahead
        full = dict.fromkeys(COLUMNS) | row | {"t_ms": now, "body": canonical(row["body"])}
        full["seq"] = (last["seq"] if last else 0) + 1
        full["hash"] = _chained(before, full)
        names = (*COLUMNS, "hash")
        marks = ", ".join("?" * len(names))
        self.db.execute(f"INSERT INTO event({', '.join(names)}) VALUES ({marks})", [full[name] for name in names])
        return full

    def find(self, uid: str) -> dict[str, Any] | None:
        """The event with this uid, its body still text."""
        row = self.db.execute("SELECT * FROM event WHERE uid = ?", (uid,)).fetchone()
        return dict(row) if row else None

    def events(self, kinds: Sequence[str] = (), after: int = 0) -> list[dict[str, Any]]:
        """Events in order, bodies as values; only those of `kinds`, if given."""
        where = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        rows = self.db.execute(f"SELECT * FROM event WHERE seq > ?{where} ORDER BY seq", (after, *kinds))
        return [dict(row) | {"body": json.loads(row["body"])} for row in rows]

    def head(self) -> str:
        """Hash of the last event: put beside every export, it shows whether the log's tail was cut."""
        row = self.db.execute("SELECT hash FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        return row["hash"] if row else self._origin()

    def problems(self, head: str = "") -> list[str]:
        """What is wrong with the chain, in words; `head` is a hash that some export recorded and that must occur."""
        before, wanted, seen = self._origin(), 1, head == "" or head == self._origin()
        with _database_errors(self.path):
            rows = self.db.execute("SELECT * FROM event ORDER BY seq").fetchall()
        for row in rows:
            if row["seq"] != wanted:
                return [f"{self.path}: got event {row['seq']}, wanted {wanted}: events are missing"]
            if _chained(before, {name: row[name] for name in COLUMNS}) != row["hash"]:
                return [f"{self.path}: event {wanted} ({row['uid']}) was changed after it was stored"]
            before, wanted, seen = row["hash"], wanted + 1, seen or row["hash"] == head
        return [] if seen else [f"{self.path}: the recorded head {head[:16]} does not occur: the tail was cut"]

    def backup(self, path: Path) -> None:
        """A complete copy while others write, by SQLite's online backup."""
        with sqlite3.connect(path) as copy:
            self.db.backup(copy)
        copy.close()

    def close(self) -> None:
        """Fold the WAL back into the file and close it."""
        self.db.close()

    def _header(self) -> str:
        row = self.db.execute("SELECT value FROM meta WHERE key = 'header'").fetchone()
        return str(row["value"])

    def _origin(self) -> str:
        return hashlib.sha256(self._header().encode()).hexdigest()


class _Clock:
    """Wall time at the start (never before the last event), advanced by the monotonic clock."""

    def __init__(self, last: int) -> None:
        self._base = max(time.time_ns() // 1_000_000, last)
        self._start = time.monotonic_ns()

    def now(self) -> int:
        return self._base + (time.monotonic_ns() - self._start) // 1_000_000


def refuse_network(folder: Path) -> None:
    """Raise `InputError` when `folder` lies on a network file system, where SQLite's locks do not hold."""
    place = folder.resolve()
    kind = filesystem(place)
    if kind.removeprefix("fuse.") in _REMOTE:
        raise InputError(
            f"{place}: got a network file system ({kind}), wanted a local disk: two machines could corrupt the answers.\n"
            "Copy the dataset to a local disk, label there, and copy meta/preferences back."
        )


def filesystem(place: Path) -> str:
    """Type of the file system that holds `place`, or an empty string where the system does not tell."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return ""
    best, found = -1, ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _, target, kind, *_ = line.split()
        root = Path(_unescaped(target))
        if (place == root or root in place.parents) and len(root.parts) >= best:
            best, found = len(root.parts), kind
    return found


def _unescaped(target: str) -> str:
    """A name of /proc/mounts, which writes blanks and a few more as three octal digits and leaves all other scripts as they are."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), target)


def _chained(before: str, row: dict[str, Any]) -> str:
    told = canonical({name: row[name] for name in COLUMNS})
    return hashlib.sha256((before + told).encode()).hexdigest()


def statements(schema: str) -> Iterator[str]:
    """Whole statements of a script; `executescript` would commit the open transaction."""
    statement = ""
    for line in schema.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextmanager
def _database_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite says about disks and files into `InputError`."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        said = str(error)
        if isinstance(error, sqlite3.IntegrityError):
            raise
        if "full" in said or "disk I/O" in said:
            raise DiskFullError(
                f"{path}: the disk is full ({said}). Nothing was stored; free space and go on."
            ) from error
        if "readonly" in said or "unable to open" in said:
            raise InputError(f"{path}: got no permission to write here, wanted a writable folder ({said}).") from error
        if "malformed" in said or "not a database" in said:
            raise InputError(f"{path}: got a damaged database ({said}). Restore it from a copy.") from error
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise InputError(
                f"{path}: got no permission to write here, wanted a writable folder ({os.strerror(error.errno)})."
            ) from error
        raise
