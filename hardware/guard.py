"""The only safety authority: checks every command, limits every step, stops by itself. Numpy only, no torch, no I/O, no clock.

Whoever runs it calls `receive` for each command and `tick` once per millisecond of the robot's monotonic clock; the same calls give
the same bytes, so a journal of them can be replayed. Checks run in a fixed order and each leaves its reason bit:
armed, epoch, sequence -> type, shape, names -> finite -> age -> joint box, step size -> velocity(q), acceleration, jerk ->
box, half-spaces, self-collision -> gripper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .command import Command
from .limiter import Limiter, Motion
from .limits import DT, FR3, Limits
from .nearness import Nearness
from .reasons import Reason, State, reason_of
from .workspace import Workspace

MODE_MOVE, MODE_REFLEX, MODE_USER_STOP = 2, 4, 5
_UNFIT = {MODE_REFLEX, MODE_USER_STOP, 3}  # reflex, user stop, guiding


@dataclass(frozen=True)
class Settings:
    """What is allowed beyond the arm's own limits. Seconds, radians, metres."""

    speed: float = 0.3
    """Fraction of the arm's speed."""
    age: float = 0.1
    """Oldest newest-seen robot stamp a command may carry: how late a command may arrive."""
    observation_age: float = 1.2
    """Oldest observation an action may come from (one chunk length plus inference)."""
    watchdog: float = 0.2
    """Silence after which the arm brakes, earlier where it is so fast that `stop` asks for it."""
    stop: float = 0.34
    """Time from the last valid command to standstill at any speed; the arm node takes up to 0.01 more to hand it on."""
    patience: float = 0.1
    """Shortest silence that makes the arm brake: speeds that would need more room than `stop` leaves are not reached."""
    margin: float = 0.05
    """Kept from the joint stops."""
    delta: float = 0.35
    """Largest distance of a target from the one before, per joint."""
    rejects: int = 10
    """Refused commands in a row that end in HOLD."""
    recoveries: int = 3
    """Reflexes recovered from before the arm stays stopped until an operator resets it."""
    healthy: float = 10.0
    """Seconds of running after which recoveries count from zero again."""
    deadman: bool = False
    """Whether a button must be held down."""
    grip: tuple[float, float] = (0.0, 0.08)
    grip_rate: float = 0.1


