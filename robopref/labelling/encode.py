"""Pictures to clips that a browser plays: H.264 in MP4, and VP9 in WebM for browsers without it. Same pictures, same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from robopref.data.files import atomic_file


@dataclass(frozen=True)
class Codec:
    """How one kind of clip is written."""

    suffix: str
    media_type: str
    encoder: str
    options: tuple[tuple[str, str], ...]
    container: tuple[tuple[str, str], ...]


# A key frame every 10 and no B-frames keep scrubbing quick; bitexact leaves out the encoder's version and the time.
CODECS = {
    "h264": Codec(
        ".mp4", "video/mp4", "libx264",
        (("preset", "veryfast"), ("crf", "23"), ("g", "10"), ("bf", "0"), ("profile", "baseline"), ("threads", "1")),
        (("movflags", "faststart"), ("fflags", "+bitexact")),
    ),
    "vp9": Codec(
        ".webm", "video/webm", "libvpx-vp9",
        (("deadline", "realtime"), ("cpu-used", "8"), ("crf", "36"), ("b", "0"), ("g", "10"), ("threads", "1")),
        (("fflags", "+bitexact"),),
    ),
}  # fmt: skip


def encode(path: Path, pictures: np.ndarray, fps: int, codec: str) -> None:
    """Write (F, H, W, 3) uint8 as one clip; the file appears only when complete. Odd sizes gain a grey line."""
    how = CODECS[codec]
    frames, height, width, _ = pictures.shape
    pad = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    if height % 2 or width % 2:
        pictures = np.pad(pictures, pad, mode="edge")
    with atomic_file(path) as temporary:
        kind = {".mp4": "mp4", ".webm": "webm"}[how.suffix]
        with av.open(str(temporary), mode="w", format=kind, options=dict(how.container)) as container:
            stream = container.add_stream(how.encoder, rate=fps, options=dict(how.options))
            stream.height, stream.width, stream.pix_fmt = pictures.shape[1], pictures.shape[2], "yuv420p"
            stream.time_base = Fraction(1, fps)
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pictures[number]), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
