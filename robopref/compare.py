"""`robopref compare`: many runs, paired by reset, every task shown on its own and as an equal share of the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.data.files import atomic_file, write_json, write_text
from robopref.stages.report import read_run
from robopref.stages.verdict import p_value, percent, points, shown_order
from robopref.statistics import clustered_bootstrap, paired_test, sign_flip_test, stratified_bootstrap_iqm

_DEEP = 4
"""How far below a given folder runs are looked for (a multirun nests date, time and job)."""


@dataclass(frozen=True)
class Run:
    """The outcomes of one (task, seed): what every policy did on the same resets, in the same order."""

    task: str
    seed: int
    resets: tuple[int, ...]
    success: Mapping[str, np.ndarray]
    """policy -> (n,) of 0 and 1."""


def compare(folders: Sequence[Path], out: Path) -> str:
    """Write compare.json, compare.md and compare.png into `out`; returns the text of compare.md.

    Raises `InputError` when a folder holds no run, or runs that should be paired were evaluated on different resets.
    """
    paths = find_runs(folders)
    runs = read_runs(paths)
    result = summarise(runs) | {"runs": [str(path) for path in paths]}
    text = markdown(result)
    write_json(out / "compare.json", result)
    write_text(out / "compare.md", text)
    _plot(result, out / "compare.png")
    return text


def find_runs(folders: Sequence[Path]) -> list[Path]:
    """The run folders among and below `folders`, each once."""
    found: dict[Path, Path] = {}
    for folder in folders:
        here = [folder] if (folder / "metrics.json").is_file() else []
        for depth in range(1, _DEEP + 1) if not here else ():
            here += sorted(path.parent for path in folder.glob("*/" * depth + "metrics.json"))
        if not here:
            raise InputError(f"{folder}: got no metrics.json in or below it, wanted finished runs.\nCheck the path.")
        for path in here:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """One `Run` per (task, seed). Where several folders share one, their policies stand side by side, named by experiment."""
    read = [(path, *read_run(path)) for path in paths]
    for path, _, outcomes in read:
        if not outcomes.get("seeds") or not outcomes.get("success"):
            raise InputError(
                f"{path}: got no evaluation/outcomes.json, wanted what each policy did on each reset.\n"
                "Evaluate the run again: stages=[evaluate,report]."
            )
    suffix = _suffixes([(path, metrics) for path, metrics, _ in read])
    runs: dict[tuple[str, int], Run] = {}
    for path, metrics, outcomes in read:
        key, resets = (str(metrics["task"]), int(metrics["seed"])), tuple(outcomes["seeds"])
        named = {name + suffix[path]: np.asarray(values, float) for name, values in outcomes["success"].items()}
        if any(len(values) != len(resets) for values in named.values()):
            raise InputError(f"{path}: got outcomes of another length than the resets. Evaluate the run again.")
        old = runs.get(key)
        if old is not None and old.resets != resets:
            raise InputError(
                f"{path}: got other evaluation resets than another run of {key[0]}, seed {key[1]}.\n"
                "Runs can be paired only on the same resets; compare them one by one."
            )
        if old is not None and (twice := sorted(old.success.keys() & named.keys())):
            raise InputError(
                f"{path}: got {', '.join(twice)} of {key[0]}, seed {key[1]} twice, wanted every policy once.\n"
                "Give each run once, or compare them one by one."
            )
        runs[key] = Run(*key, resets, {**(old.success if old else {}), **named})
    return list(runs.values())


def _suffixes(read: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[Path, str]:
    """What to add to policy names so that two runs of one (task, seed) stay apart: nothing, the experiment, or the folder."""
    keys = [(metrics["task"], metrics["seed"]) for _, metrics in read]
    if len(set(keys)) == len(keys):
        return {path: "" for path, _ in read}
    experiments = [(*key, metrics["experiment"]) for key, (_, metrics) in zip(keys, read, strict=True)]
    if len(set(experiments)) == len(experiments):
        return {path: f" @ {metrics['experiment'] or path.name}" for path, metrics in read}
    tails = _tails([path for path, _ in read])
    return {path: f" @ {tail}" for (path, _), tail in zip(read, tails, strict=True)}


def _tails(paths: Sequence[Path]) -> list[str]:
    """The ends of paths, each as short as tells all of them apart."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({one[-depth:] for one in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(one[-depth:]) for one in parts]


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """Per policy: rates by task, mean and interquartile mean. Per pair: difference, interval, p-values. JSON-ready."""
    names = shown_order({name: None for run in runs for name in run.success})
    tasks = list(dict.fromkeys(run.task for run in runs))
    pairs = [(a, b) for a in names for b in names if a != b and _wanted(a, b)]
    return {
        "tasks": tasks,
        "policies": {name: _policy([run for run in runs if name in run.success], name) for name in names},
        "tests": [test for a, b in pairs if (test := _test(runs, a, b)) is not None],
    }


