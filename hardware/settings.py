"""What the guard is told to allow beyond the arm's own limits, and what it says every millisecond."""

from __future__ import annotations

from dataclasses import dataclass

from .limiter import Motion
from .reasons import Reason, State


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
    heartbeat: float = 0.3
    """Seconds for which one word that the button is held down counts: whoever holds it says so again before."""
    grip: tuple[float, float] = (0.0, 0.08)
    grip_rate: float = 0.1


@dataclass(frozen=True)
class Output:
    """One millisecond: what the arm is told, and why it differs from what was asked."""

    motion: Motion
    gripper: float
    state: State
    reason: Reason
