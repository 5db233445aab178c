"""The nouns of the preference sidecar: windows of episodes and compared pairs, with the columns they are stored in."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from robopref.arrays import InputError


@dataclass(frozen=True)
class Window:
    """The half-open window [start, end) of an episode of a store."""

    episode: int
    start: int
    end: int

    def __post_init__(self) -> None:
        if self.episode < 0 or not 0 <= self.start < self.end:
            raise InputError(f"Window: got episode {self.episode} [{self.start}, {self.end}), wanted 0 <= start < end.")


@dataclass(frozen=True)
class Pair:
    """One answer to "which of two windows is better": a row of the sidecar. Rows are never changed, only superseded."""

    first: Window
    second: Window
    prob_first: float
    """P(first preferred), 0.5 a tie, nan for no answer."""
    weight: float = 1.0
    annotator: str = ""
    source: str = "scripted"
    """human, scripted, vlm, reward_model, transfer or oracle."""
    label_model: str = ""
    """What the rater judged by, for example return or regret."""
    teacher: str = ""
    strategy: str = ""
    """How the pair was chosen to be asked."""
    propensity: float = 1.0
    """Probability with which the strategy chose it, in (0, 1]."""
    noise_model: str = ""
    criterion: str = ""
    prompt: str = ""
    question_id: str = ""
    choice: str = ""
    """The answer as given, for example first, second, tie, skip or undo."""
    strength: float = math.nan
    reasons: str = ""
    margin: float = math.nan
    response_time_s: float = math.nan
    segment_policy: str = ""
    """How windows were cut, for example whole or random."""
    split: str = ""
    """train, val or test; a pair, and an episode, belongs to one at most."""
    cross_task: bool = False
    """Must be set when the two episodes are of different tasks."""
    notes: str = ""
    created_at: str = ""
    """ISO 8601 in UTC; filled in when appended."""
    uid: str = ""
    """Name of the row; filled in when appended. A row whose uid is stored already is not appended again."""
    supersedes: str = ""
    """uid of the row that this one replaces."""
    pair_id: str = field(default="")
    """Hash of the two windows' contents in either order; filled in when appended."""
    first_hash: str = ""
    second_hash: str = ""
    same_init: bool = False
    """Whether both episodes started from the same reset; filled in when appended."""
    init_seed: int = -1
    policy_first: str = ""
    policy_second: str = ""

    def __post_init__(self) -> None:
        if not (math.isnan(self.prob_first) or 0 <= self.prob_first <= 1):
            raise InputError(
                f"Pair.prob_first: got {self.prob_first} for episodes {self.first.episode} and {self.second.episode}, "
                "wanted a number in [0, 1] or nan. Convert the labels at the door."
            )
        if not 0 <= self.weight < math.inf:
            raise InputError(f"Pair.weight: got {self.weight}, wanted a finite number >= 0.")
        if not 0 < self.propensity <= 1:
            raise InputError(f"Pair.propensity: got {self.propensity}, wanted a probability in (0, 1].")

    @property
    def answered(self) -> bool:
        """Whether the rater gave an answer at all."""
        return not math.isnan(self.prob_first)


WINDOWS = tuple(f"{side}_{part}" for side in ("first", "second") for part in ("episode_index", "start", "end"))
REQUIRED = (*WINDOWS, "prob_first", "first_hash", "second_hash", "uid", "supersedes")


def columns() -> dict[str, str]:
    """Column name -> int64, float64, bool or string, in the order of the file."""
    kinds = {"float": "float64", "str": "string", "bool": "bool", "int": "int64"}
    values = {f.name: kinds[str(f.type)] for f in fields(Pair) if f.name not in ("first", "second")}
    return dict.fromkeys(WINDOWS, "int64") | values


def to_row(pair: Pair) -> dict[str, object]:
    """A row of the sidecar; nan becomes null."""
    row: dict[str, object] = {}
    for side, window in (("first", pair.first), ("second", pair.second)):
        row |= {f"{side}_episode_index": window.episode, f"{side}_start": window.start, f"{side}_end": window.end}
    for name in columns():
        if name not in row:
            value = getattr(pair, name)
            row[name] = None if isinstance(value, float) and math.isnan(value) else value
    return row


def from_row(row: dict[str, object]) -> Pair:
    """The pair of a row. Unknown columns are left alone, missing optional ones take their default."""
    windows = {
        side: Window(*(_whole(row[f"{side}_{part}"]) for part in ("episode_index", "start", "end")))
        for side in ("first", "second")
    }
    known = columns()
    values = {
        name: (math.nan if value is None and known[name] == "float64" else value)
        for name, value in row.items()
        if name in known and name not in WINDOWS and (value is not None or known[name] == "float64")
    }
    return Pair(windows["first"], windows["second"], **values)  # type: ignore[arg-type]


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise InputError(f"Window: got {value!r} for an index, wanted a whole number.")
    return value
