"""Files that appear under their final name only when complete: temporary name, fsync, rename.

A process that is killed, or a disk that fills, leaves what existed before as it was. Everything that writes uses this.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from robopref.arrays import InputError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""How a system says that no more can be written: no space, a quota is used up, a file may not grow further."""


class DiskFullError(InputError):
    """Nothing was written because the disk is full: what exists is as it was, and trying again later can help."""


@contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn "no space left", "quota exceeded" and "read-only" while writing near `path` into `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(
                f"{path}: the disk is full or its quota is used up ({os.strerror(error.errno or 0)}).\n"
                "Nothing that existed was changed. Free space, or choose another folder, and run the command again."
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise InputError(
                f"{path}: got no permission to write here, wanted a writable folder. Choose another."
            ) from error
        raise


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """A temporary path to write to; on clean exit it becomes `path`, on an exception it is removed.

    Parent folders are made. An existing `path` is replaced in one step. A full disk raises `InputError`.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _hidden(path)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _sync(path.parent)


@contextmanager
def atomic_folder(path: Path | str, replace: bool = False) -> Iterator[Path]:
    """A hidden folder beside `path` to fill; on clean exit it becomes `path`, on an exception it is removed.

    Raises `InputError` when `path` exists and is not an empty folder, unless `replace`, and when the disk is full.
    """
    path = Path(path)
    if not replace:
        free(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = _hidden(path)
        temporary.mkdir()
        try:
            yield temporary
            for entry in sorted(temporary.rglob("*"), reverse=True):
                _sync(entry)
            _sync(temporary)
            _put_folder(temporary, path, replace)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(path.parent)


@contextmanager
def locked(folder: Path | str, wait: bool = False) -> Iterator[None]:
    """Hold a folder for this process; the kernel lets go when the process ends, however it ends.

    When another process holds it: waits for that one with `wait`, else raises `InputError`.
    """
    folder = Path(folder)
    if folder.is_file():
        raise InputError(f"{folder}: got a file, wanted a folder. Choose another name.")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "a", encoding="utf-8")  # noqa: SIM115  held open as long as the lock
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(
                f"{folder}: got a folder in which another process is at work, wanted one of its own. Wait, or choose another."
            ) from None
        yield


@contextmanager
def one_writer(folder: Path | str) -> Iterator[None]:
    """Wait until no other process writes numbered files in `folder`, so that two never take the same number. Leaves no file behind."""
    with disk_errors(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` as UTF-8 in one step. Raises `InputError` when the disk is full."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON in one step; NaN is refused because other readers choke on it."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """The value in a JSON file. Raises `InputError` when the file is missing or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: got no such file, wanted a JSON file. Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: got text that is not JSON ({error}). Restore the file from a copy.") from error


def free(path: Path | str) -> None:
    """Raise `InputError` when `path` exists and is not an empty folder: to ask before work whose result would not fit."""
    if _occupied(Path(path)):
        raise InputError(f"{path}: exists already, wanted a new folder. Choose another name or remove it.")


def _occupied(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial-{socket.gethostname()}-{os.getpid()}")


def _sweep(path: Path) -> None:
    """Remove what writers of this path left behind when they were killed (same machine, process gone)."""
    prefix = f".{path.name}.partial-{socket.gethostname()}-"
    for left in path.parent.glob(f"{_escape(prefix)}*"):
        owner = left.name.removeprefix(prefix)
        if not owner.isdigit() or (int(owner) != os.getpid() and _alive(int(owner))):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _escape(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_folder(temporary: Path, path: Path, replace: bool) -> None:
    """Rename, first moving an old folder aside (folders cannot be exchanged in one portable step)."""
    if replace and _occupied(path):
        old = temporary.with_name(temporary.name + ".old")
        os.rename(path, old)
        os.rename(temporary, path)
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()
    else:
        os.replace(temporary, path)
