"""Where the arm may be: a Cartesian box and half-spaces for its points, and distance between its own links as capsules.

A capsule is a segment with a radius; those of the links approximate the arm to about a centimetre and are also the shapes of
our simulator model (`testing/model.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from robopref.arrays import InputError, check_shape

from . import kinematics
from .reasons import Reason

# (frame, x0, y0, z0, x1, y1, z1, radius); frame 0 is the base, 1 to 7 the links, 8 the flange with the hand on it.
_CAPSULES = np.array(
    [
        (0, -0.09, 0.0, 0.06, -0.03, 0.0, 0.06, 0.06),
        (1, 0.0, 0.0, -0.283, 0.0, 0.0, -0.05, 0.06),
        (2, 0.0, 0.0, -0.06, 0.0, 0.0, 0.06, 0.06),
        (3, 0.0, 0.0, -0.22, 0.0, 0.0, -0.07, 0.06),
        (4, 0.0, 0.0, -0.06, 0.0, 0.0, 0.06, 0.06),
        (5, 0.0, 0.03, -0.26, 0.0, 0.07, -0.08, 0.06),
        (6, 0.0, 0.0, -0.07, 0.0, 0.0, 0.01, 0.05),
        (7, 0.0, 0.0, -0.04, 0.0, 0.0, 0.08, 0.045),
        # The hand is 0.2 m wide along its y axis, which stands at -45 degrees on the flange; then the fingers.
        (8, 0.0566, 0.0566, 0.035, -0.0566, -0.0566, 0.035, 0.045),
        (8, 0.0, 0.0, 0.06, 0.0, 0.0, 0.09, 0.025),
    ]
)
FRAME = _CAPSULES[:, 0].astype(int)
SEGMENT = _CAPSULES[:, 1:7].reshape(-1, 2, 3)
"""Ends of each capsule's axis in its own frame, (C, 2, 3) metres."""
RADIUS = _CAPSULES[:, 7]
# Links three apart or more, as the arm's own monitor has it; nearer ones cannot meet inside the joint limits.
PAIRS = np.array([(i, j) for i in range(10) for j in range(10) if FRAME[j] - FRAME[i] >= 3 and FRAME[i] < 5])
"""Capsules that could meet, (P, 2)."""
ROOM = np.flatnonzero(FRAME >= 4)
"""Capsules that move against the room: everything from the elbow on."""
BITS = np.array([int(Reason.WORKSPACE), int(Reason.FLOOR), int(Reason.SELFCOLL)])
_EIGHTHS = np.linspace(0.125, 1.0, 8)[:, None]
REACH = np.array([1.25, 1.25, 0.95, 0.9, 0.6, 0.4, 0.25])
"""Metres that any point of the arm moves at most, also against any other link, per radian of each joint."""


def _picked(vectors: np.ndarray) -> np.ndarray:
    """Rows (C, 36) that pick vectors (C, 4) of the capsules' frames, homogeneous, out of columns of poses (9 frames x 4, ...)."""
    rows = np.zeros((len(vectors), 9, 4))
    rows[np.arange(len(vectors)), FRAME] = vectors
    return rows.reshape(-1, 36)


_LENGTH = np.linalg.norm(SEGMENT[:, 1] - SEGMENT[:, 0], axis=1)
_START, _END = (_picked(np.pad(SEGMENT[:, end], ((0, 0), (0, 1)), constant_values=1.0)) for end in (0, 1))
_AXIS = (_END - _START) / _LENGTH[:, None]
_FIRST, _SECOND = PAIRS[:, 0], PAIRS[:, 1]
_LENGTHS = _LENGTH[_FIRST, None], _LENGTH[_SECOND, None]
_RADII = (RADIUS[_FIRST] + RADIUS[_SECOND])[:, None]
# One product with the poses gives every vector of `margins`: from the second of a pair to the first, both axes, ends in the room.
_VECTORS = np.concatenate([_START[_FIRST] - _START[_SECOND], _AXIS[_FIRST], _AXIS[_SECOND], _START[ROOM], _END[ROOM]])
_FACES = np.concatenate([np.eye(3), -np.eye(3)])


