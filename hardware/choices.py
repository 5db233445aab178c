"""Names that a person typed: refused with the known ones and the nearest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from robopref.arrays import InputError

T = TypeVar("T")


def chosen(key: str, name: object, known: Mapping[str, T]) -> T:
    """What `known` has under a name. Raises `InputError` for an unknown one."""
    if name not in known:
        raise InputError(f"{key}: got {str(name)!r}, wanted one of {', '.join(known)}.{nearest(str(name), known)}")
    return known[str(name)]


def nearest(name: str, known: Iterable[str]) -> str:
    """ " Did you mean a?" for the name in `known` that is near, else an empty string."""
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.4)
    return f" Did you mean {near[0]}?" if near else ""
