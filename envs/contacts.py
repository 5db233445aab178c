"""Whether the arm touches what it should not: contacts of its own geoms with named bodies or geoms, from MuJoCo's contact list.

Read after each step of the environment, which is several of the simulator's: a touch that comes and goes between two reads is not seen.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .upstream import mujoco

ROBOT = "base"
"""Body below which all of the arm hangs."""


class Contacts:
    """Touches of the arm with `names` (bodies or geoms of the model) whose normal force exceeds `force` newtons.

    Raises `InputError` for a name that the model does not have and for a negative force.
    """

    def __init__(self, model: Any, names: Sequence[str], force: float = 0.0) -> None:
        if force < 0:
            raise InputError(f"contacts.force: got {force}, wanted newtons >= 0 (0: any touch).")
        owner = [model.body(int(i)).name for i in model.geom_bodyid]
        own = [model.geom(i).name for i in range(model.ngeom)]
        known = sorted({*owner, *own} - {""})
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known[:6]
                raise InputError(f"contacts: got {name!r}, wanted a body or geom of the task. Near: {', '.join(near)}.")
        self._force = force
        self._named = np.array([b in names or g in names for b, g in zip(owner, own, strict=True)])
        self._arm = np.array([_below(model, int(body)) for body in model.geom_bodyid])
        self._wrench = np.zeros(6)

    def touching(self, model: Any, data: Any) -> bool:
        """Whether the arm touches one of the named things now."""
        pairs = data.contact.geom  # (contacts, 2)
        if len(pairs) == 0:
            return False
        one, other = pairs[:, 0], pairs[:, 1]
        meet = (self._named[one] & self._arm[other]) | (self._named[other] & self._arm[one])
        return any(self._pressed(model, data, int(index)) for index in np.flatnonzero(meet))

    def _pressed(self, model: Any, data: Any, index: int) -> bool:
        if data.contact.efc_address[index] < 0:  # near, but no force acts
            return False
        mujoco.mj_contactForce(model, data, index, self._wrench)
        return abs(float(self._wrench[0])) > self._force


def _below(model: Any, body: int) -> bool:
    """Whether a body hangs below the arm's root."""
    while body > 0:
        if model.body(body).name == ROBOT:
            return True
        body = int(model.body_parentid[body])
    return False
