"""The section of docs/results.md about policies that look and read, from docs/results/vla/NAME/metrics.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopref.data.files import read_json
from robopref.data.phrasings import SETS
from robopref.stages.verdict import percent, points

BASE, ALIGNED, LOST, TASKS = 0.5, 0.85, 0.03, 10
"""Targets: success of the base at most, of the aligned policy at least, what held-out phrasings may cost, tasks of one policy."""


def section(folder: Path) -> str:
    """The tables of every run; empty where there is none."""
    runs = {path.parent.name: read_json(path) for path in sorted((folder / "vla").glob("*/metrics.json"))}
    if not runs:
        return ""
    head = (
        "## vla\n\nOne policy that looks and reads, several Meta-World tasks, aligned by preferences. Success on held-out resets with 95% Wilson intervals; "
        "episodes of a set of phrasings share their resets with the other set. Intervals take episodes as independent and speak of one training run.\n"
    )
    return "\n".join([head, *(_run(name, one) for name, one in runs.items())])


def _run(name: str, metrics: Mapping[str, Any]) -> str:
    policies, tasks = metrics["policies"], metrics["tasks"]
    minutes = ", ".join(f"{stage} {s / 60:.0f}" for stage, s in metrics["seconds"].items())
    lines = [
        f"### {name}: {len(tasks)} tasks, {metrics['parameters'] / 1e6:.2f} million parameters\n",
        f"`{metrics['command']}`: {metrics['labels_asked']} labels, minutes of {minutes}. {_verdict(metrics)}\n",
        "| policy | trained phrasings | held-out phrasings | both |",
        "|---|---|---|---|",
        *(
            f"| {policy} | {' | '.join(_rate(one['phrasings'][which]) for which in SETS)} | {_rate(one)} |"
            for policy, one in policies.items()
        ),
        f"\n| task | {' | '.join(f'{policy}, {_set(which)}' for policy in policies for which in SETS)} |",
        "|---" * (1 + len(SETS) * len(policies)) + "|",
        *(
            f"| {task} | {' | '.join(_rate(one['tasks'][task][which]) for one in policies.values() for which in SETS)} |"
            for task in tasks
        ),
        "\n| difference | points | 95% interval | p (resets) |",
        "|---|---|---|---|",
        *(_test(one) for one in metrics["tests"]),
        *_sentences(policies.get("aligned", {}).get("sentences", {})),
        "",
    ]
    return "\n".join(lines)


def _verdict(metrics: Mapping[str, Any]) -> str:
    """What was promised and what was reached, in words."""
    before, after = (metrics["policies"][name]["success_rate"] for name in ("base", "aligned"))
    sets = metrics["policies"]["aligned"]["phrasings"]
    apart = sets["held_out"]["success_rate"] - sets["trained"]["success_rate"]
    checks = [
        (f"{len(metrics['tasks'])} tasks", f"{TASKS}", len(metrics["tasks"]) >= TASKS),
        (f"base {percent(before)}", f"at most {percent(BASE)}", before <= BASE),
        (f"aligned {percent(after)}", f"at least {percent(ALIGNED)}", after >= ALIGNED),
        (f"held-out minus trained phrasings {points(apart)} points", f"at least {points(-LOST)}", apart >= -LOST),
    ]
    return "; ".join(f"{got} (target {wanted}: {'yes' if ok else '**no**'})" for got, wanted, ok in checks) + "."


def _rate(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"{percent(one['success_rate'])} [{percent(low)}, {percent(high)}], n={one['episodes']}"


def _set(which: str) -> str:
    return which.replace("_", "-")


def _test(one: Mapping[str, Any]) -> str:
    low, high = (points(bound) for bound in one["ci95"])
    return f"| {one['a']} − {one['b']} | {points(one['difference'])} | {low} to {high} | {one['p_value']:.2g} |"


def _sentences(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """Success of the aligned policy by sentence."""
    if not found:
        return []
    rows = [f"| {task} | {said} | {_rate(one)} |" for task, every in found.items() for said, one in every.items()]
    return ["\n| task | aligned, asked to | success |", "|---|---|---|", *rows]
