"""Forward kinematics and Jacobian of FR3 and Panda (equal Denavit-Hartenberg parameters, Craig's convention); pure numpy.

The flange is what libfranka's model calls kFlange; the hand sits on it turned by -45 degrees, its grasp point 0.1034 m further.
"""

from __future__ import annotations

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
_TO_FLANGE = np.eye(4)
_TO_FLANGE[2, 3] = FLANGE
_TO_GRASP = np.eye(4)
_TO_GRASP[:2, :2] = [[np.cos(HAND_ANGLE), -np.sin(HAND_ANGLE)], [np.sin(HAND_ANGLE), np.cos(HAND_ANGLE)]]
_TO_GRASP[2, 3] = GRASP


def frames(q: np.ndarray) -> np.ndarray:
    """Poses of base, joints 1 to 7 and flange in the base frame: (..., 7) -> (..., 9, 4, 4)."""
    cos, sin = np.cos(q), np.sin(q)
    local = np.broadcast_to(_FIXED, (*q.shape, 4, 4)).copy()  # (..., 7, 4, 4)
    local[..., 0, 0], local[..., 0, 1] = cos, -sin
    local[..., 1, 0], local[..., 1, 1] = sin * _CA, cos * _CA
    local[..., 2, 0], local[..., 2, 1] = sin * _SA, cos * _SA
    poses = np.empty((*q.shape[:-1], 9, 4, 4))
    poses[..., 0, :, :] = np.eye(4)
    poses[..., 1, :, :] = local[..., 0, :, :]
    for joint in range(1, 7):
        np.matmul(poses[..., joint, :, :], local[..., joint, :, :], out=poses[..., joint + 1, :, :])
    np.matmul(poses[..., 7, :, :], _TO_FLANGE, out=poses[..., 8, :, :])
    return poses


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
