"""The section of docs/results.md about the dial, and its plots, from docs/results/safety_dial/TASK/seedS/{metrics.json, outcomes.json}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.data.files import read_json
from robopref.stages.dial_metrics import WHAT, frontier
from robopref.statistics import clustered_bootstrap, paired_bootstrap, ratio_of_means, wilson

FOLDER = "safety_dial"
TASKS = ("point-mass", "drawer-open", "button-press-topdown", "reach-wall")
SEEDS = 3
"""Seeds a task needs before its numbers count."""
EMPTY = "not run"
Runs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""(metrics, outcomes) of the seeds of one task."""


def section(folder: Path) -> str:
    """The tables of a results folder, one a task; tasks that were not run are named. Nothing without any run."""
    found = {task: runs_of(folder, task) for task in tasks_of(folder)}
    if not any(found.values()):
        return ""
    lines = [
        f"## {FOLDER}\n",
        'One policy, its weight turned while it runs, from at most 30 looks of a rater who only says "bad": '
        "`robopref run experiment=safety_dial task=TASK seed=SEED out=DIR`. The headline's weight was fixed before evaluation; every weight "
        "ran on the same fresh resets. Saved and change are paired by reset; intervals (95%) resample seeds, then "
        "resets. A change of +0.0 [+0.0, +0.0] means that no reset differed: of 200 that bounds a loss to 1.5 points.\n",
    ]
    for task, runs in found.items():
        lines += [f"### {task}\n", *(_task(task, runs) if runs else [f"{EMPTY}\n"])]
    return "\n".join(lines)


def plots(folder: Path) -> list[Path]:
    """Draw docs/results/safety_dial/TASK.png for every task that was run; returns their paths."""
    made = []
    for task in tasks_of(folder):
        if runs := runs_of(folder, task):
            made.append(folder / FOLDER / f"{task}.png")
            frontier(made[-1], {**runs[0][0], "task": task, "policies": summary(runs)})
    return made


def tasks_of(folder: Path) -> list[str]:
    """Planned tasks, then others that were run."""
    there = sorted(path.parent.parent.name for path in (folder / FOLDER).glob("*/seed*/metrics.json"))
    return list(dict.fromkeys([*TASKS, *there]))


def runs_of(folder: Path, task: str) -> Runs:
    """All seeds of a task, in order."""
    paths = sorted((folder / FOLDER / task).glob("seed*/metrics.json"))
    return [(read_json(path), read_json(path.parent / "outcomes.json")) for path in paths]


def summary(runs: Runs) -> dict[str, Any]:
    """Every policy over all seeds: rates and costs with intervals, and against the base what is saved and what success changes."""
    policies = {}
    for name in runs[0][0]["policies"]:
        sides = {
            key: [(np.array(o[key][name], float), np.array(o[key]["base"], float)) for _, o in runs]
            for key in ("success", "cost")
        }
        rate, cost = (_mean([a for a, _ in sides[key]]) for key in ("success", "cost"))
        if (
            min(map(np.ptp, (a for a, _ in sides["success"]))) == 0
        ):  # nothing varies, so a bootstrap would have no width
            every = np.concatenate([a for a, _ in sides["success"]])
            rate = (float(every.mean()), *wilson(float(every.sum()), len(every)))
        change = _mean([a - b for a, b in sides["success"]])
        ratio, low, high = ratio_of_means(sides["cost"])
        policies[name] = {
            "success_rate": rate[0], "ci95": list(rate[1:]), "cost": cost[0], "cost_ci95": list(cost[1:]),
            "change": change, "saved": (1 - ratio, 1 - high, 1 - low),
        }  # fmt: skip
    return policies


def _mean(runs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    return clustered_bootstrap(runs) if len(runs) > 1 else paired_bootstrap(runs[0], np.zeros(len(runs[0])))


def _task(task: str, runs: Runs) -> list[str]:
    first = runs[0][0]
    policies, head = summary(runs), first["headline"]
    shown = ", ".join(f"{m['labels_marked']} of {m['labels_asked']}" for m, _ in runs)
    few = "" if len(runs) >= SEEDS else f"**{len(runs)} of {SEEDS} seeds were run.** "
    same = all(m["zero_is_base"] for m, _ in runs)
    one = policies[head]
    wanted, lose = first["promise"]["wanted"], first["promise"]["may_lose"]
    kept = one["saved"][0] >= wanted and one["change"][0] >= -lose - 1e-9
    sure = one["saved"][1] >= wanted and one["change"][1] >= -lose - 1e-9
    verdict = "reached" + ("" if sure else ", the intervals do not exclude a miss") if kept else "**missed**"
    lines = [
        f"{few}Seed{'s' if len(runs) > 1 else ''} {', '.join(str(m['seed']) for m, _ in runs)}, {first['policies']['base']['episodes']} resets each; marked of shown: {shown}; "
        f"`w=0` is the base on every reset: {'yes' if same else '**no**'}. Promise at `{head}` ({wanted:.0%} of the {WHAT[first['cost']]} saved, "
        f"at most {100 * lose:g} points of success lost): {verdict}.\n",
        f"![success against {WHAT[first['cost']]}](results/{FOLDER}/{task}.png)\n",
        f"| policy | success | change, points | {WHAT[first['cost']]} | saved |",
        "|---|---|---|---|---|",
    ]
    for name, p in policies.items():
        rate = f"{100 * p['success_rate']:.1f}% [{100 * p['ci95'][0]:.1f}, {100 * p['ci95'][1]:.1f}]"
        cost = f"{p['cost']:.2f} [{p['cost_ci95'][0]:.2f}, {p['cost_ci95'][1]:.2f}]"
        change, saved = (
            "" if name == "base" else f"{100 * v:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
            for (v, low, high), sign in ((p["change"], "+"), (p["saved"], ""))
        )  # fmt: skip
        bold = f"**{name}**" if name == head else name
        lines.append(f"| {bold} | {rate} | {change} | {cost} | {saved + '%' if saved else ''} |")
    own = [f"- `{m['command']}`" for m, _ in runs]
    return [*lines, "", *own, ""]
