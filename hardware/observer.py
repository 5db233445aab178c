"""What the agent sees of the robot: states, status and pictures that came over the bridge, and which of them belong together.

A picture belongs to a joint state if they arrived within `skew` (and one camera period) of each other; a policy that looks sees nothing
when its camera is silent or frozen, and then asks for no chunk. A driver can hang and repeat its last picture, too: the same bytes for
longer than `FROZEN`, while the arm moved as far as a picture must show, are no picture.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from robopref.arrays import InputError

from .drawing import from_jpeg
from .rosbridge import Mailbox, RosBridge
from .topics import Topics

_STAMP = re.compile(r"rp1 t=(\d{1,18})")
FROZEN = 0.3
"""Seconds for which a camera may send the same bytes while the arm moves."""
_MOVED = 0.05
"""Radians in one of the first six joints that change any picture of the arm, or from it (the seventh may turn about the line of sight)."""


@dataclass(frozen=True)
class Reading:
    """What the robot said at one moment of its own clock."""

    stamp: float
    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    age: float
    """Seconds since it arrived here."""


@dataclass(frozen=True)
class Seen:
    """What a policy is shown."""

    state: np.ndarray
    """(K, D) float32, oldest first."""
    images: dict[str, np.ndarray]
    """camera -> (K, height, width, 3) uint8; empty for a policy that does not look, and while its camera is silent."""


class Observer:
    """Mailboxes of one robot. Ages are seconds of `clock`; `skew` and `camera_period` bound how far a picture is from its state."""

    def __init__(
        self,
        observe: Callable[[np.ndarray], np.ndarray | None],
        skew: float = 0.05,
        camera_period: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._observe, self._apart = observe, skew + camera_period
        self._joints, self._guard, self._camera = Mailbox(clock), Mailbox(clock), Mailbox(clock)
        self._states: deque[np.ndarray] = deque()
        self._views: deque[np.ndarray] = deque()
        self._clock, self._picture, self._changed = clock, b"", float("-inf")
        self._told, self._reasons = dict[str, Any](), 0
        self._same: tuple[bytes | None, float, np.ndarray | None] = None, 0.0, None
        """The newest picture, when its bytes first came, and where the arm was then."""

    def subscribe(self, bridge: RosBridge, topics: Topics) -> None:
        """Listen; said again by the bridge after every reconnect."""
        bridge.subscribe(topics.joint_states, "sensor_msgs/JointState", self._joints, queue_length=1)
        bridge.subscribe(topics.status, "std_msgs/String", self._heard_status, queue_length=1)
        if topics.camera:
            kind = "sensor_msgs/CompressedImage"
            bridge.subscribe(topics.camera, kind, self._saw, throttle_rate=50, queue_length=1, compression="cbor")

    def forget(self) -> None:
        """The arm stopped: what was seen before is no history of what comes."""
        self._states.clear()
        self._views.clear()

    def _heard_status(self, message: Any) -> None:
        data = message.get("data") if isinstance(message, dict) else None
        self._told = wire_status(data) if isinstance(data, str) else {}
        self._reasons |= self._told.get("reasons", 0)
        self._guard(message)

    def status(self) -> dict[str, Any]:
        """The guard's status if it is fresh, else nothing; its `reasons` are all since the last call."""
        reasons, self._reasons = self._reasons, 0
        return {**self._told, "reasons": reasons} if self._told and self._guard.age < 1.0 else {}

    def _saw(self, message: Any) -> None:
        """Keep a picture, and when it last was another one than before: a camera may hang and go on sending."""
        picture = _picture_of(message)
        if picture is not None and picture != self._picture:
            self._picture, self._changed = picture, self._clock()
        self._camera(message)

    def picture_ages(self) -> tuple[float, float]:
        """Seconds since a picture came, and since one came that was not as the one before; infinite before the first."""
        return self._camera.age, self._clock() - self._changed

    def reading(self) -> Reading | None:
        """The newest joint state, or None before the first that is whole."""
        message = self._joints.message
        if not isinstance(message, dict):
            return None
        header = message.get("header")
        match = _STAMP.fullmatch(str(header.get("frame_id"))) if isinstance(header, dict) else None
        numbers = [_numbers(message.get(name)) for name in ("position", "velocity", "effort")]
        if match is None or any(n is None for n in numbers):
            return None
        q, dq, tau = numbers
        assert q is not None
        assert dq is not None
        assert tau is not None
        return Reading(int(match.group(1)) * 1e-6, q, dq, tau, self._joints.age)

    def seen(self, reading: Reading, told: dict[str, Any]) -> Seen | None:
        """What the policy that told its wishes (`history`, `cameras`, `size`) is shown; without pictures while its camera is silent.

        None while the scene is not known. Raises `InputError` for a policy that sees other numbers.
        """
        history, cameras = int(told.get("history", 1)), list(told.get("cameras", []))
        newest = self._observe(reading.q)
        if newest is None:
            self.forget()
            return None
        if told.get("observation", len(newest)) != len(newest):
            raise InputError(
                f"agent: got a policy that sees {told['observation']} numbers, wanted {len(newest)}.\nSay robot=PRESET, the one it was trained with."
            )
        _append(self._states, newest, history)
        state = np.stack(self._states).astype(np.float32)
        if not cameras:
            return Seen(state, {})
        view = self._view(reading, tuple(told["size"]))
        if view is None:
            self._views.clear()
            return Seen(state, {})
        _append(self._views, view, history)
        return Seen(state, {cameras[0]: np.stack(self._views)})

    def picture(self, reading: Reading | None = None) -> bytes | None:
        """The newest JPEG of the camera; with a reading, only if it belongs to it and is not one that a hung driver repeats."""
        data = _picture_of(self._camera.message)
        if reading is None:
            return data
        apart = abs(self._camera.age - reading.age) > self._apart
        return None if apart or self._frozen(data, reading.q) else data

    def _frozen(self, data: bytes | None, q: np.ndarray) -> bool:
        """Whether the camera sends the same bytes although the arm, now at q (7,), has moved since they first came."""
        before, since, where = self._same
        if data != before or where is None:
            self._same = data, self._camera.received, q
            return False
        moved = float(np.abs(q - where)[:6].max()) > _MOVED
        return data is not None and moved and self._camera.received - since > FROZEN

    def _view(self, reading: Reading, size: tuple[int, int]) -> np.ndarray | None:
        data = self.picture(reading)
        try:
            return None if data is None else from_jpeg(data, size=size)
        except ValueError:
            return None


