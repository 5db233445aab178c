"""A picture of the arm from its capsules, without OpenGL: what a simulated camera shows, and its JPEG."""

from __future__ import annotations

import numpy as np

from .workspace import FRAME, RADIUS, capsules

_COLOURS = np.array([[70, 80, 95], [150, 160, 175], [225, 228, 232]], dtype=np.float64)


def draw(q: np.ndarray, goal: np.ndarray | None = None, size: int = 224) -> np.ndarray:
    """The arm at q (7,) seen obliquely from the front left, upright, (size, size, 3) uint8; the goal is green."""
    view = np.array([[0.80, -0.60, 0.0], [-0.20, -0.27, 0.94]])  # image right and up, in the base frame
    depth = np.array([-0.56, -0.75, -0.33])
    ends = capsules(np.asarray(q, dtype=np.float64))  # (C, 2, 3)
    picture = np.full((size, size, 3), 246, dtype=np.uint8)
    scale = size / 1.7
    at_x, at_y = np.meshgrid(np.arange(size), np.arange(size))
    for index in np.argsort(-(ends.mean(1) @ depth)):
        start, end = (ends[index] @ view.T) * scale
        start, end = _pixels(start, size), _pixels(end, size)
        colour = _COLOURS[int(FRAME[index]) % 3]
        _stroke(picture, at_x, at_y, start, end, RADIUS[index] * scale, colour)
    if goal is not None:
        spot = _pixels((view @ goal) * scale, size)
        _stroke(picture, at_x, at_y, spot, spot, 0.03 * scale, np.array([50.0, 160.0, 80.0]))
    return picture


def jpeg(picture: np.ndarray, quality: int = 4) -> bytes:
    """A picture (height, width, 3) uint8 as JPEG; quality 2 is best, 31 worst."""
    import io

    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as file:
        stream = file.add_stream("mjpeg", rate=1, options={"qmin": str(quality), "qmax": str(quality)})
        stream.height, stream.width, stream.pix_fmt = picture.shape[0], picture.shape[1], "yuvj420p"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")), *stream.encode(None)]:
            file.mux(packet)
    return buffer.getvalue()


def from_jpeg(data: bytes, limit: int = 4096, size: tuple[int, int] | None = None) -> np.ndarray:
    """The picture (height, width, 3) uint8 in a JPEG, scaled to `size` (height, width). Raises `ValueError` for anything else."""
    import io

    import av

    try:
        with av.open(io.BytesIO(data), format="jpeg_pipe") as file:
            frame = next(file.decode(video=0))
            if max(frame.width, frame.height) > limit:
                raise ValueError(f"got a picture of {frame.width} x {frame.height}, wanted at most {limit}")
            height, width = size or (frame.height, frame.width)
            return frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"got no JPEG: {error}") from error


def _pixels(point: np.ndarray, size: int) -> np.ndarray:
    return np.array([0.32 * size + point[0], 0.86 * size - point[1]])


def _stroke(
    picture: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    colour: np.ndarray,
) -> None:
    """Fill every pixel within `radius` of the segment, lighter towards its axis."""
    way = end - start
    along = ((x - start[0]) * way[0] + (y - start[1]) * way[1]) / max(float(way @ way), 1e-9)
    along = np.clip(along, 0.0, 1.0)
    distance = np.hypot(x - start[0] - along * way[0], y - start[1] - along * way[1])
    inside = distance <= radius
    shade = 1.0 - 0.45 * (distance[inside] / radius) ** 2
    picture[inside] = (colour * shade[:, None]).astype(np.uint8)
