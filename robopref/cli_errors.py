"""How an exception becomes an exit code and at most five lines that say what to do."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from robopref.arrays import InputError
from robopref.data.files import FULL

WRONG_REQUEST = 2
FAILURE = 1
INTERRUPTED = 130
_LINES = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean a or b?" for names in `known` that are near `word`, else an empty string."""
    near = get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def explain(error: BaseException) -> tuple[int, list[str]]:
    """(exit code, at most five lines) for an exception that reached the command."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, ["interrupted; the same command continues where it stopped"]
    for cause in _chain(error):
        lines = _wrong_request(cause)
        if lines:
            return WRONG_REQUEST, _short(lines)
    root = list(_chain(error))[-1]
    return FAILURE, _short([f"{type(root).__name__}: {root}"], "use --debug to see where this happened")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and what caused it, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if type(current).__name__ != "_RemoteTraceback":  # a worker's traceback as text, hung below its exception
            yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _wrong_request(error: BaseException) -> list[str]:
    """What to tell the user if this exception is about the request, else nothing."""
    text = str(error)
    # Writers other than Python's own raise their own types, with the system's words inside.
    full = isinstance(error, OSError) and error.errno in FULL
    if full or any(words in text for words in ("disk is full", *map(os.strerror, FULL))):
        where = getattr(error, "filename", None)
        return [
            f"disk full{f' while writing {where}' if where else ''}: free some space, or choose another out=DIR",
            text,
        ]
    if isinstance(error, InputError):
        return text.splitlines() or ["wrong input"]
    if (
        isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError)
        and error.filename
    ):
        return [f"{error.filename}: {error.strerror}", "check the path"]
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("robopref"):
        return [f"the Python package {error.name!r} is missing", "`robopref doctor` tells which extra brings it"]
    return _wrong_configuration(error)


def _wrong_configuration(error: BaseException) -> list[str]:
    """The same for the errors of Hydra and OmegaConf, which can only occur once those are loaded."""
    if not {"hydra", "omegaconf"} & sys.modules.keys():
        return []
    from hydra.errors import HydraException, InstantiationException
    from omegaconf import Container, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OmegaConfBaseException):
        parent, key = error.parent_node, str(error.full_key or error.key or "")
        if isinstance(parent, Container) and OmegaConf.is_dict(parent):
            known = [str(name) for name in parent]
            prefix, _, last = key.rpartition(".")
            hint = did_you_mean(last, known) or f" Known: {', '.join(sorted(known))}."
            if last not in known:
                return [f"unknown key {last!r}{f' in {prefix}' if prefix else ''}.{hint}"]
        return [f"{key}: {_first_line(error)}" if key else _first_line(error), "see `robopref run --help`"]
    if isinstance(error, InstantiationException):
        return _wrong_knob(error)
    if isinstance(error, HydraException):
        inner = error.__cause__
        if isinstance(inner, OmegaConfBaseException):
            return _wrong_configuration(inner)
        return _wrong_preset(str(error)) or [_first_line(error), "see `robopref run --help`"]
    return []


def _wrong_preset(text: str) -> list[str]:
    """Near names for Hydra's "Could not find 'policy/difusion' ... Available options in 'policy': ..."."""
    match = re.search(r"Could not find '([^']+)'", text)
    if match is None:
        return []
    group, _, name = match.group(1).rpartition("/")
    known = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
    listed = f" Known: {', '.join(known)}." if known else ""
    return [f"unknown preset {group}={name}.{did_you_mean(name, known) or listed}" if group else f"no config {name!r}"]


def _wrong_knob(error: BaseException) -> list[str]:
    """What a class said of its preset, or an argument that it does not take; other failures inside it stay failures."""
    # From a worker process only the text arrives, with the original exception's repr in its second line.
    said = re.search(r"^InputError\((.*?),?\)(?:\nfull_key: .*)?$", str(error), re.MULTILINE)
    if said is not None:
        return str(ast.literal_eval(said.group(1))).splitlines()
    match = re.search(r"(\S+)\(\) got an unexpected keyword argument '(\w+)'", f"{error} {error.__cause__}")
    if match is None:
        return []
    return [
        f"{match.group(1).removesuffix('.__init__')} has no setting {match.group(2)!r}",
        "see the preset in robopref/conf",
    ]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _short(lines: list[str], *more: str) -> list[str]:
    """At most five printed lines in all, none endless; what must stay (`more`) comes last."""
    split = [line[:500] for text in lines for line in text.splitlines() if line.strip()]
    return [*split[: _LINES - len(more)], *more]
