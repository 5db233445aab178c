"""What `robopref annotate DATASET` can be told: `key=value`, or `--key value`, checked before anything is opened."""

from __future__ import annotations

import getpass
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.cli_errors import did_you_mean
from robopref.data.answer_rows import MODES, REASONS

STRATEGIES = ("random", "epig", "disagreement", "infogain", "volume")
LABEL_MODELS = ("free", "return", "regret")
TEXTS = {
    "pairs": "Which robot does the task better?",
    "ranking": "Order the robots from best to worst.",
    "best_worst": "Which robot is best, and which is worst?",
    "rating": "How well does the robot do the task?",
    "flag": "Does the robot succeed?",
}


@dataclass(frozen=True)
class Options:
    """Settings of one labelling server."""

    dataset: Path
    host: str = "127.0.0.1"
    port: int = 8765
    browser: bool = True
    annotator: str = ""
    """Who labels on this machine; empty: the name of the user."""
    annotators: tuple[str, ...] = ()
    """More people, each with a link of their own."""
    pairs: int = 0
    """Answers wanted in all; 0: 200, or as many as there are questions."""
    mode: str = "pairs"
    clips: int = 4
    """Clips of a question where the mode leaves it open."""
    segment: int = 0
    overlap: int = 1
    question: str = ""
    label_model: str = "free"
    lang: str = "en"
    training_id: str = ""
    reasons: tuple[str, ...] = REASONS
    both_bad: bool = True
    strategy: str = "epig"
    pool: int = 2000
    repeats: float = 0.1
    screen: bool = False
    gold: int = 0
    cameras: tuple[str, ...] = ()
    size: int = 256
    speed: float = 1.0
    minimum: int = 400
    """Milliseconds both clips must have been seen before an answer is taken."""
    prefetch: int = 3
    tls_cert: str = ""
    tls_key: str = ""
    hosts: tuple[str, ...] = ()
    """Further names under which the server may be reached."""
    delay: int = 0
    """Milliseconds added to every reply, for tests of slow networks."""
    seed: int = 0
    export: bool = False
    """Write the answers to the sidecar and end."""
    restore: bool = False
    """Take back from the sidecar the answers that the database lacks, and end."""

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, tuple(MODES))
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("label_model", self.label_model, LABEL_MODELS)
        for name, low, high in (
            ("port", 0, 65535), ("pairs", 0, 10**6), ("segment", 0, 10**6), ("overlap", 1, 20), ("pool", 1, 10**5), ("repeats", 0, 0.5),
            ("gold", 0, 1000), ("size", 64, 1080), ("speed", 0.1, 10), ("minimum", 0, 60_000), ("prefetch", 0, 10), ("delay", 0, 10_000),
        ):  # fmt: skip
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name}: got {getattr(self, name)}, wanted {low} to {high}.")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InputError("annotate: got only one of tls_cert and tls_key, wanted both files or neither.")
        if self.gold and not self.repeats and not self.screen:
            raise InputError(
                f"gold: got {self.gold} with repeats=0, wanted repeats=SHARE or screen=true: gold questions come among the checks, and there would be none."
            )
        if self.mode != "pairs" and (self.gold or self.screen):
            raise InputError(
                f"{'gold' if self.gold else 'screen'}: got it with mode={self.mode}, wanted mode=pairs: only pairs are checked."
            )
        if long := [reason for reason in self.reasons if len(reason) > 60]:
            raise InputError(f"reasons: got {long[0][:20]!r}..., wanted at most 60 characters each.")
        if len(self.reasons) > 40:
            raise InputError(f"reasons: got {len(self.reasons)}, wanted at most 40.")
        if len(self.question) > 500:
            raise InputError("question: wanted a text of at most 500 characters.")

    @property
    def me(self) -> str:
        """Name of the person on this machine."""
        return self.annotator or getpass.getuser()

    @property
    def text(self) -> str:
        """The question as people read it."""
        return self.question or TEXTS[self.mode]

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in ("127.0.0.1", "localhost", "::1")


def parse(words: Sequence[str]) -> Options:
    """Options from the words after `annotate`. Raises `InputError` for unknown keys, wrong values, no dataset."""
    known = {f.name: f for f in fields(Options) if f.name != "dataset"}
    given: dict[str, Any] = {}
    plain: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") and not re.match(r"[a-z_-]+=", word):
            plain.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if not equals and key.removeprefix("no_") in known and known[key.removeprefix("no_")].type == "bool":
            key, value = key.removeprefix("no_"), str(not key.startswith("no_"))
        elif not equals:
            if key in known and not rest:
                raise InputError(f"annotate: got {word} without a value, wanted {word} VALUE.")
            value = rest.pop(0) if key in known else ""
        if key not in known:
            raise InputError(
                f"annotate: unknown key {key!r}.{did_you_mean(key, known) or ' See `robopref annotate --help`.'}"
            )
        given[key] = _converted(key, str(known[key].type), value)
    if len(plain) != 1:
        raise InputError(f"annotate: got {len(plain)} datasets, wanted one.\nsee `robopref annotate --help`")
    return Options(Path(plain[0]), **given)


def _converted(key: str, kind: str, value: str) -> Any:
    try:
        if kind == "bool":
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        if kind in ("int", "float"):
            return int(value) if kind == "int" else float(value)
    except (KeyError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        raise InputError(f"{key}: got {value!r}, wanted {wanted}.") from None
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in value.strip("[]").split(",") if part.strip())
    return value


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InputError(f"{name}: got {value!r}, wanted one of {', '.join(known)}.{did_you_mean(value, known)}")
