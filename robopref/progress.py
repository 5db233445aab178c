"""Progress of long work on the error stream: a bar with rate and time left, and nothing when nobody is watching."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_running: list[Progress] = []
"""The bars on screen; a bar inside a bar joins the outer one, because a terminal can show one live display."""


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items of `iterable` unchanged while a bar shows how far, how fast and how long still.

    `total` counts the items where `iterable` has no length. Off a terminal this is a plain loop and imports nothing.
    """
    if not sys.stderr.isatty():
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    bar = _running[-1] if _running else _new_bar()
    outermost = not _running
    if outermost:
        bar.start()
        _running.append(bar)
    task = bar.add_task(description, total=total, rate="")
    try:
        for item in iterable:
            yield item
            bar.advance(task)
            speed = bar.tasks[bar.task_ids.index(task)].speed
            bar.update(task, rate=f"{speed:.3g}/s" if speed else "")
    finally:
        if outermost:
            _running.remove(bar)
            bar.stop()
        else:
            bar.remove_task(task)


def _new_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=False)
