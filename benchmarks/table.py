"""docs/results.md from the committed metrics of every run: `python -m robopref.benchmarks.table`. Empty cells stay empty.

Reads docs/results/<experiment>/<task>/seed<k>/{metrics.json, evaluation/outcomes.json or outcomes.json}.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError
from robopref.compare import Run, markdown, summarise
from robopref.data.files import read_json, write_text
from robopref.stages.verdict import percent, points

from . import dial_table, faults_table, vla_table

TASKS = ("drawer-open", "button-press-topdown", "door-open", "sweep-into", "plate-slide", "bin-picking")
SEEDS = (1, 2, 3)
PLANNED = {"quickstart": (("drawer-open",), (0, 1, 2, 3, 4))}
"""experiment -> (tasks, seeds) that are to be run; others: `TASKS` and `SEEDS`."""
ALIGNED_PATH = ("collect", "pretrain", "align")
"""Stages whose seconds lead to the aligned policy; baselines and evaluation are timed apart."""
EMPTY = "not run"
HEADS = ("tokens", "diffusion", "flow", "gaussian")
"""Heads that one configuration has to lift."""
EVERY_HEAD = "every_head"
HEAD_TASKS, HEAD_SEED = TASKS[:3], 2
"""What every head is run on, fixed before the first of them ran."""
LEAST_GAIN, WIDEST = 0.25, 0.10
"""What is promised of the mean over tasks: every head gains at least the first, no two differ by more than the second."""
Cells = Mapping[tuple[str, int], tuple[Mapping[str, Any], Mapping[str, Any]]]
"""(task, seed) -> (metrics, outcomes)."""


def main(arguments: Sequence[str]) -> None:
    """Write the table beside the results folder (default docs/results -> docs/results.md)."""
    folder = Path(arguments[0] if arguments else "docs/results")
    write_text(folder.with_suffix(".md"), document(folder))
    print(folder.with_suffix(".md"), *dial_table.plots(folder))


def document(folder: Path) -> str:
    """The whole page: one section per experiment, the six tasks and three seeds first, whatever was run."""
    names = sorted(
        {path.relative_to(folder).parts[0] for path in folder.glob("*/*/seed*/metrics.json")} - {dial_table.FOLDER}
    )
    parts = [_section(name, cells(folder / name)) for name in names or ["align_metaworld"]]
    return (
        "# Results\n\nMade by `python -m robopref.benchmarks.table` from the files in `docs/results/`. "
        "What was looked at before these numbers were fixed: [notes](results/NOTES.md).\n\n"
        + "\n".join(
            [
                *parts,
                _every_head(folder),
                dial_table.section(folder),
                vla_table.section(folder),
                faults_table.section(folder),
            ]
        ).rstrip()
        + "\n"
    )


def cells(folder: Path) -> Cells:
    """The runs of one experiment. Raises `InputError` where a folder's name and its metrics disagree."""
    found: dict[tuple[str, int], tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for path in sorted(folder.glob("*/seed*/metrics.json")):
        metrics = read_json(path)
        task, seed = path.parent.parent.name, int(re.sub(r"\D", "", path.parent.name))
        if (_plain(metrics["task"]), metrics["seed"]) != (_plain(task), seed):
            raise InputError(f"{path}: got task {metrics['task']}, seed {metrics['seed']}, wanted those of its folder.")
        places = [path.parent / "evaluation" / "outcomes.json", path.parent / "outcomes.json"]
        outcomes: dict[str, Any] = next((read_json(place) for place in places if place.is_file()), {})
        found[_plain(task), seed] = metrics, outcomes
    return found


def _plain(task: str) -> str:
    return task.removesuffix("-v3")


def _section(experiment: str, runs: Cells) -> str:
    planned_tasks, planned_seeds = PLANNED.get(experiment, (TASKS, SEEDS))
    tasks = list(dict.fromkeys([*planned_tasks, *(task for task, _ in runs)]))
    seeds = sorted({*planned_seeds, *(seed for _, seed in runs)})
    lines = [
        f"## {experiment}\n",
        "Success of base → aligned on held-out resets, difference in points with its 95% paired interval, labels asked, "
        "minutes of the aligned path (baselines and evaluation are timed apart).\n",
        f"| task | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | command |",
        f"|---|{'---|' * (len(seeds) + 2)}",
    ]
    for task in tasks:
        row = [_cell(runs.get((task, seed))) for seed in seeds]
        done = [runs[task, seed][0] for seed in seeds if (task, seed) in runs]
        command = f"`robopref run experiment={experiment} task={task} seed=SEED out=DIR`"
        lines.append(f"| {task} | {' | '.join(row)} | {_mean(done)} | {command} |")
    missing = len(tasks) * len(seeds) - len(runs)
    lines.append(f"\n{missing} of {len(tasks) * len(seeds)} cells are empty.\n" if missing else "")
    own = sorted({str(metrics["command"]) for metrics, _ in runs.values() if metrics.get("command")})
    if own:
        lines.append(
            "Commands, with a relative result folder:\n\n" + "\n".join(f"- `{command}`" for command in own) + "\n"
        )
    paired = [
        Run(task, seed, tuple(outcomes["seeds"]), {k: np.asarray(v, float) for k, v in outcomes["success"].items()})
        for (task, seed), (_, outcomes) in runs.items()
        if outcomes
    ]
    if paired:
        lines.append(markdown(summarise(paired)).replace("## ", "### "))
    return "\n".join(lines)


def _every_head(folder: Path) -> str:
    """One configuration on every head: cells, means, and whether the promise is kept; nothing where no head was run."""
    runs = {head: dict(cells(folder / EVERY_HEAD / head)) for head in HEADS}
    if not any(runs.values()):
        return ""
    known = cells(
        folder / "align_metaworld"
    )  # the diffusion head is that experiment's own: the same cells, with more baselines
    own = {key: run for key, run in known.items() if key[1] == HEAD_SEED and key[0] in HEAD_TASKS}
    runs["diffusion"] = {**own, **runs["diffusion"]}
    lines = [
        f"## {EVERY_HEAD}\n",
        "The same configuration with another head, nothing tuned: `robopref run experiment=align_metaworld policy=HEAD task=TASK "
        f"seed={HEAD_SEED} workers=1 baselines=[] out=DIR`. The cells of `diffusion` are those of align_metaworld.\n",
        f"| head | {' | '.join(HEAD_TASKS)} | mean |",
        f"|---|{'---|' * (len(HEAD_TASKS) + 1)}",
    ]
    after, gains = {}, {}
    for head, found in runs.items():
        done = [found[task, HEAD_SEED][0] for task in HEAD_TASKS if (task, HEAD_SEED) in found]
        row = [_cell(found.get((task, HEAD_SEED))) for task in HEAD_TASKS]
        lines.append(
            f"| {head} | {' | '.join(row)} | {_mean(done).replace('seeds', 'tasks') if len(done) == len(HEAD_TASKS) else EMPTY} |"
        )
        if len(done) == len(HEAD_TASKS):
            rates = np.mean([[m["policies"][n]["success_rate"] for n in ("base", "aligned")] for m in done], axis=0)
            after[head], gains[head] = float(rates[1]), float(rates[1] - rates[0])
    missing = [head for head in HEADS if head not in after]
    if missing:
        lines.append(f"\nNothing can be said of all four yet: {', '.join(missing)} lack cells.\n")
    else:
        apart = max(after.values()) - min(after.values())
        lines.append(
            f"\nLeast gain {points(min(gains.values()))} points (at least {points(LEAST_GAIN)} promised), aligned policies {100 * apart:.1f} "
            f"points apart (at most {100 * WIDEST:g}): "
            f"{'kept' if min(gains.values()) >= LEAST_GAIN and apart <= WIDEST + 1e-9 else '**not kept**'}.\n"
        )
    return "\n".join(lines)


def _cell(run: tuple[Mapping[str, Any], Mapping[str, Any]] | None) -> str:
    if run is None:
        return EMPTY
    metrics = run[0]
    test = next((t for t in metrics.get("tests", []) if (t["a"], t["b"]) == ("aligned", "base")), None)
    if test is None:
        return "aligned was not evaluated"
    before, after = (percent(metrics["policies"][name]["success_rate"]) for name in ("base", "aligned"))
    lo, hi = (points(bound) for bound in test["ci95"])
    minutes = sum(metrics["seconds"].get(stage, 0.0) for stage in ALIGNED_PATH) / 60
    gain = f"**{points(test['difference'])}** [{lo}, {hi}]"
    return f"{before} → {after}, {gain}, {metrics['labels_asked']} labels, {minutes:.0f} min"


def _mean(done: Sequence[Mapping[str, Any]]) -> str:
    """Mean gain over the seeds that were run."""
    pairs = [
        (m["policies"]["base"]["success_rate"], m["policies"]["aligned"]["success_rate"])
        for m in done
        if "aligned" in m["policies"]
    ]
    if not pairs:
        return EMPTY
    before, after = np.mean(pairs, axis=0)
    return f"{percent(before)} → {percent(after)}, **{points(after - before)}** ({len(pairs)} seeds)"


if __name__ == "__main__":
    main(sys.argv[1:])
