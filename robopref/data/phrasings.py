"""What tasks are called in words: phrasings to learn from, and others that only evaluation asks by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robopref.arrays import InputError
from robopref.networks.language import words_of

SETS = ("trained", "held_out")


@dataclass(frozen=True)
class Phrasings:
    """The sentences of one task, in two sets that share none."""

    trained: tuple[str, ...]
    held_out: tuple[str, ...]

    def of(self, which: str, count: int) -> list[str]:
        """`count` sentences of a set, by turns."""
        known = {"trained": self.trained, "held_out": self.held_out}[which]
        return [known[i % len(known)] for i in range(count)]


def read_phrasings(config: Any, words: int, only: Sequence[str] | None = None) -> dict[str, Phrasings]:
    """task -> phrasings, from {"tasks": {task: {"trained": [...], "held_out": [...]}}}; `only` some of the tasks.

    Raises `InputError` for another form, a task without phrasings of both sets, a sentence of more than `words` words, one that is
    there twice (a held-out one among the trained ones says nothing; one for two tasks says too little), and an unknown task in `only`.
    """
    tasks = config.get("tasks") if isinstance(config, Mapping) else None
    if not isinstance(tasks, Mapping) or not tasks:
        raise InputError("language: got no tasks, wanted language.tasks={TASK: {trained: [...], held_out: [...]}}.")
    read = {str(task): _task(str(task), said) for task, said in tasks.items()}
    owner: dict[tuple[str, ...], str] = {}
    for task, phrasings in read.items():
        for name in SETS:
            for sentence in phrasings.of(name, len(getattr(phrasings, name))):
                key, here = tuple(words_of(sentence, words)), f"{task}.{name}"
                if key in owner:
                    raise InputError(
                        f"language: got {sentence!r} in {owner[key]} and in {here}, wanted every sentence once."
                    )
                owner[key] = here
    unknown = [task for task in only or () if task not in read]
    if unknown:
        raise InputError(
            f"vla.tasks: got {', '.join(unknown)}, wanted some of {', '.join(read)}, which have phrasings."
        )
    return read if only is None else {task: read[task] for task in only}


def _task(task: str, said: Any) -> Phrasings:
    known = isinstance(said, Mapping) and set(said) == set(SETS)
    if not known or not all(_sentences(said[name]) for name in SETS):
        raise InputError(
            f"language.tasks.{task}: got {said!r}, wanted trained and held_out, each a list of at least one sentence."
        )
    return Phrasings(tuple(said["trained"]), tuple(said["held_out"]))


def _sentences(given: Any) -> bool:
    listed = isinstance(given, Sequence) and not isinstance(given, str) and len(given) > 0
    return listed and all(isinstance(one, str) for one in given)
