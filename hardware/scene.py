"""What a policy must know that the joints do not say: the goal, the poses of objects, how far the hand is open.

Goal and objects are told by topics (geometry_msgs/PoseStamped in the arm's base frame, from a tracker or a person), or are fixed numbers. A
pose that is not heard for `age` seconds blinds the policy: it is not asked, and the arm holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .rosbridge import Mailbox, RosBridge
from .views import Sensed, View

Place = str | np.ndarray
"""A topic's name, or a pose (7,)."""
_UPRIGHT = (0.0, 0.0, 0.0, 1.0)


class Scene:
    """Turns joint positions into what the view shows. `opening`: the hand's opening 0 to 1, or None while nobody knows."""

    def __init__(
        self,
        view: View,
        goal: Place | None = None,
        objects: Sequence[Place] = (),
        opening: Callable[[], float | None] = lambda: None,
        age: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if len(objects) != view.told:
            raise InputError(
                f"objects: got {len(objects)}, wanted {view.told}: a pose that the arm cannot measure for each object the policy sees.\n"
                "Say objects=/TOPIC (PoseStamped, base frame) or objects=X:Y:Z, two with a comma between."
            )
        self.view, self._opening, self._age = view, opening, age
        self._clock, self._wanted, self._placed = clock, goal, list(objects)
        self._heard = {one: Mailbox(clock) for one in [goal, *objects] if isinstance(one, str)}
        self.goal = view.goal_of(0)
        """(3,), metres, base frame; the same array all along."""
        self._before: tuple[float, Sensed] | None = None

    def subscribe(self, bridge: RosBridge) -> None:
        """Listen to the poses that topics tell."""
        for topic, box in self._heard.items():
            bridge.subscribe(topic, "geometry_msgs/PoseStamped", box, throttle_rate=20, queue_length=1)

    def aim(self, seed: int) -> None:
        """The goal of an episode, where none is told."""
        if self._wanted is None:
            self.goal[:] = self.view.goal_of(seed)

    def sensed(self, q: np.ndarray) -> Sensed | None:
        """What is known now; None while a pose is missing or too old."""
        poses = [self._pose(one) for one in ([] if self._wanted is None else [self._wanted]) + self._placed]
        found = [pose for pose in poses if pose is not None]
        if len(found) < len(poses):
            return None
        if self._wanted is not None:
            self.goal[:] = found.pop(0)[:3]
        opening = self._opening()
        objects = np.array(found).reshape(-1, 7)
        return Sensed(np.asarray(q, np.float64), self.goal.copy(), 1.0 if opening is None else opening, objects)

    def observe(self, q: np.ndarray) -> np.ndarray | None:
        """What the policy sees (D,) in this period; None while it is blind. Call it once a period."""
        now = self.sensed(q)
        if now is None:
            return None
        at, before = self._clock(), self._before
        self._before = at, now
        recent = before is not None and at - before[0] < 0.5
        return self.view.observe(
            Sensed(now.q, now.goal, now.opening, now.objects, before[1] if recent and before else None)
        )

    def _pose(self, place: Place) -> np.ndarray | None:
        if isinstance(place, np.ndarray):
            return place
        box = self._heard[place]
        return pose_of(box.message) if box.age <= self._age else None


def pose_of(message: Any) -> np.ndarray | None:
    """Position and quaternion (7,) of a PoseStamped; None for what is none."""
    pose = message.get("pose") if isinstance(message, dict) else None
    if not isinstance(pose, dict):
        return None
    parts = [(pose.get("position"), "xyz"), (pose.get("orientation"), "xyzw")]
    try:
        found = np.array([float(part[axis]) for part, axes in parts for axis in axes])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return None
    length = float(np.linalg.norm(found[3:]))
    if not np.isfinite(found).all() or not 0.5 < length < 2.0:
        return None
    return np.concatenate([found[:3], found[3:] / length])


def place(key: str, text: str) -> Place:
    """A topic (`/tracker/puck`) or numbers (`0.5:0:0.02`, with a quaternion x, y, z, w behind them or upright) of the command line."""
    if text.startswith("/"):
        return text
    try:
        numbers = [float(part) for part in text.split(":")]
    except ValueError:
        numbers = []
    if len(numbers) not in (3, 7) or not np.isfinite(numbers).all():
        raise InputError(f"{key}: got {text!r}, wanted /TOPIC or X:Y:Z, metres in the arm's base frame.")
    return np.array([*numbers[:3], *(numbers[3:] or _UPRIGHT)])