def _wanted(a: str, b: str) -> bool:
    """Every policy against its base, aligned against every baseline, and equally named policies of two experiments."""
    (left, _, mine), (right, _, theirs) = a.partition(" @ "), b.partition(" @ ")
    if mine != theirs:
        return left == right and a > b
    return right == "base" or left == "aligned"


def _policy(runs: Sequence[Run], name: str) -> dict[str, Any]:
    """Rates of one policy; the mean counts every task the same, the interval resamples seeds and then resets."""
    tasks = list(dict.fromkeys(run.task for run in runs))
    by_task = {task: [run.success[name] for run in runs if run.task == task] for task in tasks}
    mean, lo, hi = clustered_bootstrap([run.success[name] for run in runs], [run.task for run in runs])
    iqm, iqm_lo, iqm_hi = stratified_bootstrap_iqm([[values.mean() for values in part] for part in by_task.values()])
    iqm_ci95 = [iqm_lo, iqm_hi] if len(runs) > 1 else None  # a single value resampled is always itself
    rates = {}
    for task, part in by_task.items():
        rate, low, high = clustered_bootstrap(part)
        rates[task] = {"success_rate": rate, "ci95": [low, high], "runs": len(part), "episodes": sum(map(len, part))}
    return {"mean": mean, "ci95": [lo, hi], "iqm": iqm, "iqm_ci95": iqm_ci95, "runs": len(runs), "tasks": rates}


