"""The 1 kHz side of an arm: what a back end offers, and the one for Franka arms (and the protocol simulator) through franka-rs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .limits import FR3, Limits

_LOG = logging.getLogger(__name__)
ENDED = "the 1 kHz loop had ended:"
"""How the log begins to say why."""
# The loop below is a spring with a damper from the joints to where it was told to be. It damps the joints' own speed, so they follow damping /
# stiffness seconds behind: 50 ms here (with its own gains 83, the last joint 300, which went on for a second after the guard stood). Its place
# is never more than the leash ahead of a joint, which bounds the speed, too: 0.1 rad / 50 ms. Damping the error of speed instead, or twice
# this stiffness, stands no sooner or rings in the simulator: torques may change by 1000 Nm/s only.
_TRACKING = {
    "joint_stiffness": [1200.0, 1200.0, 1000.0, 1000.0, 400.0, 300.0, 200.0],
    "joint_damping": [60.0, 60.0, 50.0, 50.0, 20.0, 15.0, 10.0],
    "leash": 0.1,
}
_INSET = 0.0501
"""Radians inside the arm's limits beyond which the loop below ends at once; what the guard moves may be a few milliradians farther."""
_MODES = ("other", "idle", "move", "guiding", "reflex", "user_stopped", "automatic_error_recovery")


@dataclass(frozen=True)
class ArmState:
    """What the arm says: positions rad, velocities rad/s, torques Nm, its mode (libfranka's number)."""

    q: np.ndarray
    dq: np.ndarray
    tau: np.ndarray
    mode: int
    success_rate: float = 1.0
    errors: tuple[str, ...] = ()


class Backend(Protocol):
    """The 1 kHz side of an arm."""

    def connect(self) -> None:
        """Reach the arm. Raises `BackendError`."""

    def state(self) -> ArmState:
        """The newest state. Raises `BackendError` when the arm is out of reach."""

    def start(self) -> None:
        """Begin the 1 kHz loop at the measured position. Raises `BackendError`."""

    def move_to(self, q: np.ndarray) -> None:
        """The position (7,) to be at now."""

    def running(self) -> bool:
        """Whether the 1 kHz loop runs."""

    def stop(self) -> None:
        """End the loop; fine when there is none."""

    def close(self) -> None:
        """Let go of the arm."""

    def recover(self) -> None:
        """Clear a reflex; takes up to a second. Raises `BackendError`."""

    def grip(self, width: float) -> None:
        """Move the fingers to a width in metres; returns when they are there. Raises `BackendError`."""

    def release(self) -> None:
        """Stop the fingers where they are. Raises `BackendError`."""

    def width(self) -> float | None:
        """Measured metres between the fingers; None without a gripper. Raises `BackendError`."""


class BackendError(RuntimeError):
    """The arm did not do what it was asked."""


class FrankaBackend:
    """A Franka arm (FR3 or Panda) or the protocol simulator through franka-rs."""

    def __init__(
        self,
        address: str,
        limits: Limits = FR3,
        fraction: float = 1.0,
        realtime: str = "enforce",
        gripper: bool = True,
    ) -> None:
        self.address, self._fraction, self._realtime, self._with_gripper = address, fraction, realtime, gripper
        self._low, self._high = limits.q_min + _INSET, limits.q_max - _INSET
        self._robot: Any = None
        self._loop: Any = None
        self._gripper: Any = None

    def connect(self) -> None:
        """Reach the arm. Raises `BackendError`."""
        import franka

        try:
            self._robot, self._loop = franka.Robot(self.address, realtime=self._realtime), None
            self._gripper = self._robot.gripper() if self._with_gripper else None
        except franka.FrankaError as error:
            raise BackendError(f"{self.address}: {error}") from error

    def state(self) -> ArmState:
        """The newest state. Raises `BackendError` when the arm is out of reach."""
        import franka

        if self._robot is None:
            raise BackendError(f"{self.address}: not connected")
        try:
            told = self._loop.state() if self.running() else self._robot.read_once()
        except franka.FrankaError as error:
            self.close()
            raise BackendError(f"{self.address}: {error}") from error
        errors = tuple(told.current_errors) or tuple(told.last_motion_errors)
        mode = _MODES.index(told.robot_mode)
        q, dq, tau = (np.array(x, dtype=np.float64) for x in (told.q, told.dq, told.tau_J))
        return ArmState(q, dq, tau, mode, float(told.control_command_success_rate), errors)

    def start(self) -> None:
        """Begin the 1 kHz loop at the measured position. Raises `BackendError`."""
        import franka

        self.stop()
        try:
            told = {"fraction": self._fraction, "max_deviation": 6.0} | _TRACKING
            self._loop = self._robot.joint_targets(**told)
            self._loop.__enter__()
        except franka.FrankaError as error:
            self._loop = None
            _LOG.warning("no 1 kHz loop began: %s", error)
            raise BackendError(f"{self.address}: {error}") from error

    def move_to(self, q: np.ndarray) -> None:
        """The position (7,) to be at now; an ended loop is reported by `running`."""
        import franka

        if self._loop is not None:
            try:
                self._loop.move_to(np.clip(q, self._low, self._high))
            except franka.FrankaError as error:
                self._loop = None
                _LOG.warning("%s a position was refused: %s", ENDED, error)

    def running(self) -> bool:
        """Whether the 1 kHz loop runs."""
        return self._loop is not None and bool(self._loop.running)

    def stop(self) -> None:
        """End the loop; fine when there is none."""
        import franka

        loop, self._loop = self._loop, None
        if loop is not None:
            had_ended = not loop.running
            try:
                loop.stop()
                if had_ended:
                    _LOG.warning("%s it says no reason", ENDED)
            except franka.FrankaError as error:
                _LOG.warning("%s %s", ENDED, error)

    def close(self) -> None:
        """Let go of the arm, so that somebody else can have it."""
        self.stop()
        self._robot = self._gripper = None

    def recover(self) -> None:
        """Clear a reflex. Raises `BackendError`."""
        import franka

        self.stop()
        try:
            self._robot.automatic_error_recovery()
        except franka.FrankaError as error:
            raise BackendError(f"{self.address}: {error}") from error

    def grip(self, width: float) -> None:
        """Move the fingers. Raises `BackendError`, also where they ended elsewhere than they were sent."""
        import franka

        if (gripper := self._gripper) is not None:
            try:
                if not gripper.move(width, 0.1):
                    raise BackendError(f"{self.address}: gripper: did not reach {width:.3f} m")
            except franka.FrankaError as error:
                raise BackendError(f"{self.address}: gripper: {error}") from error

    def release(self) -> None:
        """Stop the fingers where they are. Raises `BackendError`."""
        import franka

        if (gripper := self._gripper) is not None:
            try:
                gripper.stop()
            except franka.FrankaError as error:
                raise BackendError(f"{self.address}: gripper: {error}") from error

    def width(self) -> float | None:
        """Measured metres between the fingers. Raises `BackendError`."""
        import franka

        if (gripper := self._gripper) is None:
            return None
        try:
            return float(gripper.read_once().width)
        except franka.FrankaError as error:
            raise BackendError(f"{self.address}: gripper: {error}") from error
