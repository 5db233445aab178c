"""Meta-World tasks with a preference that one can see, on their own arm or on one that looks otherwise.

`arm=sticks` hides the Sawyer's links and draws thin rods between its joints: another body to look at with the same kinematics. It is no
other robot; that is what `robosuite` is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .metaworld import MetaWorld
from .preferred import Preferred
from .rendering import Mark, Rod

ARMS = ("sawyer", "sticks")
_LINKS = ("base", "right_l0", "right_l1", "right_l2", "right_l3", "right_l4", "right_l5", "right_l6", "hand")
_HIDDEN = (
    *_LINKS[1:-1],
    "head",
    "screen",
    "torso",
    "pedestal",
    "pedestal_feet",
    "controller_box",
    "right_arm_base_link",
    "right_l1_2",
)
_STICK = (0.95, 0.65, 0.1, 1.0)
HAND_IS_MOVED = ("reach-v3", "reach-wall-v3")
"""Tasks in which the hand itself has to get to the goal."""


class _Seen(MetaWorld):
    """Meta-World's task that says where hand, object and goal are."""

    forward = np.array([0.0, 1.0])

    def __init__(self, task: str, horizon: int, image_size: int, arm: str) -> None:
        super().__init__(task, horizon=horizon, image_size=image_size)
        if arm not in ARMS:
            raise InputError(f"arm: got {arm!r}, wanted one of {', '.join(ARMS)}.")
        self.arm = arm
        if arm == "sticks":
            model = self._sim.model
            owner = [model.body(int(i)).name for i in model.geom_bodyid]
            for geom, name in enumerate(owner):
                if name in _HIDDEN:
                    model.geom_rgba[geom, 3] = 0.0

    def places(self, observation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Hand, what has to get to the goal, and goal, (3,) each."""
        hand = np.asarray(observation[:3], dtype=np.float64)
        moved = hand if self.task in HAND_IS_MOVED else np.asarray(observation[4:7], dtype=np.float64)
        return hand, moved, np.asarray(observation[36:39], dtype=np.float64)

    def render(self, camera: str | None = None, drawn: Sequence[Mark | Rod] = ()) -> np.ndarray:
        """Upright picture with marks; of the arm or of rods between its joints."""
        return super().render(camera, [*drawn, *(self._rods() if self.arm == "sticks" else [])])

    @property
    def render_settings(self) -> dict[str, Any]:
        """What determines the pixels besides the state."""
        return {**super().render_settings, "arm": self.arm}

    def _rods(self) -> list[Rod]:
        at = [tuple(self._sim.data.body(name).xpos.tolist()) for name in _LINKS]
        return [Rod(a, b, 0.018, _STICK) for a, b in pairwise(at)]


def metaworld_preferred(
    task: str, preference: str = "avoid", horizon: int = 32, repeat: int = 3, image_size: int = 84, arm: str = "sawyer"
) -> Preferred:
    """A Meta-World task with a visible preference. Raises `InputError` for an unknown task, preference or arm, and too long an episode."""
    return Preferred(_Seen(task, min(horizon * repeat, 500), image_size, arm), preference, horizon, repeat)
