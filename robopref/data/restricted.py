"""Foreign pickles, read so that nothing in them can run: numbers and numpy arrays come out, anything else is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError

LARGEST = 2**31
"""Bytes of a file; larger ones are refused before they are read."""


DAMAGED = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, MemoryError, OverflowError,
)  # fmt: skip
"""What reading a torn pickle may raise: numbers out of it are taken for sizes and places."""


def _latin(text: str, encoding: str) -> bytes:
    """What old pickles call to make bytes; any other encoding would import code by name."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


def _allowed() -> dict[tuple[str, str], Any]:
    """Everything that a pickle of arrays may name, under numpy's old and new module names."""
    from numpy._core import multiarray, numeric

    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin,
    }  # fmt: skip
    for home in ("numpy.core", "numpy._core"):
        names[f"{home}.multiarray", "_reconstruct"] = multiarray._reconstruct
        names[f"{home}.multiarray", "scalar"] = multiarray.scalar
        names[f"{home}.numeric", "_frombuffer"] = numeric._frombuffer  # type: ignore[attr-defined]
    return names


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that finds the constructors of arrays and nothing else."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        super().__init__(file)
        self._known = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """The constructor, if it is one of numpy's arrays."""
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_array(path: Path) -> np.ndarray:
    """The array (or list of numbers, as an array) that a pickle holds. Raises `InputError` for anything else."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: got no such file, wanted a pickle of an array. Check the path.")
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path}: got {path.stat().st_size} bytes, wanted at most {LARGEST}. Is it the right file?")
    try:
        with path.open("rb") as file:
            found = _ArraysOnly(file).load()
        array = np.asarray(found)
    except DAMAGED as error:
        raise InputError(
            f"{path}: got a pickle that holds more than arrays, or a damaged one ({error}), wanted arrays only."
        ) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: got values of type {array.dtype}, wanted numbers.")
    return array
