"""Our own mesh-free MuJoCo model of the FR3 for the protocol simulator: Denavit-Hartenberg frames, capsules, 4 KB of text.

Masses, inertias, armature and friction are rounded from published identifications of the arm. The names `fr3_linkN_collision`
switch on the simulator's self-collision monitor; without the armature it is unstable.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ..kinematics import ALPHA, A, D
from ..limits import FR3
from ..workspace import FRAME, RADIUS, SEGMENT

_MASS = (2.927, 2.936, 2.245, 2.616, 2.327, 1.817, 0.627)
_COM = ((0, -18, -39), (3, -74, 9), (41, -5, -29), (-46, 63, -9), (-2, 29, -97), (60, -41, -10), (5, 9, -16))
_INERTIA = ((24, 23, 6), (63, 41, 25), (27, 19, 17), (51, 37, 16), (58, 45, 13), (18, 16, 2), (1, 1, 0.5))
_ARMATURE = (0.195, 0.195, 0.195, 0.195, 0.074, 0.074, 0.074)
_FRICTION = (1.137, 1.137, 1.137, 1.137, 0.763, 0.44, 0.248)


def _text(values: object) -> str:
    return " ".join(f"{float(x):.6g}" for x in np.atleast_1d(values))  # type: ignore[call-overload]


def _capsule(link: int) -> str:
    index = int(np.flatnonzero(link == FRAME)[0])
    ends = _text(SEGMENT[index].ravel())
    return f'<geom name="fr3_link{link}_collision" type="capsule" fromto="{ends}" size="{RADIUS[index]:.6g}" mass="0"/>'


def xml() -> str:
    """The model as MJCF."""
    lines = [
        '<mujoco model="fr3"><compiler angle="radian" autolimits="true" balanceinertia="true"/>',
        '<option timestep="0.001" integrator="implicitfast"/>',
        f'<worldbody><light pos="0 0 2"/><body name="fr3_link0">{_capsule(0)}',
    ]
    for i in range(7):
        half = ALPHA[i] / 2
        place = _text((A[i], -D[i] * round(np.sin(ALPHA[i])), D[i] * round(np.cos(ALPHA[i]))))
        low, high = FR3.q_min[i], FR3.q_max[i]
        com, inertia = _text(np.array(_COM[i]) / 1000), _text(np.array(_INERTIA[i]) / 1000)
        lines += [
            f'<body name="fr3_link{i + 1}" pos="{place}" quat="{np.cos(half):.17g} {np.sin(half):.17g} 0 0" gravcomp="1">',
            f'<inertial pos="{com}" mass="{_MASS[i]}" diaginertia="{inertia}"/>',
            f'<joint name="fr3_joint{i + 1}" axis="0 0 1" range="{low} {high}" damping="0.21" '
            f'armature="{_ARMATURE[i]}" frictionloss="{_FRICTION[i]}"/>',
            _capsule(i + 1),
        ]
    lines.append("</body>" * 8 + "</worldbody>")
    lines.append('<contact><exclude body1="fr3_link0" body2="fr3_link1"/></contact><actuator>')
    for i in range(7):
        torque = FR3.torque[i]
        lines.append(f'<motor name="fr3_joint{i + 1}" joint="fr3_joint{i + 1}" ctrlrange="{-torque:g} {torque:g}"/>')
    lines.append("</actuator></mujoco>")
    return "\n".join(lines)


def write(path: Path) -> Path:
    """Write the model to `path`."""
    path.write_text(xml(), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
