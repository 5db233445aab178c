"""The section of docs/results.md about faults put into the loop, from docs/results/bench/faults/bench.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopref.data.files import read_json
from robopref.stages.verdict import percent

from ._faults import FAULTS, SEEDS, STRESSES


def section(folder: Path) -> str:
    """The tables of a results folder; empty where the benchmark was not run."""
    path = folder / "bench" / "faults" / "bench.json"
    if not path.is_file():
        return ""
    rows: Mapping[str, Mapping[str, Any]] = read_json(path)
    lines = [
        "## Faults put into the loop\n",
        "One round on the point mass, the fault put in from outside: `robopref bench faults out=docs/results/bench/faults`. Caught, fixed "
        "before the first run: the policy that stays is not significantly worse than the base (paired 95% interval over 400 fresh resets), "
        "and where the candidate is, the door, the guard, the gate or the choice said why. A fault that makes no candidate worse may be accepted.\n",
        _few(rows),
        "| fault | seeds | caught | by door / guard / gate / choice | accepted | candidate worse | stays worse | base → candidate, stays |",
        "|---|---|---|---|---|---|---|---|",
        *(_fault(FAULTS[name].what, row) for name, row in rows.items() if name in FAULTS),
        "\nCandidate worse, stays worse: seeds in which the interval lies below 0. An error at the door leaves no candidate.\n",
        "| stress | seeds | without it | with it | points lost | at most | reached |",
        "|---|---|---|---|---|---|---|",
        *(_stress(STRESSES[name].what, row) for name, row in rows.items() if name in STRESSES),
        "\nSuccess of the policies that stay; the interval resamples seeds, then resets.\n",
    ]
    return "\n".join(lines)


def _fault(what: str, row: Mapping[str, Any]) -> str:
    caught = round(row["measured"] * row["seeds"])
    candidate = "none" if row["candidate"] is None else percent(row["candidate"])
    return (
        f"| {what} | {row['seeds']} | {caught} of {row['seeds']} | {row['door']} / {row['guard']} / {row['gate']} / {row['choice']} | {row['accepted']} | "
        f"{row['candidate_worse']} | {row['stays_worse']} | {percent(row['base'])} → {candidate}, {percent(row['stays'])} |"
    )


def _stress(what: str, row: Mapping[str, Any]) -> str:
    low, high = row["ci95"]
    rates = f"{percent(row['without'])} | {percent(row['stays'])}"
    lost = f"{row['measured']:.1f} [{low:.1f}, {high:.1f}]"
    return f"| {what} | {row['seeds']} | {rates} | {lost} | {row['target']:g} | {'yes' if row['ok'] else '**no**'} |"


def _few(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """What is missing, before anything is shown: rows that were not run, and rows of fewer seeds than were promised."""
    absent = [name for name in (*FAULTS, *STRESSES) if name not in rows]
    few = {name: row["seeds"] for name, row in rows.items() if row["seeds"] < SEEDS}
    said = (
        f"**{len(few)} of {len(rows)} rows have fewer than {SEEDS} seeds, the least {min(few.values())}.** "
        if few
        else ""
    )
    return said + (f"Not run: {', '.join(absent)}. " if absent else "") + "\n"
