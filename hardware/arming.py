"""Who may set the arm in motion: the agent by itself after what only programs and machines did, a person after what a person did.

After silence, an ended 1 kHz loop, a lost link, a recovered reflex and at the start the agent asks for a new epoch by itself
(`auto_arm`). After `disarm` and after a stop that was cleared it waits for `rearm`; the guard sees to it that nothing else is taken.
A stop is said again until the guard says that it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from .reasons import Reason, State, names

_PAUSE = 0.5
"""Seconds between two requests for an epoch."""
_BY_ITSELF = Reason.WATCHDOG | Reason.REJECTS | Reason.DEADMAN | Reason.BACKEND_ENDED | Reason.LINK | Reason.REFLEX
_FOR_PROGRAMS = frozenset(names(_BY_ITSELF))
"""Reasons that a program may leave by itself; of all others, also of those it does not know, a person decides."""
_FOR_GOOD = {"BACKEND_ENDED", "OPERATOR", "LINK"}
"""Reasons of a hold that no command ends."""


class Arming:
    """Control messages to one guard. `send` publishes the text of one, False where it cannot; `clock` gives seconds."""

    def __init__(self, auto: bool, clock: Callable[[], float], send: Callable[[str], bool]) -> None:
        self._send, self._auto, self._clock = send, auto, clock
        self.epoch = 0
        """The epoch of our commands."""
        self.retired = False
        """Whether this agent is over and arms no more."""
        self._asked_at = float("-inf")
        self._stopping = False

    def control(self, op: str, **more: Any) -> bool:
        """Send arm, disarm, estop, reset, recover or deadman to the guard, as a person's order."""
        self._stopping = op == "estop" or (self._stopping and op not in ("reset", "arm"))
        return self._tell(op, **more)

    def insist(self, status: dict[str, Any]) -> None:
        """Say a stop again while the guard does not say that it stopped; the connection may have been away."""
        self._stopping = self._stopping and "ESTOP" not in status.get("why", [])
        if self._stopping:
            self._tell("estop")

    def _tell(self, op: str, **more: Any) -> bool:
        return self._send(json.dumps({"op": op, **more}))

    def rearm(self, told: int, by_itself: bool = False) -> bool:
        """Ask for a new epoch, later than the one that the guard `told`: for a person, or as a program `by_itself`."""
        self.epoch = max(self.epoch, told) + 1
        if by_itself:
            return self._tell("arm", epoch=self.epoch, by="program")
        return self.control("arm", epoch=self.epoch)

    def disarm(self) -> bool:
        """End the motion as a program: whoever comes next may arm by itself."""
        return self._tell("disarm", by="program")

    def lost(self) -> bool:
        """The connection came back: what was armed before is not ours any more."""
        self.epoch += 1
        return self.disarm()

    def due(self, status: dict[str, Any]) -> bool:
        """Whether to ask for a new epoch now: the guard will take no command, no person stopped it, and it was not just asked."""
        state, now = status.get("state"), self._clock()
        ours, why = status.get("epoch") == self.epoch, status.get("why", [])
        stuck = state == State.HOLD and (not ours or bool(_FOR_GOOD & set(why)))
        wanted = state == State.IDLE or stuck or (state == State.ARMED and not ours)
        if not wanted or waits(why) or now - self._asked_at < _PAUSE:
            return False
        if self.retired or self._stopping or not self._auto:
            return False
        self._asked_at = now
        return True


def waits(why: Sequence[str]) -> bool:
    """Whether only a person may set the arm in motion after these reasons."""
    return not _FOR_PROGRAMS.issuperset(why)
