"""Random commands through the limiter of many arms at once, or a whole guard, checked against what the robot itself would refuse."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from robopref.arrays import InputError

from ..arm_reach import HOME
from ..command import Command
from ..guard import Guard, Settings
from ..limiter import Limiter, Motion
from ..limits import DT, JOINTS, Limits
from ..reasons import REFUSED

TOLERANCE = 1e-9
TICKS = 64
"""Length of a sequence: one random pattern of commands per arm, starting from whatever motion the last one left."""


@dataclass
class Swept:
    """What a sweep found."""

    sequences: int = 0
    steps: int = 0
    position: int = 0
    velocity: int = 0
    acceleration: int = 0
    jerk: int = 0
    seconds: float = 0.0
    """Time inside the limiter alone."""
    fastest: np.ndarray = field(default_factory=lambda: np.zeros(JOINTS))
    """Largest share of the speed that the limiter admits which each joint reached."""
    taken: int = 0
    """Commands that a whole guard took."""

    @property
    def violations(self) -> int:
        """Joint-steps outside any limit."""
        return self.position + self.velocity + self.acceleration + self.jerk

    @property
    def microseconds(self) -> float:
        """Amortised time of one step of one arm."""
        return 1e6 * self.seconds / max(self.steps, 1)


def sweep(limits: Limits, sequences: int, seed: int, arms: int = 2048, limiter: Limiter | None = None) -> Swept:
    """Run at least `sequences` random sequences of `TICKS` steps at 1 kHz and count joint-steps that break a limit of the arm.

    limiter: what is judged; without one, that of the arm's own limits. A guard's has a lower top speed.
    """
    rng = np.random.default_rng(seed)
    limiter = limiter or Limiter(limits)
    found = Swept()
    motion = Motion.at(rng.uniform(limits.stop_min, limits.stop_max, (arms, JOINTS)))
    while found.sequences < sequences:
        for target in _targets(rng, limits, motion.q):
            begin = time.perf_counter()
            after, _ = limiter.step(motion, target)
            found.seconds += time.perf_counter() - begin
            _count(found, limits, limiter.limits, motion, after)
            motion = after
        found.sequences += arms
    return found


def _targets(rng: np.random.Generator, limits: Limits, q: np.ndarray) -> list[np.ndarray | None]:
    """TICKS targets (arms, 7): anywhere and beyond the stops, jumps around the arm, flicker at the edge, holds."""
    arms, span = len(q), limits.stop_max - limits.stop_min
    anywhere = rng.uniform(limits.stop_min - 0.3 * span, limits.stop_max + 0.3 * span, (arms, JOINTS))
    jump = q + rng.uniform(-0.3, 0.3, (arms, JOINTS))
    edges = np.where(rng.random((arms, JOINTS)) < 0.5, limits.stop_min, limits.stop_max)
    far = np.where(rng.random((arms, JOINTS)) < 0.5, limits.stop_min - 9.0, limits.stop_max + 9.0)
    kind = rng.integers(0, 5, arms)[:, None]
    # Far targets stay for many sequences, so that the arms reach full speed and meet their stops with it.
    steady = np.where(
        np.sin(np.arange(arms) + rng.integers(2))[:, None] > 0, limits.stop_max + 9.0, limits.stop_min - 9.0
    )
    first = np.select([kind == 0, kind == 1, kind == 2, kind == 3], [anywhere, jump, edges, far], steady)
    second = np.where(kind == 2, limits.stop_min + limits.stop_max - edges, first)
    second = np.where(kind == 1, q - (jump - q), second)
    period = int(rng.integers(1, TICKS))
    targets: list[np.ndarray | None] = [first if (tick // period) % 2 == 0 else second for tick in range(TICKS)]
    if rng.random() < 0.1:
        targets[TICKS // 2 :] = [None] * (TICKS // 2)
    return targets


def guard_sweep(limits: Limits, sequences: int, seed: int, speed: float = 1.0) -> Swept:
    """The same for one whole guard, commands through `receive`, one in ten with NaN: checks, workspace and watchdog included."""
    rng, found, guard = np.random.default_rng(seed), Swept(), Guard(limits, Settings(speed=speed))
    guard.link(True, 0.0)
    if refused := guard.arm(1, HOME, 1, 0.0):
        raise InputError(f"guard_sweep: got {refused!r}, wanted a guard that arms at home.")
    now, number = 1.0, 0
    for _ in range(sequences):
        every, reach = int(rng.integers(5, 120)), float(rng.choice([0.05, 0.35, 4.0]))
        way, motions = rng.uniform(-reach, reach, JOINTS), [guard.motion]
        for tick in range(TICKS):
            now += DT
            if tick % every == 0:
                number += 1
                way = -way if rng.random() < 0.3 else way
                target = guard.motion.q + way * (np.nan if rng.random() < 0.1 else 1.0)
                found.taken += (
                    not guard.receive(Command(1, number, now, now, target=target, duration=0.05), now) & REFUSED
                )
            begin = time.perf_counter()
            motions.append(guard.tick(now).motion)
            found.seconds += time.perf_counter() - begin
        before, after = (
            Motion(*(np.stack([getattr(m, k) for m in part]) for k in "qva")) for part in (motions[:-1], motions[1:])
        )
        _count(found, limits, guard.limiter.limits, before, after)
        found.sequences += 1
    return found


def _count(found: Swept, limits: Limits, own: Limits, before: Motion, after: Motion) -> None:
    """Judge by differences of positions alone, as the robot does. limits: the arm's; own: the limiter's, for the share of its speed."""
    v = (after.q - before.q) / DT
    # Differences of positions lose digits (1e-16 / 1e-3 per order): compare what was integrated, and that it agrees.
    assert np.abs(v - after.v).max() < 1e-10
    a, j = after.a, (after.a - before.a) / DT
    high, low = limits.v_high(after.q), limits.v_low(after.q)
    found.steps += len(v)
    found.position += int(((after.q > limits.q_max + TOLERANCE) | (after.q < limits.q_min - TOLERANCE)).sum())
    found.velocity += int(
        ((after.v > np.maximum(high, 0) + TOLERANCE) | (after.v < np.minimum(low, 0) - TOLERANCE)).sum()
    )
    found.acceleration += int((np.abs(a) > limits.a_max + TOLERANCE).sum())
    found.jerk += int((np.abs(j) > limits.j_max + TOLERANCE * limits.j_max).sum())
    high, low = (np.maximum(edge, 0.2 * own.v_max) for edge in (own.v_high(after.q), -own.v_low(after.q)))
    share = np.abs(after.v) / np.where(after.v > 0, high, low)
    found.fastest = np.maximum(found.fastest, share.max(0))
