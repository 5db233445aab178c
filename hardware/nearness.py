"""Whether one arm's way to standstill stays inside its workspace, asked every millisecond: plain floats, and only what may have changed.

The margins are those of `Workspace.margins`, link by link. Each is good until the arm has travelled as far as it was wide (`REACH`
bounds how far any point gets per radian of each joint), so a step asks again for a few; the answer is as if all had been asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt

from .kinematics import Pose, poses
from .reasons import Reason
from .workspace import FRAME, PAIRS, RADIUS, REACH, ROOM, SEGMENT, Workspace

_REACH = REACH.tolist()
_LINKS = list(zip(FRAME.tolist(), SEGMENT[:, 0].tolist(), (SEGMENT[:, 1] - SEGMENT[:, 0]).tolist(), strict=True))
_SQUARED = ((SEGMENT[:, 1] - SEGMENT[:, 0]) ** 2).sum(-1).tolist()

Margin = Callable[[Sequence[Pose]], float]
"""Metres that are left, negative where something is broken, for the poses of one configuration."""


class Nearness:
    """Remembers how far one arm was from what it must not meet."""

    def __init__(self, workspace: Workspace) -> None:
        links = ROOM.tolist()
        self._asked: list[tuple[Margin, int]] = [(_box(workspace, link), int(Reason.WORKSPACE)) for link in links]
        self._asked += [(_half_spaces(workspace, link), int(Reason.FLOOR)) for link in links]
        self._asked += [(_gap(workspace, i, j), int(Reason.SELFCOLL)) for i, j in PAIRS.tolist()]
        self._until = [0.0] * len(self._asked)
        """Travel up to which each margin cannot have been used up; `_soonest` is the least of them."""
        self._soonest = self._travel = 0.0
        self._path: Sequence[Sequence[float]] = ()

    def broken(self, path: Sequence[Sequence[float]]) -> int:
        """Reason bits of what any of the configurations (n, 7) breaks, 0 where all is allowed; n is the same in every call."""
        # As many metres as any point moved at most since the path before.
        moved = [
            sum([reach * abs(angle - before) for reach, angle, before in zip(_REACH, q, old, strict=True)])
            for q, old in zip(path, self._path, strict=False)
        ]
        self._travel += max(moved, default=0.0)
        self._path = path
        if self._travel < self._soonest:
            return 0
        arms, bits, until = [poses(q) for q in path], 0, self._until
        for i, (margin, bit) in enumerate(self._asked):
            if until[i] <= self._travel:
                left = min([margin(arm) for arm in arms])
                until[i] = self._travel + left
                if left < 0.0:
                    bits |= bit
        self._soonest = min(until)
        return bits


def _axis(arm: Sequence[Pose], link: int) -> tuple[float, float, float, float, float, float]:
    """Start and direction of a capsule's axis in the base frame, metres."""
    frame, (x, y, z), (u, v, w) = _LINKS[link]
    xx, xy, xz, yx, yy, yz, zx, zy, zz, px, py, pz = arm[frame]
    return (
        px + x * xx + y * yx + z * zx, py + x * xy + y * yy + z * zy, pz + x * xz + y * yz + z * zz,
        u * xx + v * yx + w * zx, u * xy + v * yy + w * zy, u * xz + v * yz + w * zz,
    )  # fmt: skip


def _box(workspace: Workspace, link: int) -> Margin:
    """How far a link is from the faces of the box."""
    radius = float(RADIUS[link])
    (ax, ay, az), (bx, by, bz) = ((float(value) for value in end) for end in (workspace.low, workspace.high))

    def margin(arm: Sequence[Pose]) -> float:
        x, y, z, u, v, w = _axis(arm, link)
        i, j, k = x + u, y + v, z + w
        return (
            min(x - ax, i - ax, y - ay, j - ay, z - az, k - az, bx - x, bx - i, by - y, by - j, bz - z, bz - k) - radius
        )

    return margin


def _half_spaces(workspace: Workspace, link: int) -> Margin:
    """How far a link is from the nearest half-space."""
    planes, radius = workspace.planes.tolist(), float(RADIUS[link])

    def margin(arm: Sequence[Pose]) -> float:
        x, y, z, u, v, w = _axis(arm, link)
        heights = [nx * x + ny * y + nz * z + min(0.0, nx * u + ny * v + nz * w) - d for nx, ny, nz, d in planes]
        return min(heights, default=float("inf")) - radius

    return margin


def _gap(workspace: Workspace, first: int, second: int) -> Margin:
    """How far two links are from being too near: Ericson, Real-Time Collision Detection, section 5.1.9."""
    kept = float(RADIUS[first] + RADIUS[second]) + workspace.separation
    a, e = _SQUARED[first], _SQUARED[second]

    def margin(arm: Sequence[Pose]) -> float:
        x, y, z, ax, ay, az = _axis(arm, first)
        i, j, k, bx, by, bz = _axis(arm, second)
        x, y, z = x - i, y - j, z - k
        f, c, b = bx * x + by * y + bz * z, ax * x + ay * y + az * z, ax * bx + ay * by + az * bz
        between = a * e - b * b
        s = (b * f - c * e) / between if between > 1e-12 else 0.0
        s = 0.0 if s < 0.0 else 1.0 if s > 1.0 else s
        t = (b * s + f) / e
        t = 0.0 if t < 0.0 else 1.0 if t > 1.0 else t
        s = (b * t - c) / a
        s = 0.0 if s < 0.0 else 1.0 if s > 1.0 else s
        x, y, z = x + s * ax - t * bx, y + s * ay - t * by, z + s * az - t * bz
        return sqrt(x * x + y * y + z * z) - kept

    return margin
