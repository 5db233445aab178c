"""The only safety authority: checks every command, limits every step, stops by itself. Numpy only, no torch, no I/O, no clock.

Whoever runs it calls `receive` for each command and `tick` once per millisecond of the robot's monotonic clock; the same calls give
the same bytes, so a journal of them can be replayed. Checks run in a fixed order and each leaves its reason bit:
armed, epoch, sequence -> type, shape, names -> finite -> age -> joint box, step size -> velocity(q), acceleration, jerk ->
box, half-spaces, self-collision -> gripper.
"""

from __future__ import annotations

from math import isfinite

import numpy as np

from .command import Command
from .limiter import Limiter, Motion
from .limits import DT, FR3, Limits
from .nearness import Nearness
from .reasons import Reason, State, reason_of
from .settings import Output, Settings
from .workspace import Workspace

MODE_MOVE, MODE_REFLEX, MODE_USER_STOP = 2, 4, 5
_UNFIT = {MODE_REFLEX, MODE_USER_STOP, 3}  # reflex, user stop, guiding
__all__ = ["MODE_MOVE", "MODE_REFLEX", "MODE_USER_STOP", "Guard", "Output", "Settings"]


class Guard:
    """State machine, checks and limiter of one arm."""

    def __init__(
        self, limits: Limits = FR3, settings: Settings | None = None, workspace: Workspace | None = None
    ) -> None:
        self.settings = settings or Settings()
        self.limits = limits
        self.workspace = workspace or Workspace()
        slowed = limits.slowed(self.settings.speed)
        self.limiter = Limiter(slowed.stopping_within(self.settings.stop - self.settings.patience))
        self._low = (limits.stop_min + self.settings.margin).tolist()
        self._high = (limits.stop_max - self.settings.margin).tolist()
        self.state, self.why = State.DISCONNECTED, Reason.LINK
        self.epoch = self.seq = -1
        self.motion = Motion.at(np.zeros(7))
        self.gripper = self._grip_target = self.settings.grip[1]
        self._from = self._target = self.motion.q
        self._since = self._duration = self._valid = self._started = 0.0
        self._rejects = self._recoveries = 0
        self._resumable = False
        self._blocked = 0
        """Bits of the border in front of which the arm brakes."""
        self._held = float("-inf")
        """Until when the enabling button counts as held down."""
        self._latch = self._waits = Reason.NONE
        """Why the stop is latched; and OPERATOR from when a person ended the motion until a person arms: neither is lost with the link."""
        self._command_reason = Reason.NONE
        self._nearness = Nearness(self.workspace)

    # Events from the robot -------------------------------------------------------------------------------------------

    def link(self, up: bool, now: float) -> None:
        """The robot came within reach, or was lost. A latched stop is latched still when it is back."""
        if not up:
            self._enter(State.DISCONNECTED, Reason.LINK | self._latch)
        elif self.state is State.DISCONNECTED:
            self._enter(State.ESTOP if self._latch else State.IDLE, self._latch)

    def robot_mode(self, mode: int, now: float) -> None:
        """The arm's own mode (libfranka's numbers). A reflex or the user stop ends everything."""
        if mode == MODE_USER_STOP:
            self.estop(now, Reason.OPERATOR)
        elif mode == MODE_REFLEX and self.state in (State.IDLE, State.ARMED, State.RUNNING, State.HOLD):
            self._enter(State.REFLEX, Reason.REFLEX)

    def backend_ended(self, now: float) -> None:
        """The 1 kHz loop below ended: hold until armed again."""
        if self.state in (State.ARMED, State.RUNNING, State.HOLD):
            self._hold(Reason.BACKEND_ENDED, resumable=False)

    # Events from people and programs ---------------------------------------------------------------------------------

    @property
    def latched(self) -> bool:
        """Whether only an operator's `reset` ends the stop, in reach of the robot or not."""
        return bool(self._latch)

    def arm(self, epoch: int, measured: np.ndarray, mode: int, now: float, asked: bool = True) -> Reason:
        """Allow motion from the measured position (7,) under a new epoch. NONE, or why not.

        asked: whether a person wants it; a program alone cannot undo what a person stopped.
        """
        if self.state not in (State.IDLE, State.HOLD, State.ARMED) or mode in _UNFIT or not self.motion.still:
            return Reason.NOT_ARMED
        if self._waits and not asked:
            return Reason.NOT_ARMED | self._waits
        if epoch <= self.epoch:
            return Reason.EPOCH
        if not np.isfinite(measured).all():
            return Reason.NONFINITE
        measured = np.array(measured, dtype=np.float64)
        if broken := Reason(int(self.workspace.violations(measured))):
            return broken
        self.motion = Motion.at(measured)
        self._from = self._target = self.motion.q
        self.epoch, self.seq, self._rejects, self._blocked = epoch, -1, 0, 0
        self._waits = Reason.NONE
        self._enter(State.ARMED, Reason.NONE)
        return Reason.NONE

    def disarm(self, now: float, asked: bool = True) -> None:
        """Stop, and take no command until armed again: by a person, if a person `asked` for it."""
        if asked:
            self._waits = Reason.OPERATOR
            self.why |= self._waits
        if self.state in (State.ARMED, State.RUNNING, State.HOLD):
            self._hold(Reason.OPERATOR if asked else Reason.LINK, resumable=False)

    def deadman(self, pressed: bool, now: float, seen: float | None = None) -> None:
        """The enabling button is held down, which counts for `heartbeat` seconds, or was let go, which holds the arm at once.

        seen: newest robot stamp that the sender had seen, where it is not beside the robot; word that comes late is no word.
        """
        if not pressed:
            self._held = float("-inf")
            self._enabled(now)
        elif seen is None or 0.0 <= now - seen <= self.settings.age:
            self._held = now + self.settings.heartbeat

    def _enabled(self, now: float) -> bool:
        """Whether the button is held down, or none is asked for; else a running arm holds."""
        enabled = now <= self._held or not self.settings.deadman
        if not enabled and self.state is State.RUNNING:
            self._hold(Reason.DEADMAN, resumable=True)
        return enabled

    def estop(self, now: float, why: Reason = Reason.ESTOP) -> None:
        """Stop and stay stopped until `reset`."""
        self._latch |= Reason.ESTOP | why
        lost = self.state is State.DISCONNECTED
        self._enter(State.DISCONNECTED if lost else State.ESTOP, self._latch | (Reason.LINK if lost else Reason.NONE))

    def reset(self, now: float) -> bool:
        """The operator clears the stop; True if the arm stands still and is idle now, until a person arms it."""
        if self.state is State.ESTOP and self.motion.still:
            self._recoveries = 0
            self._latch, self._waits = Reason.NONE, Reason.OPERATOR
            self._enter(State.IDLE, Reason.NONE)
        return self.state is State.IDLE

    def recover(self, now: float) -> bool:
        """Begin to recover from a reflex; False when the bound is reached (then: stopped until reset)."""
        if self.state is not State.REFLEX:
            return False
        self._recoveries += 1
        if self._recoveries > self.settings.recoveries:
            self.estop(now, Reason.REFLEX)
            return False
        self._enter(State.RECOVERING, Reason.REFLEX)
        return True

    def recovered(self, ok: bool, now: float) -> None:
        """How the recovery ended."""
        if self.state is State.RECOVERING and ok:
            self._enter(State.IDLE, Reason.NONE)
        elif self.state is State.RECOVERING:
            self.estop(now, Reason.REFLEX)

    # Commands --------------------------------------------------------------------------------------------------------

    def receive(self, command: Command, now: float) -> Reason:
        """Check one command, and take it (changed where it must be) or refuse it; the bits say which."""
        refused = self._refusal(command, now)
        if refused:
            if self.state is State.RUNNING:
                self._rejects += 1
                if self._rejects >= self.settings.rejects:
                    self._hold(Reason.REJECTS | refused, resumable=True)
            return refused
        reason, target = self._bounded(command.target)
        if command.gripper is not None:
            low, high = self.settings.grip
            self._grip_target = min(max(command.gripper, low), high)
            if self._grip_target != command.gripper:
                reason |= Reason.GRIP_RANGE
        if self.state is not State.RUNNING:
            self._enter(State.RUNNING, Reason.NONE)
            self._started, self._target = now, self.motion.q
        self._from, self._target = self._wish(now), target
        self._since, self._valid, self._rejects = now, now, 0
        self._duration = min(max(command.duration, 0.0), self.settings.watchdog)
        if self._duration != command.duration:
            reason |= Reason.DURATION
        self._command_reason = reason
        return reason

    def _refusal(self, command: Command, now: float) -> Reason:
        ready = self.state in (State.ARMED, State.RUNNING) or (self.state is State.HOLD and self._resumable)
        if not ready:
            return Reason.NOT_ARMED
        if not self._enabled(now):
            return Reason.NOT_ARMED | Reason.DEADMAN
        if command.epoch != self.epoch:
            return Reason.EPOCH
        if command.seq <= self.seq:
            return Reason.SEQ
        self.seq = command.seq
        if command.fault:
            return command.fault
        if command.target.shape != (7,):
            return Reason.SHAPE
        if not all(map(isfinite, [*command.target.tolist(), command.duration, command.gripper or 0.0])):
            return Reason.NONFINITE
        # A stamp from the robot's future was never the robot's.
        if not 0.0 <= now - command.seen <= self.settings.age:
            return Reason.STALE
        if not 0.0 <= now - command.observed <= self.settings.observation_age:
            return Reason.EXPIRED
        return Reason.NONE

    def _bounded(self, target: np.ndarray) -> tuple[Reason, np.ndarray]:
        """The nearest target that is allowed: inside the joint box, not too far, and inside the workspace."""
        reason, delta = Reason.NONE, self.settings.delta
        here = self.motion.q if self.state is not State.RUNNING else self._target
        # Plain floats, as in the limiter: numpy costs a microsecond a call.
        asked = target.tolist()
        inside = [min(max(x, low), high) for x, low, high in zip(asked, self._low, self._high, strict=True)]
        near = [min(max(x, at - delta), at + delta) for x, at in zip(inside, here.tolist(), strict=True)]
        if inside != asked:
            reason |= Reason.POS_BOX
        if near != inside:
            reason |= Reason.DELTA
        broken, place = self.workspace.shortened(self.motion.q, np.array(near))
        return reason | broken, place

    # Time ------------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> Output:
        """One millisecond: what the arm is told next."""
        if self.state is State.RUNNING:
            if self._silent(now - self._valid):
                self._hold(Reason.WATCHDOG, resumable=True)
            elif self._enabled(now) and self._recoveries and now - self._started > self.settings.healthy:
                self._recoveries = 0
        bits = int(self.why)
        if self.state is State.RUNNING:
            bits |= self._advance(self._wish(now)) | int(self._command_reason)
        else:
            self.motion, _ = self.limiter.step(self.motion, None)
        return Output(self.motion, self.gripper, self.state, reason_of(bits))

    def _silent(self, silence: float) -> bool:
        """Whether to brake now, so as to stand `stop` seconds after the last valid command (one from the future: the clock went back)."""
        if abs(silence) <= (allowed := self.settings).patience:
            return False
        return not 0.0 <= silence <= min(allowed.watchdog, allowed.stop - self.limiter.stopping_time(self.motion))

    def follow(self, measured: np.ndarray) -> None:
        """Take over the measured position (7,) while the arm is not ours to move."""
        if self.state in (State.DISCONNECTED, State.IDLE, State.REFLEX, State.RECOVERING):
            self.motion = Motion.at(measured)

    def hand(self, width: float) -> None:
        """Take over the measured width between the fingers, metres, where they were stopped: arming moves nothing."""
        stopped = self.state is State.HOLD and bool(self.why & (Reason.OPERATOR | Reason.DEADMAN))
        if stopped or self.state not in (State.ARMED, State.RUNNING, State.HOLD):
            low, high = self.settings.grip
            self.gripper = self._grip_target = min(max(width, low), high)

    def _wish(self, now: float) -> np.ndarray:
        """Where the target stands now, on its way from the one before."""
        if now >= self._since + self._duration:
            return self._target
        return self._from + (self._target - self._from) * ((now - self._since) / self._duration)

    def _advance(self, wish: np.ndarray) -> int:
        """One step towards `wish`, unless the way to standstill behind it would leave the workspace: then brake. Reason bits."""
        ahead, limited = self.limiter.step(self.motion, wish)
        bits = int(limited)
        if ahead.q.tolist() != self.motion.q.tolist():
            broken = self._nearness.broken(self.limiter.braking_path(ahead))
            # Braking on until rest, so that the arm does not shiver at the border.
            self._blocked = broken | (0 if self.motion.still else self._blocked)
            if self._blocked:
                ahead, _ = self.limiter.step(self.motion, None)
                bits |= self._blocked
        self.motion = ahead
        room = self.settings.grip_rate * DT
        wanted = self._grip_target - self.gripper
        if abs(wanted) > room:
            bits |= int(Reason.GRIP_RATE)
        self.gripper += min(max(wanted, -room), room)
        return bits

    def _hold(self, why: Reason, *, resumable: bool) -> None:
        self._enter(State.HOLD, why)
        self._resumable = resumable

    def _enter(self, state: State, why: Reason) -> None:
        # A hold that only arming ends is not softened by a later, milder one, nor is a person's order.
        self.state, self.why, self._resumable, self._rejects = state, why | self._waits, False, 0
        self._command_reason = Reason.NONE
