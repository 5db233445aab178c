"""`robopref bench NAME`: run one benchmark, show its rows as measured against target, keep them as bench.json."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from robopref.arrays import InputError
from robopref.cli_errors import FAILURE, did_you_mean
from robopref.data.files import write_json

_TOOLS = {"dial_table", "experts", "faults_table", "rewards_table", "table", "vla_table"}
"""Modules of the folder that make tables and measure nothing."""


def available() -> list[str]:
    """Names of the benchmarks that are installed."""
    package = import_module("robopref.benchmarks")
    names = [module.name for module in iter_modules(package.__path__)]
    return sorted(name for name in names if name not in _TOOLS and not name.startswith("_"))


def bench(name: str, quick: bool, out: Path | None) -> int:
    """Run benchmark `name`, print its table, write out/bench.json; 0 when every row reached its target, else 1."""
    known = available()
    if name not in known:
        raise InputError(f"bench: unknown benchmark {name!r}.{did_you_mean(name, known)}\nKnown: {', '.join(known)}.")
    rows: dict[str, dict[str, Any]] = import_module(f"robopref.benchmarks.{name}").run(quick)
    _show(name, rows)
    if out is not None:
        write_json(out / "bench.json", rows)
    return 0 if all(row.get("ok", True) for row in rows.values()) else FAILURE


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