@dataclass(frozen=True)
class Workspace:
    """Allowed positions. `violations(q)` names what a configuration breaks."""

    low: tuple[float, float, float] = (-0.9, -0.9, -0.3)
    high: tuple[float, float, float] = (0.9, 0.9, 1.3)
    """Box for every point of the moving links, base frame, metres."""
    half_spaces: tuple[tuple[float, float, float, float], ...] = ((0.0, 0.0, 1.0, 0.02),)
    """(nx, ny, nz, d): every point p of the moving links keeps n p >= d. The default is a floor 2 cm above the base plate."""
    separation: float = 0.06
    """Metres between links that must not touch; the arm's own monitor trips at 0.05."""
    planes: np.ndarray = field(init=False, repr=False)
    """The half-spaces (P, 4) with normals of length 1."""
    _sides: tuple[np.ndarray, np.ndarray] = field(init=False, repr=False)
    """Normals (6 + P, 3) of the box and of the half-spaces, and how far along them each end must be (2 links, 6 + P, 1)."""

    def __post_init__(self) -> None:
        planes = np.asarray(self.half_spaces, dtype=np.float64).reshape(-1, 4)
        check_shape("Workspace", "half_spaces", planes.shape, (None, 4), "Write (nx, ny, nz, d) per half-space.")
        lengths = np.linalg.norm(planes[:, :3], axis=1)
        if not (np.isfinite(planes).all() and (lengths > 0).all() and np.less(self.low, self.high).all()):
            raise InputError("Workspace: wanted low < high and half-spaces with a finite normal that is not zero.")
        object.__setattr__(self, "planes", planes / lengths[:, None])
        offsets = np.concatenate([np.asarray(self.low), -np.asarray(self.high), self.planes[:, 3]])[:, None]
        sides = np.concatenate([_FACES, self.planes[:, :3]]), offsets + np.tile(RADIUS[ROOM], 2)[:, None, None]
        object.__setattr__(self, "_sides", sides)

    def margins(self, q: np.ndarray) -> np.ndarray:
        """Metres left to the box, to the nearest half-space and between links, negative outside: (..., 7) -> (..., 3)."""
        poses = kinematics.frames(q.reshape(-1, 7))  # (N, 9, 4, 4)
        count, pairs = len(poses), 3 * len(PAIRS)
        # Configurations last: numpy costs a call, not a number, and adds and compares fastest along the first axis.
        columns = poses[:, :, :3].transpose(1, 3, 2, 0).reshape(36, -1)
        vectors = (_VECTORS @ columns).reshape(-1, 3, count)
        normals, offsets = self._sides
        heights = normals @ vectors[pairs:] - offsets  # (2 links, 6 + planes, N)
        found = np.empty((3, count))
        found[0] = heights[:, :6].min((0, 1))
        found[1] = heights[:, 6:].min((0, 1), initial=np.inf)
        found[2] = (segment_distance(vectors[:pairs].reshape(3, -1, 3, count), *_LENGTHS) - _RADII).min(0)
        found[2] -= self.separation
        return found.T.reshape(*q.shape[:-1], 3)

    def violations(self, q: np.ndarray) -> np.ndarray:
        """Reason bits (...,) int64 of configurations (..., 7); 0 where everything is allowed."""
        return (self.margins(q) < 0.0) @ BITS

    def shortened(self, start: np.ndarray, end: np.ndarray) -> tuple[Reason, np.ndarray]:
        """What the straight line from start to end (7,) breaks first, and the last of its eighths (start among them) before that."""
        line = start + _EIGHTHS * (end - start)  # (8, 7)
        broken = self.violations(line)
        if not broken.any():
            return Reason.NONE, end
        first = int(np.argmax(broken != 0))
        return Reason(int(broken[first])), line[first - 1] if first else start

    def told(self) -> str:
        """One line for the log."""
        low, high = (", ".join(f"{x:g}" for x in end) for end in (self.low, self.high))
        return f"workspace: box ({low}) to ({high}) m, {len(self.planes)} half-spaces"


def capsules(q: np.ndarray) -> np.ndarray:
    """Ends of all capsule axes in the base frame: (..., 7) -> (..., C, 2, 3)."""
    poses = kinematics.frames(q)[..., :3, :].swapaxes(-1, -2)  # (..., 9, 4, 3)
    rows = poses.reshape(*q.shape[:-1], 36, 3)
    return np.stack([_START @ rows, _END @ rows], axis=-2)


def segment_distance(between: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance between segments: Ericson, Real-Time Collision Detection, section 5.1.9, with axes of length 1.

    between: (3, P, 3, N): the vector from the second segment's start to the first one's, then both axes; first, second: their lengths (P, 1).
    Returns (P, N).
    """
    square, c, f = np.einsum("vpkn,pkn->vpn", between, between[0])
    b = np.einsum("pkn,pkn->pn", between[1], between[2])
    # Where the axes are parallel any s will do, and the numerator vanishes, too.
    s = np.minimum(np.maximum((b * f - c) / np.maximum(1.0 - b * b, 1e-12), 0.0), first)
    t = np.minimum(np.maximum(b * s + f, 0.0), second)
    nearest = b * t - c
    s = np.minimum(np.maximum(nearest, 0.0), first)
    return np.sqrt(np.maximum(square + s * (s - 2.0 * nearest) + t * (t - 2.0 * f), 0.0))