def _append(history: deque[np.ndarray], newest: np.ndarray, length: int) -> None:
    """Keep the last `length`; the first is repeated where there were fewer."""
    history.append(newest)
    while len(history) < length:
        history.appendleft(history[0])
    while len(history) > length:
        history.popleft()


_WHOLE = (
    "t",
    "reasons",
    "epoch",
    "seq",
    "mode",
    "commands",
    "refused",
    "reflexes",
    "ended",
    "stalls",
    "gripper_errors",
)


def wire_status(text: str) -> dict[str, Any]:
    """The guard's status from its JSON; empty for anything of which a part is not what it should be."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict) or not isinstance(told.get("state", ""), str):
        return {}
    why, numbers = told.get("why", []), [told.get(name, 0) for name in _WHOLE]
    whole = all(isinstance(n, int) and not isinstance(n, bool) and -(2**53) < n < 2**53 for n in numbers)
    named = isinstance(why, list) and all(isinstance(name, str) for name in why)
    counted = all(_counts(told.get(name, {})) for name in ("bits", "held"))
    widths = [told.get(name) for name in ("gripper", "width") if told.get(name) is not None]
    measured = all(isinstance(w, int | float) and abs(w) < 1e3 for w in widths)
    aimed = "target" not in told or _numbers(told["target"]) is not None
    return told if whole and named and counted and measured and aimed else {}


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(n, int) for n in value.values())


def _picture_of(message: Any) -> bytes | None:
    """The JPEG of a CompressedImage: bytes, a typed array, or base64 where the server writes JSON."""
    data = message.get("data") if isinstance(message, dict) else None
    if isinstance(data, str):
        try:
            return base64.b64decode(data, validate=True)
        except ValueError:  # no base64, or not even ASCII
            return None
    return bytes(data) if isinstance(data, bytes | bytearray | np.ndarray) else None


def _numbers(value: object) -> np.ndarray | None:
    """Seven finite numbers, or None."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == (7,) and np.isfinite(array).all() else None
