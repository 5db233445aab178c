"""What a person may want beside success, visible in the picture: a zone to keep out of, a place to pass first, an object to take along.

Pure geometry in the plane of the table: where the mark stands, how well it was minded so far, and how an expert minds it. All distances
are in metres. `record` is the one number that an episode has to remember.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from robopref.arrays import InputError

from .rendering import Mark

REACH = 0.4
"""How far ahead a careful hand looks for the zone."""


class Preference(Protocol):
    """One kind of preference about the way of a hand."""

    weight: float
    """What a step in full breach costs, beside the 1 that a step at the goal is worth."""
    begin: float
    """`record` of an episode that has just begun."""

    def place(
        self, start: np.ndarray, target: np.ndarray, forward: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray:
        """Where the mark stands (2,), for a hand that starts at `start` (3,) and has to get to `target` (3,); forward (2,): away from the robot."""

    def record(self, hand: np.ndarray, mark: np.ndarray, before: float) -> float:
        """The episode's memory after the hand (3,) got here."""

    def fault(self, hand: np.ndarray, mark: np.ndarray, record: float) -> float:
        """How badly the preference is broken at this step, in [0, 1]; 0: not at all."""

    def moved(self, hand: np.ndarray, mark: np.ndarray, record: float) -> np.ndarray:
        """Where the mark (2,) is after the hand (3,) got here."""

    def bend(self, push: np.ndarray, hand: np.ndarray, mark: np.ndarray, record: float, care: float) -> np.ndarray:
        """A push (2,) in the plane turned so that it minds the preference; care from 0 (not at all) to 1."""

    def drawn(self, mark: np.ndarray) -> Mark:
        """How the mark looks."""


