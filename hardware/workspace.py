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
_HOMOGENEOUS = np.concatenate([SEGMENT, np.ones((len(SEGMENT), 2, 1))], axis=2)
# Links three apart or more, as the arm's own monitor has it; nearer ones cannot meet inside the joint limits.
PAIRS = np.array([(i, j) for i in range(10) for j in range(10) if FRAME[j] - FRAME[i] >= 3 and FRAME[i] < 5])
"""Capsules that could meet, (P, 2)."""
_FIRST, _SECOND = PAIRS[:, 0], PAIRS[:, 1]
_PAIR_RADIUS = RADIUS[_FIRST] + RADIUS[_SECOND]
ROOM = np.flatnonzero(FRAME >= 4)
"""Capsules that move against the room: everything from the elbow on."""
BITS = np.array([int(Reason.WORKSPACE), int(Reason.FLOOR), int(Reason.SELFCOLL)])
REACH = np.array([1.25, 1.25, 0.95, 0.9, 0.6, 0.4, 0.25])
"""Metres that any point of the arm moves at most, also against any other link, per radian of each joint."""


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
    _floor: np.ndarray = field(init=False, repr=False)
    _box_low: np.ndarray = field(init=False, repr=False)
    _box_high: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        planes = np.asarray(self.half_spaces, dtype=np.float64).reshape(-1, 4)
        check_shape("Workspace", "half_spaces", planes.shape, (None, 4), "Write (nx, ny, nz, d) per half-space.")
        lengths = np.linalg.norm(planes[:, :3], axis=1)
        if not (np.isfinite(planes).all() and (lengths > 0).all() and np.less(self.low, self.high).all()):
            raise InputError("Workspace: wanted low < high and half-spaces with a finite normal that is not zero.")
        object.__setattr__(self, "planes", planes / lengths[:, None])
        radius = RADIUS[ROOM][:, None, None]  # (C, 1, 1)
        object.__setattr__(self, "_floor", self.planes[:, 3] + radius)
        object.__setattr__(self, "_box_low", np.asarray(self.low) + radius)
        object.__setattr__(self, "_box_high", np.asarray(self.high) - radius)

    def margins(self, q: np.ndarray) -> np.ndarray:
        """Metres left to the box, to the nearest half-space and between links, negative outside: (..., 7) -> (..., 3)."""
        ends = capsules(q)  # (..., C, 2, 3)
        room = ends[..., ROOM, :, :]
        box = np.minimum((room - self._box_low).min((-1, -2, -3)), (self._box_high - room).min((-1, -2, -3)))
        heights = room @ self.planes[:, :3].T  # (..., C, 2, P)
        floor = (heights - self._floor).min((-1, -2, -3), initial=np.inf)
        return np.stack([box, floor, self.clearance(ends).min(-1) - self.separation], axis=-1)

    def violations(self, q: np.ndarray) -> np.ndarray:
        """Reason bits (...,) int64 of configurations (..., 7); 0 where everything is allowed."""
        return (self.margins(q) < 0.0) @ BITS

    def told(self) -> str:
        """One line for the log."""
        low, high = (", ".join(f"{x:g}" for x in end) for end in (self.low, self.high))
        return f"workspace: box ({low}) to ({high}) m, {len(self.planes)} half-spaces"

    @staticmethod
    def clearance(ends: np.ndarray) -> np.ndarray:
        """Distance between the surfaces of every pair of links that could meet: (..., C, 2, 3) -> (..., pairs)."""
        return segment_distance(ends[..., _FIRST, :, :], ends[..., _SECOND, :, :]) - _PAIR_RADIUS


def capsules(q: np.ndarray) -> np.ndarray:
    """Ends of all capsule axes in the base frame: (..., 7) -> (..., C, 2, 3)."""
    poses = kinematics.frames(q)[..., FRAME, :3, :]  # (..., C, 3, 4)
    return _HOMOGENEOUS @ poses.swapaxes(-1, -2)


def segment_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distance between segments (..., 2, 3): Ericson, Real-Time Collision Detection, section 5.1.9."""
    d1, d2 = first[..., 1, :] - first[..., 0, :], second[..., 1, :] - second[..., 0, :]
    r = first[..., 0, :] - second[..., 0, :]
    a, e, f = (d1 * d1).sum(-1), (d2 * d2).sum(-1), (d2 * r).sum(-1)
    c, b = (d1 * r).sum(-1), (d1 * d2).sum(-1)
    denominator = a * e - b * b
    s = np.clip((b * f - c * e) / np.where(denominator > 1e-12, denominator, np.inf), 0.0, 1.0)
    t = np.clip((b * s + f) / e, 0.0, 1.0)
    s = np.clip((b * t - c) / a, 0.0, 1.0)
    gap = r + s[..., None] * d1 - t[..., None] * d2
    return np.sqrt((gap * gap).sum(-1))
