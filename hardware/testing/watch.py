"""Judges a guard in a simulated world by that world's own clock: what the agent says of itself is not asked."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..command import Command
from ..guard import Guard, Output
from ..journal import Journal
from ..limiter import Motion
from ..limits import DT
from ..reasons import REFUSED, State, names
from .cell import Cell


class Truth:
    """What really was: when the arm said what, what the policy was shown, when a command was last taken."""

    def __init__(self) -> None:
        self.now = 0.0
        """Seconds of the world's clock, which no fault changes."""
        self.valid = -1.0
        """When the guard last took a command."""
        self._said: dict[int, float] = {}
        self._stamps: dict[bytes, list[int]] = {}
        self._looked: set[int] = set()
        self._taken: dict[int, int] = {}

    def said(self, stamp: int, state: np.ndarray) -> None:
        """The robot tells a state under a stamp in microseconds of its clock."""
        self._said[stamp] = self.now
        self._stamps.setdefault(_key(state), []).append(stamp)

    def looked(self, state: np.ndarray) -> float:
        """The policy is shown a state; when the robot first said it, by the world's clock (minus infinity for what it never said)."""
        stamps = self._stamps.get(_key(state), [])
        self._looked.update(stamps)
        return self._said[stamps[-1]] if stamps else float("-inf")

    def took(self, command: Command, cell: Cell) -> None:
        """The guard takes a command: from what it came, and whether it was taken before."""
        stamp = round(command.observed * 1e6)
        cell.repeated += command.seq <= self._taken.get(command.epoch, -1)
        cell.unseen += stamp not in self._looked
        cell.action_age = max(cell.action_age, self.now - self._said.get(stamp, float("-inf")))
        self._taken[command.epoch] = command.seq
        self.valid = self.now


def _key(state: np.ndarray) -> bytes:
    return np.asarray(state, dtype=np.float32).tobytes()


class Watched(Journal):
    """Passes calls on to a guard and judges every one of them. `broken()`: whether a fault is on."""

    def __init__(self, guard: Guard, truth: Truth, cell: Cell, broken: Any) -> None:
        super().__init__(guard, None)
        self._truth, self._cell, self._broken = truth, cell, broken
        self._target = self._from = guard.motion.q
        self._stopping = False

    def call(self, name: str, *arguments: Any) -> Any:
        """`guard.name(*arguments)`."""
        before, state = self.guard.motion, self.guard.state
        result = super().call(name, *arguments)
        self._stopping |= state is State.RUNNING and self.guard.state in (State.HOLD, State.ESTOP)
        if self._broken():
            self._cell.reasons |= set(names(self.guard.why))
        if name == "receive":
            self._received(arguments[0], result, before)
        if name == "tick":
            self._ticked(before, result)
        return result

    def _received(self, command: Command, result: int, before: Motion) -> None:
        if not result & REFUSED:
            self._truth.took(command, self._cell)
            self._from, self._target = before.q.copy(), self.guard._target.copy()
        if self._broken():
            self._cell.reasons |= set(names(result))
            for name in names(result & REFUSED):
                self._cell.refusals[name] = self._cell.refusals.get(name, 0) + 1

    def _ticked(self, before: Motion, output: Output) -> None:
        cell, after, limits = self._cell, output.motion, self.guard.limits
        cell.violations += int((np.abs(after.a) > limits.a_max + 1e-9).sum())
        cell.violations += int((np.abs(after.a - before.a) > limits.j_max * DT + 1e-6).sum())
        cell.violations += int(((after.q > limits.q_max) | (after.q < limits.q_min)).sum())
        if self._broken():
            cell.reasons |= set(names(output.reason))
            if cell.during != State.HOLD or self.guard.state is not State.RUNNING:
                cell.during = str(self.guard.state)
        if self._stopping and after.still:
            self._stopping = False
            cell.stop = max(cell.stop, self._truth.now - self._truth.valid)
            beyond = (after.q - self._target) * np.sign(self._target - self._from)
            cell.overshoot = max(cell.overshoot, float(beyond.max()))
