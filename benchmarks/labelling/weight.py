"""What the extra `label` adds to the core: packages and megabytes."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

from .rows import at_most

_EXTRA = ("starlette", "uvicorn")


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `extra_packages` and `extra_megabytes`."""
    core = _closure(_required("robopref"))
    added = _closure(list(_EXTRA)) - core
    files = [Path(str(file.locate())) for name in added for file in metadata.files(name) or ()]
    size = sum(path.stat().st_size for path in files if path.is_file())
    return {"extra_packages": at_most(len(added), 10, which=sorted(added)), "extra_megabytes": at_most(size / 1e6, 10)}


def _required(package: str) -> list[str]:
    """Names that a package needs without extras."""
    found = []
    for line in metadata.requires(package) or ():
        if "extra ==" not in line:
            match = re.match(r"[\w.-]+", line)
            found += [match.group().lower().replace("_", "-")] if match else []
    return found


def _closure(names: list[str]) -> set[str]:
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        try:
            names += _required(name)
        except metadata.PackageNotFoundError:  # for another platform or Python
            continue
        seen.add(name)
    return seen
