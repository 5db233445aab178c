"""A disk that is full while it is said to be: a small tmpfs where the machine allows one, else a limit on how long files may grow."""

from __future__ import annotations

import contextlib
import errno
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EFBIG)


class Disk:
    """`fill()` leaves no room for another byte in files of `folder`, `free()` gives it back."""

    def __init__(self, folder: Path, small: bool) -> None:
        self._folder, self._small = folder, small
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self) -> None:
        """From now on the kernel refuses what is written."""
        if not self._small:
            largest = max((path.stat().st_size for path in self._folder.iterdir()), default=0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(largest, 1), self._limits[1]))
            return
        with (self._folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                if error.errno not in _FULL:
                    raise

    def free(self) -> None:
        """There is room again."""
        if self._small:
            (self._folder / "filler").unlink(missing_ok=True)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)


@contextmanager
def small_disk(folder: Path, megabytes: int = 2) -> Iterator[Disk]:
    """A disk below the empty `folder`: a tmpfs of its own for root, else this process' limit on the size of files."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        small = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        small = False
    disk = Disk(folder, small)
    try:
        yield disk
    finally:
        with contextlib.suppress(FileNotFoundError):
            disk.free()
        if small:
            subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
