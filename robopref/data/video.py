"""Pictures as H.264 video (lossy) with PyAV: frame i of an episode lies at from_timestamp + i / fps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.error import FFmpegError

from robopref.arrays import InputError

CODEC, PIXELS = "h264", "yuv420p"
# A key frame every second frame and no B-frames make any frame cheap to reach (LeRobot's choice, g=2).
_OPTIONS = {"crf": "18", "g": "2", "bf": "0", "preset": "veryfast"}


class VideoWriter:
    """One growing MP4 file; episodes follow each other. Size (height, width) must be even (4:2:0 chroma)."""

    def __init__(self, path: Path, fps: int, height: int, width: int) -> None:
        if height % 2 or width % 2:
            raise InputError(f"{path.name}: got pictures of {height}x{width}, wanted even height and width for video.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.frames = 0
        self._container = av.open(str(path), mode="w")
        self._stream = self._container.add_stream("libx264", rate=fps, options=dict(_OPTIONS))
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, PIXELS
        self._stream.thread_count = 2  # fixed, so that the same pictures give the same bytes on any machine

    def add(self, images: np.ndarray) -> None:
        """Append (T, height, width, 3) uint8."""
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.frames
            frame.time_base = 1 / self._stream.codec_context.framerate
            self.frames += 1
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back, and the index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_frames(path: Path, first: int, count: int, fps: int) -> np.ndarray:
    """Frames [first, first + count) as (count, height, width, 3) uint8. Raises `InputError` when they are not there."""
    return np.stack(list(decode(path, first, count, fps)))


def decode(path: Path, first: int, count: int, fps: int) -> Iterator[np.ndarray]:
    """Frames [first, first + count) one after the other, (height, width, 3) uint8 each, read in one pass.

    Raises `InputError` when the file cannot be read, ends before the last of them, or lacks one in between.
    """
    found = 0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            container.seek(int(first / fps / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream) if count else ():
                index = round(float((frame.pts or 0) * stream.time_base) * fps)
                if index < first:
                    continue
                if index != first + found:
                    raise InputError(
                        f"{path}: got frame {index}, wanted frame {first + found}: one is missing. Restore it from a copy."
                    )
                yield frame.to_ndarray(format="rgb24")
                found += 1
                if found == count:
                    return
    except FFmpegError as error:
        raise InputError(
            f"{path}: got a video that cannot be read ({error.strerror}). Restore it from a copy."
        ) from error
    if found < count:
        raise InputError(f"{path}: got {found} frames from {first}, wanted {count}. Restore it from a copy.")
