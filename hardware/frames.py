"""Frames of the rosbridge v2 protocol: JSON, CBOR with typed arrays (RFC 8746), PNG, fragments. Sizes are bounded everywhere."""

from __future__ import annotations

import base64
import binascii
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAX_BYTES = 16 * 2**20
MAX_FRAGMENTS = 4096
MAX_OPEN = 8

# CBOR tags of little-endian typed arrays that rosbridge writes.
_TYPED = {64: "u1", 69: "<u2", 70: "<u4", 71: "<u8", 72: "i1", 77: "<i2", 78: "<i4", 79: "<i8", 85: "<f4", 86: "<f8"}


class FrameError(ValueError):
    """A frame that is no message; it is counted and dropped."""


def encode(message: dict[str, Any]) -> str:
    """A message as JSON. Raises `FrameError` for NaN and infinity, which JSON does not have."""
    try:
        return json.dumps(message, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"message: {error}") from error


@dataclass
class Decoder:
    """Turns frames into messages; keeps the fragments of messages that are not complete."""

    limit: int = MAX_BYTES
    _open: dict[str, dict[int, str]] = field(default_factory=dict)

    def decode(self, frame: str | bytes) -> dict[str, Any] | None:
        """The message of a frame, or None while fragments are missing. Raises `FrameError` for anything else."""
        if len(frame) > self.limit:
            raise FrameError(f"got {len(frame)} bytes, wanted at most {self.limit}")
        message = from_cbor(frame) if isinstance(frame, bytes) else from_json(frame)
        for _ in range(2):  # a fragmented message may be a PNG, a PNG may not hold either
            if message.get("op") == "fragment":
                whole = self._assemble(message)
                if whole is None:
                    return None
                message = from_json(whole)
            elif message.get("op") == "png":
                message = from_json(from_png(message.get("data"), self.limit))
        if message.get("op") in ("fragment", "png") or not isinstance(message.get("op"), str):
            raise FrameError(f"got op {str(message.get('op'))[:40]!r}")
        return message

    def _assemble(self, message: dict[str, Any]) -> str | None:
        name, data, number, total = (message.get(key) for key in ("id", "data", "num", "total"))
        whole = isinstance(number, int) and isinstance(total, int) and not isinstance(number, bool)
        if not (whole and isinstance(data, str) and 0 <= number < total <= MAX_FRAGMENTS):  # type: ignore[operator]
            raise FrameError("got a broken fragment")
        parts = self._open.setdefault(str(name)[:200], {})
        parts[number] = data  # type: ignore[index]
        if sum(map(len, parts.values())) > self.limit:
            del self._open[str(name)[:200]]
            raise FrameError("got fragments of more than the allowed size")
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]
        if len(parts) < total:  # type: ignore[operator]
            return None
        self._open.pop(str(name)[:200], None)
        if sorted(parts) != list(range(len(parts))):
            raise FrameError("got fragments of two messages under one id")
        return "".join(parts[i] for i in range(len(parts)))


def from_json(text: str) -> dict[str, Any]:
    """A JSON object; NaN and Infinity, which some servers write, become None as null does."""
    try:
        message = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"got no JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("got JSON that is no object")
    return message


def from_cbor(data: bytes) -> dict[str, Any]:
    """A CBOR map with typed arrays as numpy arrays."""
    import cbor2

    def typed(*given: Any) -> Any:
        # The order of the arguments differs between versions of cbor2.
        tag = next(one for one in given if isinstance(one, cbor2.CBORTag))
        if tag.tag not in _TYPED or not isinstance(tag.value, bytes):
            raise FrameError(f"got CBOR tag {tag.tag}")
        try:
            return np.frombuffer(tag.value, dtype=_TYPED[tag.tag])
        except ValueError as error:
            raise FrameError(f"got a torn array: {error}") from error

    try:
        message = cbor2.loads(data, tag_hook=typed)
    except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, EOFError, MemoryError) as error:
        raise FrameError(f"got no CBOR: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("got CBOR that is no map")
    return message


def from_png(data: object, limit: int = MAX_BYTES) -> str:
    """The text inside the RGB bytes of a base64 PNG; padding after the text is stripped."""
    if not isinstance(data, str):
        raise FrameError("got a png without data")
    try:
        pixels = _png_pixels(base64.b64decode(data, validate=True), limit)
        return pixels.rstrip(b"\n\0").decode("utf-8")
    except (binascii.Error, zlib.error, struct.error, UnicodeDecodeError, ValueError) as error:
        raise FrameError(f"got a broken png: {error}") from error


def to_png(text: str) -> str:
    """Text as the base64 of an RGB PNG, padded with newlines, as rosbridge servers write it."""
    raw = text.encode("utf-8")
    width = max(1, int(np.ceil(np.sqrt(len(raw) / 3))))
    height = max(1, -(-len(raw) // (3 * width)))
    raw = raw.ljust(width * height * 3, b"\n")
    rows = b"".join(b"\0" + raw[i : i + 3 * width] for i in range(0, len(raw), 3 * width))
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _png_pixels(png: bytes, limit: int) -> bytes:
    """RGB bytes of an 8-bit PNG without interlacing."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise FrameError("got no PNG signature")
    at, header, packed = 8, b"", b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        header, packed = (body if kind == b"IHDR" else header), (packed + body if kind == b"IDAT" else packed)
        at += 12 + length
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", header)
    stride = 3 * width
    if (depth, color, interlace) != (8, 2, 0) or height * (stride + 1) > limit:
        raise FrameError("got a png that is not a small 8-bit RGB picture")
    raw = zlib.decompressobj().decompress(packed, height * (stride + 1))
    if len(raw) != height * (stride + 1):
        raise FrameError("got a torn png")
    rows, before = [], bytearray(stride)
    for y in range(height):
        kind, row = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1 : (y + 1) * (stride + 1)])
        before = _unfiltered(kind, row, before)
        rows.append(bytes(before))
    return b"".join(rows)


def _unfiltered(kind: int, row: bytearray, above: bytearray) -> bytearray:
    """One row of a PNG (RFC 2083, section 6), three bytes per pixel."""
    for i in range(len(row)) if kind else ():
        left, up, corner = (row[i - 3] if i >= 3 else 0), above[i], (above[i - 3] if i >= 3 else 0)
        if kind == 1:
            guess = left
        elif kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) // 2
        elif kind == 4:
            pa, pb, pc = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
            guess = left if pa <= pb and pa <= pc else up if pb <= pc else corner
        else:
            raise FrameError(f"got png filter {kind}")
        row[i] = (row[i] + guess) & 255
    return row
