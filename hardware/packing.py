"""msgpack with numpy arrays as openpi writes them: bytes, dtype and shape; nothing is ever unpickled."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np

MAX_BYTES = 16 * 2**20
_REFUSED = "VOc"
"""Kinds of dtype that never pass: records, objects, complex numbers."""


class PackingError(ValueError):
    """Bytes that are no message of this protocol."""


def pack(message: dict[str, Any]) -> bytes:
    """A message as bytes. Raises `PackingError` for what the protocol does not carry."""
    try:
        return msgpack.packb(message, default=_array)
    except (TypeError, ValueError, OverflowError) as error:
        raise PackingError(str(error)) from error


def unpack(data: bytes) -> dict[str, Any]:
    """The message in the bytes; arrays are read-only views. Raises `PackingError`."""
    if not isinstance(data, bytes) or len(data) > MAX_BYTES:
        raise PackingError(f"got {type(data).__name__} of {len(data)}, wanted at most {MAX_BYTES} bytes")
    try:
        message = msgpack.unpackb(data, object_hook=_hook)
    except (
        ValueError,
        TypeError,
        KeyError,
        ArithmeticError,
        RecursionError,
        msgpack.exceptions.UnpackException,
    ) as error:
        raise PackingError(f"got no message: {error}") from error
    if not isinstance(message, dict):
        raise PackingError("got a message that is no map")
    return message


def _array(value: Any) -> dict[bytes, Any]:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in _REFUSED:
        raise TypeError(f"dtype {value.dtype} is not carried")
    if isinstance(value, np.ndarray):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"{type(value).__name__} is not carried")


def _hook(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value:
        kind, shape, data = _dtype(value[b"dtype"]), value[b"shape"], value[b"data"]
        if not isinstance(data, bytes) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError("got a broken array")
        if math.prod(shape) * kind.itemsize != len(data):
            raise ValueError(f"got {len(data)} bytes for an array of shape {tuple(shape)} and type {kind}")
        return np.frombuffer(data, dtype=kind).reshape(shape)
    if b"__npgeneric__" in value:
        return _dtype(value[b"dtype"]).type(value[b"data"])
    return value


def _dtype(name: object) -> np.dtype[Any]:
    if not isinstance(name, str):
        raise ValueError("got no dtype")
    kind = np.dtype(name)
    if kind.kind in _REFUSED or kind.hasobject:
        raise ValueError(f"dtype {name[:20]} is not carried")
    return kind