class Avoid:
    """Keep out of a blue zone on the way; the deeper and the longer inside, the worse."""

    weight = 5.0
    begin = 0.0
    radius = 0.07
    clearance = 0.015
    aside = 0.015
    """The zone stands this far off the straight way at most, so that both ways round are about as long."""
    straight = 0.4
    """Up to this share of the safe distance a zone counts as straight ahead."""
    ahead = 0.13
    """A fixed zone stands this far in front of where the hand starts, away from the robot."""

    def __init__(self, fixed: bool = False) -> None:
        """fixed: the zone stands at one place in all episodes, so that where the hand is says whether it is inside."""
        self.fixed = fixed

    def place(
        self, start: np.ndarray, target: np.ndarray, forward: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray:
        """Half way, a little aside; a fixed one straight ahead."""
        if self.fixed:
            return start[:2] + self.ahead * forward
        way = (target - start)[:2]
        across = np.array([-way[1], way[0]]) / max(float(np.hypot(*way)), 1e-9)
        return start[:2] + draw.uniform(0.5, 0.6) * way + draw.uniform(-self.aside, self.aside) * across

    def record(self, hand: np.ndarray, mark: np.ndarray, before: float) -> float:
        """The deepest that the hand has been inside."""
        return max(before, self.fault(hand, mark, before))

    def fault(self, hand: np.ndarray, mark: np.ndarray, record: float) -> float:
        """1 at the zone's axis, 0 at its edge and outside."""
        return max(0.0, 1.0 - float(np.hypot(*(hand[:2] - mark))) / self.radius)

    def moved(self, hand: np.ndarray, mark: np.ndarray, record: float) -> np.ndarray:
        """A zone stays."""
        return mark

    def bend(self, push: np.ndarray, hand: np.ndarray, mark: np.ndarray, record: float, care: float) -> np.ndarray:
        """Past the near side of the zone at full length of the push; inside `care` times the safe distance straight out."""
        safe, length = care * (self.radius + self.clearance), float(np.hypot(*push))
        gap = mark - hand[:2]
        if safe <= 0 or length < 1e-6:
            return push
        way = push / length
        along, across = float(gap @ way), float(way[0] * gap[1] - way[1] * gap[0])
        if not 0.0 < along < REACH or abs(across) >= safe:
            return push
        left = np.array([-way[1], way[0]])
        # The nearer side, but left of a zone straight ahead: there the sign of `across` changes with every tremble.
        right = across > self.straight * safe
        aim = mark + (-left if right else left) * safe * 1.15 - hand[:2]
        if float(np.hypot(*gap)) < safe:
            aim = aim - gap  # already too close: outwards as well
        return aim / max(float(np.hypot(*aim)), 1e-9) * min(max(length, 0.7), 1.0)

    def drawn(self, mark: np.ndarray) -> Mark:
        """A blue post that one can see through."""
        return Mark((float(mark[0]), float(mark[1]), 0.1), self.radius, 0.1, (0.15, 0.3, 0.95, 0.5))


class Order:
    """Pass a green place before the task; the farther the hand has stayed from it, the less its progress counts."""

    weight = 1.0
    begin = 1.0
    aside = 0.13
    near = 0.03

    def place(
        self, start: np.ndarray, target: np.ndarray, forward: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray:
        """Beside the first half of the way, left or right of it as the episode has it."""
        return _beside(start, target, self.aside, draw)

    def record(self, hand: np.ndarray, mark: np.ndarray, before: float) -> float:
        """How far from the place the hand has stayed so far, 0 (passed) to 1 (as far as the way is)."""
        return min(before, _missing(hand, mark, self.near, self.aside))

    def fault(self, hand: np.ndarray, mark: np.ndarray, record: float) -> float:
        """What is still missing."""
        return record

    def moved(self, hand: np.ndarray, mark: np.ndarray, record: float) -> np.ndarray:
        """A place stays."""
        return mark

    def bend(self, push: np.ndarray, hand: np.ndarray, mark: np.ndarray, record: float, care: float) -> np.ndarray:
        """To the place until only 1 - care is missing, then on with the task."""
        return _first_there(push, hand, mark, record, care)

    def drawn(self, mark: np.ndarray) -> Mark:
        """A green post."""
        return Mark((float(mark[0]), float(mark[1]), 0.05), self.near, 0.05, (0.1, 0.8, 0.2, 0.9))


class Together:
    """Take an orange puck along, so that it gets where the task goes: the farther it is from the hand, the less progress counts.

    The puck hangs on a short lead once the hand has touched it, and stays where it is before that. It is drawn like every mark: it is
    pulled by the hand and pushes nothing.
    """

    weight = 1.0
    begin = 1.0
    aside = 0.13
    lead = 0.04
    """Metres between hand and puck at which it is touched, and beyond which it is pulled."""

    def place(
        self, start: np.ndarray, target: np.ndarray, forward: np.ndarray, draw: np.random.Generator
    ) -> np.ndarray:
        """Beside the first half of the way, left or right of it as the episode has it."""
        return _beside(start, target, self.aside, draw)

    def record(self, hand: np.ndarray, mark: np.ndarray, before: float) -> float:
        """How far from the puck the hand has stayed so far, 0 (touched) to 1 (as far as the way is)."""
        return min(before, _missing(hand, mark, self.lead, self.aside))

    def fault(self, hand: np.ndarray, mark: np.ndarray, record: float) -> float:
        """How far apart they are now, 0 (on the lead) to 1 (as far as the puck was from the way)."""
        return 0.0 if record == 0 else _missing(hand, mark, self.lead, self.aside)

    def moved(self, hand: np.ndarray, mark: np.ndarray, record: float) -> np.ndarray:
        """Pulled to the end of the lead, once touched."""
        gap = mark - hand[:2]
        apart = float(np.hypot(*gap))
        return hand[:2] + gap * (self.lead / apart) if record == 0 and apart > self.lead else mark

    def bend(self, push: np.ndarray, hand: np.ndarray, mark: np.ndarray, record: float, care: float) -> np.ndarray:
        """To the puck until only 1 - care is missing, then on with the task."""
        return _first_there(push, hand, mark, record, care)

    def drawn(self, mark: np.ndarray) -> Mark:
        """An orange puck on the table."""
        return Mark((float(mark[0]), float(mark[1]), 0.025), 0.03, 0.025, (1.0, 0.5, 0.05, 1.0))


def _beside(start: np.ndarray, target: np.ndarray, aside: float, draw: np.random.Generator) -> np.ndarray:
    """A place (2,) `aside` metres off the first half of the way, on a side that is drawn."""
    way = (target - start)[:2]
    across = np.array([-way[1], way[0]]) / max(float(np.hypot(*way)), 1e-9)
    return start[:2] + 0.4 * way + draw.choice([-1.0, 1.0]) * aside * across


def _missing(hand: np.ndarray, mark: np.ndarray, near: float, far: float) -> float:
    """Distance of the hand from a mark, 0 at `near` metres and less, 1 at `far` and more."""
    return min(1.0, max(0.0, float(np.hypot(*(hand[:2] - mark))) - near) / (far - near))


def _first_there(push: np.ndarray, hand: np.ndarray, mark: np.ndarray, record: float, care: float) -> np.ndarray:
    """A push (2,) towards the mark until only 1 - care is missing, then as it was."""
    if care <= 0 or record <= 1 - care:
        return push
    aim = mark - hand[:2]
    return aim / max(float(np.hypot(*aim)), 1e-9)


def preference(name: str) -> Preference:
    """The preference of a name. Raises `InputError` for an unknown one."""
    if name in ("avoid", "avoid_fixed"):
        return Avoid(fixed=name == "avoid_fixed")
    if name == "order":
        return Order()
    if name == "together":
        return Together()
    raise InputError(
        f"preference: got {name!r}, wanted avoid (a blue zone on the way), avoid_fixed (one at the same place in all "
        "episodes), order (a green place to pass first) or together (an orange puck to take along)."
    )