@dataclass(frozen=True)
class Output:
    """One millisecond: what the arm is told, and why it differs from what was asked."""

    motion: Motion
    gripper: float
    state: State
    reason: Reason


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
        self._low, self._high = limits.stop_min + self.settings.margin, limits.stop_max - self.settings.margin
        self.state, self.why = State.DISCONNECTED, Reason.LINK
        self.epoch = self.seq = -1
        self.motion = Motion.at(np.zeros(7))
        self.gripper = self._grip_target = self.settings.grip[1]
        self._from = self._target = self.motion.q
        self._since = self._duration = self._valid = self._started = 0.0
        self._rejects = self._recoveries = 0
        self._resumable = self._pressed = self._blocked = False
        self._command_reason = Reason.NONE
        self._nearness = Nearness(self.workspace)

    # Events from the robot -------------------------------------------------------------------------------------------

    def link(self, up: bool, now: float) -> None:
        """The robot came within reach, or was lost."""
        if not up:
            self._enter(State.DISCONNECTED, Reason.LINK)
        elif self.state is State.DISCONNECTED:
            self._enter(State.IDLE, Reason.NONE)

    def robot_mode(self, mode: int, now: float) -> None:
        """The arm's own mode (libfranka's numbers). A reflex or the user stop ends everything."""
        if mode == MODE_USER_STOP and self.state is not State.DISCONNECTED:
            self.estop(now, Reason.OPERATOR)
        elif mode == MODE_REFLEX and self.state in (State.IDLE, State.ARMED, State.RUNNING, State.HOLD):
            self._enter(State.REFLEX, Reason.REFLEX)

    def backend_ended(self, now: float) -> None:
        """The 1 kHz loop below ended: hold until armed again."""
        if self.state in (State.ARMED, State.RUNNING, State.HOLD):
            self._hold(Reason.BACKEND_ENDED, resumable=False)

    # Events from people and programs ---------------------------------------------------------------------------------

    def arm(self, epoch: int, measured: np.ndarray, mode: int, now: float) -> Reason:
        """Allow motion from the measured position (7,) under a new epoch. NONE, or why not."""
        if self.state not in (State.IDLE, State.HOLD, State.ARMED) or mode in _UNFIT or not self.motion.still:
            return Reason.NOT_ARMED
        if epoch <= self.epoch:
            return Reason.EPOCH
        if not np.isfinite(measured).all():
            return Reason.NONFINITE
        measured = np.array(measured, dtype=np.float64)
        if broken := Reason(int(self.workspace.violations(measured))):
            return broken
        self.motion = Motion.at(measured)
        self._from = self._target = self.motion.q
        self.epoch, self.seq, self._rejects, self._blocked = epoch, -1, 0, False
        self._enter(State.ARMED, Reason.NONE)
        return Reason.NONE

    def disarm(self, now: float) -> None:
        """Stop, and take no command until armed again."""
        if self.state in (State.ARMED, State.RUNNING, State.HOLD):
            self._hold(Reason.OPERATOR, resumable=False)

    def deadman(self, pressed: bool, now: float) -> None:
        """The enabling button; where settings ask for one, letting go holds the arm."""
        self._pressed = pressed
        if self.settings.deadman and not pressed and self.state is State.RUNNING:
            self._hold(Reason.DEADMAN, resumable=True)

    def estop(self, now: float, why: Reason = Reason.ESTOP) -> None:
        """Stop and stay stopped until `reset`."""
        self._enter(State.ESTOP, Reason.ESTOP | why)

    def reset(self, now: float) -> bool:
        """The operator clears the stop; True if the arm stands still and is idle now."""
        if self.state is State.ESTOP and self.motion.still:
            self._recoveries = 0
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
        if self.state is State.RECOVERING:
            if ok:
                self._enter(State.IDLE, Reason.NONE)
            else:
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
        self._command_reason = reason
        return reason

    def _refusal(self, command: Command, now: float) -> Reason:
        ready = self.state in (State.ARMED, State.RUNNING) or (self.state is State.HOLD and self._resumable)
        if not ready or (self.settings.deadman and not self._pressed):
            return Reason.NOT_ARMED
        if command.epoch != self.epoch:
            return Reason.EPOCH
        if command.seq <= self.seq:
            return Reason.SEQ
        self.seq = command.seq
        if command.fault:
            return command.fault
        if command.target.shape != (7,):
            return Reason.SHAPE
        numbers = [*command.target, command.duration, 0.0 if command.gripper is None else command.gripper]
        if not np.isfinite(numbers).all():
            return Reason.NONFINITE
        # A stamp from the robot's future was never the robot's.
        if not 0.0 <= now - command.seen <= self.settings.age:
            return Reason.STALE
        if not 0.0 <= now - command.observed <= self.settings.observation_age:
            return Reason.EXPIRED
        return Reason.NONE

    def _bounded(self, target: np.ndarray) -> tuple[Reason, np.ndarray]:
        """The nearest target that is allowed: inside the joint box, not too far, and inside the workspace."""
        reason = Reason.NONE
        inside = np.minimum(np.maximum(target, self._low), self._high)
        if (inside != target).any():
            reason |= Reason.POS_BOX
        here = self.motion.q if self.state is not State.RUNNING else self._target
        near = np.minimum(np.maximum(inside, here - self.settings.delta), here + self.settings.delta)
        if (near != inside).any():
            reason |= Reason.DELTA
        line = self.motion.q + np.linspace(0.125, 1.0, 8)[:, None] * (near - self.motion.q)  # (8, 7)
        broken = self.workspace.violations(line)
        if broken.any():
            first = int(np.argmax(broken != 0))
            reason |= Reason(int(broken[first]))
            near = line[first - 1] if first else self.motion.q
        return reason, near

    # Time ------------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> Output:
        """One millisecond: what the arm is told next."""
        if self.state is State.RUNNING:
            if self._silent(now - self._valid):
                self._hold(Reason.WATCHDOG, resumable=True)
            elif self._recoveries and now - self._started > self.settings.healthy:
                self._recoveries = 0
        bits = int(self.why)
        if self.state is State.RUNNING:
            bits |= self._advance(self._wish(now)) | int(self._command_reason)
        else:
            self.motion, _ = self.limiter.step(self.motion, None)
        return Output(self.motion, self.gripper, self.state, reason_of(bits))

    def _silent(self, silence: float) -> bool:
        """Whether to brake now, so as to stand `stop` seconds after the last valid command."""
        if silence <= self.settings.patience:
            return False
        return silence > min(self.settings.watchdog, self.settings.stop - self.limiter.stopping_time(self.motion))

    def follow(self, measured: np.ndarray) -> None:
        """Take over the measured position (7,) while the arm is not ours to move."""
        if self.state in (State.DISCONNECTED, State.IDLE, State.REFLEX, State.RECOVERING):
            self.motion = Motion.at(measured)

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
            if broken or (self._blocked and not self.motion.still):
                # Braking on until rest, so that the arm does not shiver at the border.
                self._blocked = True
                ahead, _ = self.limiter.step(self.motion, None)
                bits |= broken
            else:
                self._blocked = False
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
        # A hold that only arming ends is not softened by a later, milder one.
        self.state, self.why, self._resumable, self._rejects = state, why, False, 0
        self._command_reason = Reason.NONE
