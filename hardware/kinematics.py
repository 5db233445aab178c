"""Forward kinematics and Jacobian of FR3 and Panda (equal Denavit-Hartenberg parameters, Craig's convention); pure numpy.

The flange is what libfranka's model calls kFlange; the hand sits on it turned by -45 degrees, its grasp point 0.1034 m further.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, sin

import numpy as np

A = np.array([0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088])
D = np.array([0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0])
ALPHA = np.pi / 2 * np.array([0, -1, 1, 1, -1, 1, 1])
FLANGE = 0.107
HAND_ANGLE = -np.pi / 4
GRASP = 0.1034
"""Metres from the flange to the point between the fingers."""

# Cosines of quarter turns are exact zeros, so that no 1e-17 enters the chain.
_CA, _SA = np.round(np.cos(ALPHA)), np.round(np.sin(ALPHA))
_FIXED = np.zeros((7, 4, 4))
_FIXED[:, 0, 3] = A
_FIXED[:, 1, 3] = -D * _SA
_FIXED[:, 2, 3] = D * _CA
_FIXED[:, 3, 3] = 1.0
_FIXED[:, 1, 2] = -_SA
_FIXED[:, 2, 2] = _CA
# What the cosine and the sine of each joint add to it, (7, 4, 4).
_COSINE, _SINE = np.zeros((7, 4, 4)), np.zeros((7, 4, 4))
_COSINE[:, 0, 0], _COSINE[:, 1, 1], _COSINE[:, 2, 1] = 1.0, _CA, _SA
_SINE[:, 0, 1], _SINE[:, 1, 0], _SINE[:, 2, 0] = -1.0, _CA, _SA
_BASE = np.eye(4)
_TO_FLANGE = np.eye(4)
_TO_FLANGE[2, 3] = FLANGE
_TO_GRASP = np.eye(4)
_TO_GRASP[:2, :2] = [[np.cos(HAND_ANGLE), -np.sin(HAND_ANGLE)], [np.sin(HAND_ANGLE), np.cos(HAND_ANGLE)]]
_TO_GRASP[2, 3] = GRASP


_LINKS = list(zip(_SA.tolist(), A.tolist(), D.tolist(), strict=True))
Pose = tuple[float, float, float, float, float, float, float, float, float, float, float, float]
"""Axes x, y, z of a frame and its origin, three numbers each, in the base frame."""


def frames(q: np.ndarray) -> np.ndarray:
    """Poses of base, joints 1 to 7 and flange in the base frame: (..., 7) -> (..., 9, 4, 4)."""
    local = np.cos(q)[..., None, None] * _COSINE + np.sin(q)[..., None, None] * _SINE + _FIXED  # (..., 7, 4, 4)
    poses = np.empty((*q.shape[:-1], 9, 4, 4))
    poses[..., 0, :, :] = _BASE
    poses[..., 1, :, :] = local[..., 0, :, :]
    for joint in range(1, 7):
        np.matmul(poses[..., joint, :, :], local[..., joint, :, :], out=poses[..., joint + 1, :, :])
    np.matmul(poses[..., 7, :, :], _TO_FLANGE, out=poses[..., 8, :, :])
    return poses


def poses(q: Sequence[float]) -> list[Pose]:
    """`frames` of one configuration (7) in plain floats, a quarter of the time: base, joints 1 to 7, flange."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0
    found: list[Pose] = [(xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz)]
    for angle, (turn, a, d) in zip(q, _LINKS, strict=True):
        c, s = cos(angle), sin(angle)
        px, py, pz = px + a * xx, py + a * xy, pz + a * xz
        # About x by a quarter turn, back, or not at all.
        if turn > 0:
            yx, yy, yz, zx, zy, zz = zx, zy, zz, -yx, -yy, -yz
        elif turn < 0:
            yx, yy, yz, zx, zy, zz = -zx, -zy, -zz, yx, yy, yz
        xx, xy, xz, yx, yy, yz = (
            c * xx + s * yx, c * xy + s * yy, c * xz + s * yz, c * yx - s * xx, c * yy - s * xy, c * yz - s * xz,
        )  # fmt: skip
        if d:
            px, py, pz = px + d * zx, py + d * zy, pz + d * zz
        found.append((xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz))
    found.append((xx, xy, xz, yx, yy, yz, zx, zy, zz, px + FLANGE * zx, py + FLANGE * zy, pz + FLANGE * zz))
    return found


def flange(q: np.ndarray) -> np.ndarray:
    """Pose of the flange: (..., 7) -> (..., 4, 4)."""
    return frames(q)[..., 8, :, :]


def grasp_point(q: np.ndarray) -> np.ndarray:
    """Pose of the point between the fingers of the Franka hand: (..., 7) -> (..., 4, 4)."""
    return frames(q)[..., 8, :, :] @ _TO_GRASP


def jacobian(q: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """Twist (v, w) in the base frame of a point `offset` metres beyond the flange per joint velocity: (..., 6, 7)."""
    poses = frames(q)
    axes = poses[..., 1:8, :3, 2]  # (..., 7, 3)
    tip = poses[..., 8, :3, 3] + offset * poses[..., 8, :3, 2]
    arms = tip[..., None, :] - poses[..., 1:8, :3, 3]
    return np.concatenate([np.cross(axes, arms), axes], axis=-1).swapaxes(-1, -2)


def solve_twist(q: np.ndarray, twist: np.ndarray, damping: float = 0.03, offset: float = GRASP) -> np.ndarray:
    """Joint displacement (7,) for a small displacement (6,) of the grasp point: damped least squares (Wampler 1986)."""
    j = jacobian(q, offset)
    return j.T @ np.linalg.solve(j @ j.T + damping**2 * np.eye(6), twist)
