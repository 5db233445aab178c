"""A policy whose chunks arrive some control periods after they were asked for: what runs meanwhile, and how chunks join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np


class Body(Protocol):
    """One episode under way."""

    observation: np.ndarray
    """(D,)"""
    done: bool

    def step(self, action: np.ndarray | None) -> None:
        """One control period; without an action the body holds still."""


@dataclass
class Played:
    """What came of the episodes of one setting."""

    idle: int = 0
    """Control periods without an action after the first."""
    across: list[float] = field(default_factory=list)
    """Largest change of an action's numbers where one chunk follows another, per episode and seam."""
    within: list[float] = field(default_factory=list)
    """The same from row to row of one chunk."""

    @property
    def seam(self) -> float:
        """99th percentile of the changes across chunks over that within chunks."""
        return float(np.percentile(self.across, 99) / np.percentile(self.within, 99))

    @property
    def roughness(self) -> float:
        """99th percentile of all changes."""
        return float(np.percentile(self.across + self.within, 99))


def play(inference: Any, bodies: Sequence[Body], mode: Any, delay: int, steps: int) -> Played:
    """Play all bodies in step with each other for at most `steps` periods, every chunk `delay` periods late."""
    from robopref.hardware.chunk_queue import ChunkQueue, Plan

    spec, found = inference.spec, Played()
    shape = (len(bodies), spec.dims.action)
    queue = ChunkQueue(spec.horizon, spec.execute, mode)
    waiting: tuple[int, Plan, np.ndarray] | None = None
    last: tuple[int, np.ndarray] | None = None
    for step in range(steps):
        if waiting is not None and step >= waiting[0]:
            queue.adopt(waiting[1].step, waiting[2], step)
            waiting = None
        plan = queue.plan(step)
        if plan is not None:
            chunk = _asked(inference, bodies, plan)  # (H, N A): the queue counts rows and asks nothing of their width
            if delay == 0:
                queue.adopt(step, chunk, step)
            else:
                waiting = (step + delay, plan, chunk)
        due = queue.due(step)
        action = None if due is None else due.action.reshape(shape)
        found.idle += due is None and last is not None
        live = [row for row, body in enumerate(bodies) if not body.done]
        for row in live:
            bodies[row].step(None if action is None else action[row])
        if due is None or action is None:
            continue
        if last is not None:
            jumps = np.abs(action - last[1]).max(1)[live]
            (found.within if due.observed == last[0] else found.across).extend(jumps.tolist())
        last = (due.observed, action)
        if all(body.done for body in bodies):
            break
    return found


def _asked(inference: Any, bodies: Sequence[Body], plan: Any) -> np.ndarray:
    from robopref.hardware.inference import Request

    spec, previous = inference.spec, None
    if plan.previous is not None:
        previous = plan.previous.reshape(len(plan.previous), len(bodies), spec.dims.action).astype(np.float32)
    requests = [
        Request(
            np.asarray(body.observation, dtype=np.float32)[None],
            previous=None if previous is None else previous[:, row],
            delay=plan.delay,
        )
        for row, body in enumerate(bodies)
    ]
    return np.stack(inference.answer(requests), axis=1).reshape(spec.horizon, -1)
