"""`robopref bench NAME`: run one benchmark, show its rows as measured against target, keep them as bench.json."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from robopref.arrays import InputError
from robopref.cli_errors import FAILURE, did_you_mean
from robopref.data.files import read_json, write_json

Rows = dict[str, dict[str, Any]]
Part = Callable[[bool], Rows]

_TOOLS = {"dial_table", "experts", "faults_table", "rewards_table", "table", "vla_table"}
"""Modules of the folder that make tables and measure nothing."""


def available() -> list[str]:
    """Names of the benchmarks that are installed."""
    package = import_module("robopref.benchmarks")
    names = [module.name for module in iter_modules(package.__path__)]
    return sorted(name for name in names if name not in _TOOLS and not name.startswith("_"))


def bench(name: str, quick: bool, out: Path | None, resume: bool = False, only: Sequence[str] = ()) -> int:
    """Run benchmark `name`, print its table, write out/bench.json; 0 when every row reached its target, else 1.

    A benchmark with `PARTS` writes it after each of them; with `resume` parts that an earlier run in `out` finished are not measured again.
    only: names of the parts to measure; the others are read from `out` where an earlier run finished them, and left out elsewhere.
    """
    known = available()
    if name not in known:
        raise InputError(f"bench: unknown benchmark {name!r}.{did_you_mean(name, known)}\nKnown: {', '.join(known)}.")
    module = import_module(f"robopref.benchmarks.{name}")
    parts: Mapping[str, Part] | None = getattr(module, "PARTS", None)
    if resume and (parts is None or out is None):
        raise InputError(
            f"bench: got resume=true for {name!r}, wanted a benchmark in parts and the out=DIR of the run to go on with."
        )
    if wrong := [part for part in only if part not in (parts or {})]:
        raise InputError(
            f"bench: got parts={wrong[0]}, wanted some of {', '.join(parts or {}) or 'none: it has no parts'}."
        )
    rows: Rows = module.run(quick) if parts is None else in_parts(parts, quick, out, resume, only)
    _show(name, rows)
    if out is not None:
        write_json(out / "bench.json", rows)
    return 0 if all(row.get("ok", True) for row in rows.values()) else FAILURE


def in_parts(
    parts: Mapping[str, Part], quick: bool, out: Path | None = None, resume: bool = False, only: Sequence[str] = ()
) -> Rows:
    """The rows of all parts, and `machine_cpu_share`: how much of a core's time they had.

    out: bench.json is written there after every part, and parts/NAME.json with what the part found; resume: use those that lie there
    already and were measured with the same `quick`; only: as in `bench`.
    """
    wanted = set(only or parts)
    made: dict[str, Any] = {}
    rows: Rows = {}
    if out is not None and not resume:
        for name in wanted:
            _path(out, name).unlink(missing_ok=True)  # or a later resume would take parts of two runs for one
    for name, part in parts.items():
        if name not in wanted and _kept(name, quick, out) is None:
            continue
        made[name] = _found(name, part, quick, out)
        rows = {row: found for one in made.values() for row, found in one["rows"].items()}
        rows["machine_cpu_share"] = _share(made)
        if out is not None:
            write_json(out / "bench.json", rows)
    return rows


def _path(out: Path, name: str) -> Path:
    return out / "parts" / f"{name}.json"


def _kept(name: str, quick: bool, out: Path | None) -> dict[str, Any] | None:
    """What an earlier run in `out` found, with the same `quick`."""
    if out is None or not _path(out, name).exists():
        return None
    before: dict[str, Any] = read_json(_path(out, name))
    return before if before["quick"] == quick else None


def _found(name: str, part: Part, quick: bool, out: Path | None) -> dict[str, Any]:
    """What `_measured` finds, or found for this `out` before."""
    if (before := _kept(name, quick, out)) is not None:
        return before
    one = _measured(name, part, quick)
    if out is not None and not one["failed"]:
        write_json(_path(out, name), one)
    return one


def _measured(name: str, part: Part, quick: bool) -> dict[str, Any]:
    """What one part finds and what it took; a peer that did not start takes only its own rows away."""
    wall, own, failed = time.perf_counter(), time.process_time(), False
    try:
        rows = part(quick)
    except InputError as error:
        rows, failed = {name: {"measured": None, "target": None, "ok": False, "error": str(error)}}, True
    took = time.perf_counter() - wall
    print(f"{name}: {took:.0f} s", file=sys.stderr, flush=True)
    cost = {"seconds": round(took, 1), "cpu_seconds": round(time.process_time() - own, 1), "load": os.getloadavg()[0]}
    return {"quick": quick, "rows": rows, "cost": cost, "failed": failed}


def _share(made: Mapping[str, Any]) -> dict[str, Any]:
    costs = {name: one["cost"] for name, one in made.items()}
    seconds, own = (sum(cost[key] for cost in costs.values()) for key in ("seconds", "cpu_seconds"))
    return {"measured": round(own / max(seconds, 1e-9), 3), "target": None, "ok": True, "parts": costs}


def _show(name: str, rows: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=name)
    columns = ("measured", "target", "ours", "peer")
    for column in ("", *columns, "ok"):
        table.add_column(column, justify="left" if not column else "right")
    for row, values in rows.items():
        cells = [_cell(values.get(column)) for column in columns]
        table.add_row(row, *cells, "yes" if values.get("ok", True) else "NO")
    Console().print(table)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
