"""Why the guard changed or refused a command, and the states it can be in."""

from __future__ import annotations

from enum import IntFlag, StrEnum
from functools import lru_cache


class Reason(IntFlag):
    """One bit per cause; the bits of a step are stored beside proposed and executed action."""

    NONE = 0
    # Refused: the command changes nothing.
    NOT_ARMED = 1 << 0
    EPOCH = 1 << 1
    SEQ = 1 << 2
    DTYPE = 1 << 3
    SHAPE = 1 << 4
    NAMES = 1 << 5
    NONFINITE = 1 << 6
    STALE = 1 << 7
    EXPIRED = 1 << 8
    # Changed: the command runs, but not as asked.
    POS_BOX = 1 << 9
    DELTA = 1 << 10
    VEL = 1 << 11
    ACC = 1 << 12
    JERK = 1 << 13
    WORKSPACE = 1 << 14
    FLOOR = 1 << 15
    SELFCOLL = 1 << 16
    GRIP_RANGE = 1 << 17
    GRIP_RATE = 1 << 18
    # Stopped: what put the arm into its state.
    WATCHDOG = 1 << 19
    DEADMAN = 1 << 20
    ESTOP = 1 << 21
    REFLEX = 1 << 22
    BACKEND_ENDED = 1 << 23
    OPERATOR = 1 << 24
    REJECTS = 1 << 25
    LINK = 1 << 26
    # Refused, too: not as it was sent.
    DAMAGED = 1 << 27
    # Changed, too: the target is reached sooner or later than asked.
    DURATION = 1 << 28


REFUSED = Reason((1 << 9) - 1) | Reason.DAMAGED
"""Bits of a command that was not taken."""


@lru_cache(maxsize=4096)
def reason_of(bits: int) -> Reason:
    """The reason with these bits; remembered, because making one takes longer than a joint's step of the limiter."""
    return Reason(bits)


def names(reason: int) -> list[str]:
    """Names of the bits that are set, lowest first."""
    return [bit.name for bit in Reason if bit & reason and bit.name]


class State(StrEnum):
    """What the guard allows now."""

    DISCONNECTED = "DISCONNECTED"
    IDLE = "IDLE"
    ARMED = "ARMED"
    RUNNING = "RUNNING"
    HOLD = "HOLD"
    REFLEX = "REFLEX"
    ESTOP = "ESTOP"
    RECOVERING = "RECOVERING"