def _test(runs: Sequence[Run], a: str, b: str) -> dict[str, Any] | None:
    """The paired difference a - b over the runs that have both; None if none has."""
    both = [run for run in runs if a in run.success and b in run.success]
    if not both:
        return None
    tasks = list(dict.fromkeys(run.task for run in both))
    per_task: dict[str, dict[str, Any]] = {}
    for task in tasks:
        part = [run for run in both if run.task == task]
        difference, lo, hi = clustered_bootstrap([run.success[a] - run.success[b] for run in part])
        first, second = (np.concatenate([run.success[name] for run in part]) for name in (a, b))
        per_task[task] = {
            "difference": difference,
            "ci95": [lo, hi],
            "p_value": paired_test(first, second),
            "runs": len(part),
        }
    differences = [run.success[a] - run.success[b] for run in both]
    # Every task the same weight, inside it every run, inside that every reset: as in the estimate.
    weight = [1 / (len(tasks) * per_task[run.task]["runs"] * len(run.resets)) for run in both]
    resets = np.repeat(weight, [len(values) for values in differences])
    estimate, low, high = clustered_bootstrap(differences, [run.task for run in both])
    single = per_task[tasks[0]]["p_value"] if len(tasks) == 1 else sign_flip_test(np.concatenate(differences), resets)
    means = [values.sum() * w for values, w in zip(differences, weight, strict=True)]
    return {
        "a": a, "b": b, "difference": estimate, "ci95": [low, high], "p_value": single,
        "p_value_runs": sign_flip_test(means) if len(both) > 1 else None,
        "runs": len(both), "episodes": sum(map(len, differences)), "tasks": per_task,
    }  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """The tables of a comparison, as text that also reads well in a terminal."""
    tasks = result["tasks"]
    rates = [["policy", "runs", *tasks, "mean", "95% interval", "IQM"]]
    for name, policy in result["policies"].items():
        cells = [percent(policy["tasks"][task]["success_rate"]) if task in policy["tasks"] else "" for task in tasks]
        interval = f"{percent(policy['ci95'][0])} to {percent(policy['ci95'][1])}"
        rates.append([name, str(policy["runs"]), *cells, percent(policy["mean"]), interval, percent(policy["iqm"])])
    tests = [["comparison", "runs", "difference", "95% interval", "p (resets)", "p (runs)"]]
    for test in result["tests"]:
        tests.append(_test_row(f"{test['a']} − {test['b']}", test, test["p_value_runs"]))
        if len(test["tasks"]) > 1:
            tests += [_test_row(f"  on {task}", one, None) for task, one in test["tasks"].items()]
    partial = [name for name, policy in result["policies"].items() if len(policy["tasks"]) < len(tasks)]
    # A mean over other tasks is another quantity; an empty cell alone is easy to overlook.
    warning = f"Not comparable by their mean, since they lack tasks: {', '.join(partial)}.\n" if partial else ""
    return (
        f"## Success\n\n{_table(rates)}\nEvery task counts the same. Intervals resample training seeds, then resets.\n"
        f"{warning}\n"
        f"## Differences in points, paired by reset\n\n{_table(tests)}\n"
        "p (resets): these trained policies on new resets (exact McNemar for one task, else sign flips).\n"
        "p (runs): newly trained policies, whole runs as the unit; few runs cannot make it small.\n"
    )


def _test_row(name: str, test: Mapping[str, Any], runs_p: float | None) -> list[str]:
    interval = f"{points(test['ci95'][0])} to {points(test['ci95'][1])}"
    short = ["" if p is None else p_value(p).removeprefix("p = ").removeprefix("p ") for p in (test["p_value"], runs_p)]
    return [name, str(test["runs"]), points(test["difference"]), interval, *short]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (width + 2 - bool(i)) + ":" * bool(i) for i, width in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]]) + "\n"


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]


def _plot(result: Mapping[str, Any], path: Path) -> None:
    """Left: mean success of every policy. Right: paired differences. Dots are tasks, lines are 95% intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    policies, tests = result["policies"], result["tests"]
    height = 1.2 + 0.34 * max(len(policies), len(tests), 2)
    figure = Figure(figsize=(11, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    rows = [(n, p["mean"], p["ci95"], [t["success_rate"] for t in p["tasks"].values()]) for n, p in policies.items()]
    _forest(left, rows, "success, % (mean over tasks)")
    left.set_xlim(0, 100)
    rows = [
        (f"{t['a']} − {t['b']}", t["difference"], t["ci95"], [one["difference"] for one in t["tasks"].values()])
        for t in tests
    ]
    _forest(right, rows, "difference, points (paired by reset)")
    right.axvline(0, color="#888", linewidth=0.8, zorder=0)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _forest(axes: Any, rows: Sequence[tuple[str, float, Sequence[float], Sequence[float]]], xlabel: str) -> None:
    for y, (name, middle, (lo, hi), tasks) in enumerate(rows):
        colour = "#0b7a5e" if name.startswith("aligned") and "no_pairs" not in name.split(" ")[0] else "#5b6270"
        axes.plot([100 * lo, 100 * hi], [y, y], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(100 * middle, y, "o", color=colour, markersize=7)
        if len(tasks) > 1:
            axes.plot(
                [100 * value for value in tasks], [y + 0.22] * len(tasks), ".", color=colour, alpha=0.45, markersize=4
            )
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", color="#e2e1db", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
