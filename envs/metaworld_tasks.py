"""Names of Meta-World's 50 tasks: with or without `-v3`, and a helping message for anything else."""

from __future__ import annotations

import difflib

from robopref.arrays import InputError

from .upstream import TASK_CLASSES

TASKS: tuple[str, ...] = tuple(sorted(TASK_CLASSES))
"""Canonical names, for example `drawer-open-v3`."""

VERSION = "-v3"


def canonical(task: str) -> str:
    """Full name of `task`, which may lack its `-v3`. Raises `InputError` with near names for an unknown one."""
    short = task.strip().lower().replace("_", "-").replace(" ", "-").removesuffix(VERSION)
    if short + VERSION in TASK_CLASSES:
        return short + VERSION
    shorts = [name.removesuffix(VERSION) for name in TASKS]
    near = difflib.get_close_matches(short, shorts, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else f"For example {', '.join(shorts[:3])}."
    raise InputError(f"MetaWorld.task: got {task!r}, wanted one of Meta-World's {len(TASKS)} tasks.\n{hint}")
