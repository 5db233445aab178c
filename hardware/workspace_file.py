"""A workspace from a YAML file: the box, the half-spaces and the room that is kept from both; nothing is taken for granted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from robopref.arrays import InputError

from .workspace import Workspace

EXAMPLE = """box:
  low: [-0.4, -0.6, 0.0]     # metres in the base frame: x forwards, z up
  high: [0.8, 0.6, 1.0]
half_spaces:                 # every point p of the moving links keeps normal . p >= offset; [] for none
  - {normal: [0, 0, 1], offset: 0.02}    # the table
  - {normal: [0, 1, 0], offset: -0.5}    # a wall on the right
margin: 0.02                 # metres kept from all of these (default 0)
"""
_KEYS, _PLANE = {"box", "half_spaces", "margin"}, {"normal", "offset"}


def read_workspace(path: Path) -> Workspace:
    """The workspace in a file. Raises `InputError` with what is wrong in it, and what was wanted."""
    import yaml

    try:
        told = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"workspace {path}: got {error}, wanted a readable YAML file.") from error
    except yaml.YAMLError as error:
        raise InputError(f"workspace {path}: got no YAML: {error}\nWrite it like this:\n{EXAMPLE}") from error
    where = f"workspace {path}"
    told = _map(where, told, _KEYS, {"box", "half_spaces"})
    box = _map(f"{where}: box", told["box"], {"low", "high"}, {"low", "high"})
    margin = _number(f"{where}: margin", told.get("margin", 0.0))
    if not 0.0 <= margin <= 0.5:
        raise InputError(f"{where}: margin: got {margin:g}, wanted 0 to 0.5 metres.")
    low, high = _vector(f"{where}: box: low", box["low"]), _vector(f"{where}: box: high", box["high"])
    for axis, least, most in zip("xyz", low, high, strict=True):
        if not least + margin < most - margin:
            raise InputError(
                f"{where}: box: got {axis} from {least:g} to {most:g} with a margin of {margin:g}, wanted low + margin < high - margin."
            )
    listed = told["half_spaces"]
    if not isinstance(listed, list):
        raise InputError(f"{where}: half_spaces: got {listed!r}, wanted a list, [] for none.")
    planes = tuple(_plane(f"{where}: half_spaces[{i}]", plane, margin) for i, plane in enumerate(listed))
    inner_low, inner_high = (x + margin for x in low), (x - margin for x in high)
    return Workspace(tuple(inner_low), tuple(inner_high), planes)  # type: ignore[arg-type]


def _loader() -> Any:
    """YAML's safe loader, which refuses a key that is said twice: of two lists of half-spaces it would forget one."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if twice := [key for key in keys if keys.count(key) > 1]:
                raise yaml.YAMLError(f"{twice[0]!r} is said twice, line {node.start_mark.line + 1}")
            return dict(super().construct_mapping(node, deep))

    return Loader


def _map(where: str, value: Any, known: set[str], needed: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: got {value!r}, wanted {', '.join(sorted(known))}.\nWrite it like this:\n{EXAMPLE}")
    strange, missing = [key for key in value if key not in known], sorted(needed - value.keys())
    if strange:
        raise InputError(f"{where}: got an unknown {strange[0]!r}, wanted {', '.join(sorted(known))}.")
    if missing:
        raise InputError(f"{where}: got no {missing[0]}, wanted one.\nWrite it like this:\n{EXAMPLE}")
    return value


def _number(where: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 100.0:
        raise InputError(f"{where}: got {value!r}, wanted a number of metres.")
    return float(value)


def _vector(where: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3:
        raise InputError(f"{where}: got {value!r}, wanted [x, y, z].")
    return tuple(_number(f"{where}[{i}]", x) for i, x in enumerate(value))


def _plane(where: str, value: Any, margin: float) -> tuple[float, float, float, float]:
    """(nx, ny, nz, d) with a normal of length 1, so that the margin is one of metres."""
    plane = _map(where, value, _PLANE, _PLANE)
    normal, offset = _vector(f"{where}: normal", plane["normal"]), _number(f"{where}: offset", plane["offset"])
    length = math.hypot(*normal)
    if not length > 1e-6:
        raise InputError(f"{where}: normal: got {list(normal)}, wanted a direction that is not zero.")
    x, y, z = (n / length for n in normal)
    return x, y, z, offset / length + margin
