"""Policies from one set of stored episodes: arms that differ in what they are told is good, and the metrics of such a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.files import read_json, write_json
from robopref.data.windows import chunk_table, segments
from robopref.device import placed
from robopref.learners.clone import clone, fit_normalizer
from robopref.learners.iql import IQLSettings, iql
from robopref.stages.units import thin, unit, write_log
from robopref.types import Dims

Config = dict[str, Any]
STRIDE = 4
"""Reward models score every 4th step of an episode at a time (they were fitted so); four phases cover all steps."""


PLACES = {
    "collect": "episodes", "label": "labels", "reward": "rewards", "learn": "arms", "evaluate": "evaluation",
}  # fmt: skip
"""What took time -> where its finished pieces lie."""


@torch.no_grad()
def relabel(model: Any, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """Step rewards of a reward model for every step of each trajectory, (T,) each."""
    rewards = [np.zeros(len(t), dtype=np.float32) for t in trajectories]
    for phase in range(STRIDE):
        long = [i for i, t in enumerate(trajectories) if len(t) > phase]
        for start in range(0, len(long), 64):
            block = long[start : start + 64]
            made = model.score(
                segments([trajectories[i].window(phase, len(trajectories[i])) for i in block], STRIDE)
            ).numpy()
            for row, i in zip(made, block, strict=True):
                at = np.arange(phase, len(trajectories[i]), STRIDE)
                rewards[i][at] = row[: len(at)]
    return rewards


def scaled(rewards: Sequence[np.ndarray]) -> tuple[list[np.ndarray], dict[str, float]]:
    """Rewards brought to [0, 1] by their least and largest (an advantage scales with them, hence a temperature), and those two."""
    least, most = min(float(r.min()) for r in rewards), max(float(r.max()) for r in rewards)
    span = most - least if most > least else 1.0
    return [(r - least) / span for r in rewards], {"least": least, "most": most}


def rewards_of(kind: str | Path, trajectories: Sequence[Trajectory]) -> list[np.ndarray]:
    """Rewards named `true` (the simulator's), `zero`, or a reward model's folder."""
    if kind == "true":
        return [t.reward for t in trajectories]
    if kind == "zero":
        return [np.zeros(len(t), np.float32) for t in trajectories]
    return relabel(load(kind), trajectories)


def policy_of(config: Config, trajectories: Sequence[Trajectory]) -> tuple[Any, Any]:
    """A new policy with its normaliser fitted, and the chunk table of all steps."""
    from hydra.utils import instantiate

    torch.manual_seed(config["seed"])
    dims = Dims(trajectories[0].observation.shape[1], trajectories[0].action.shape[1])
    policy = placed(instantiate(config["policy"], _partial_=True)(dims=dims))
    table = chunk_table([replace(t, chunk=None, executed=None) for t in trajectories], policy.spec)
    fit_normalizer(policy, table)
    return policy, table


def train_arm(
    config: Config, trajectories: Sequence[Trajectory], kind: str | Path, folder: Path, name: str
) -> dict[str, Any]:
    """One policy into `folder`/policy: cloning (`clone`), or IQL on the rewards of `kind`."""
    policy, table = policy_of(config, trajectories)
    generator = torch.Generator().manual_seed(config["seed"])
    settings = config["iql"]
    kept: dict[str, float] = {}
    if kind == "clone":
        logs = clone(
            policy, table, steps=settings["steps"], lr=settings["lr"], batch=settings["batch"], generator=generator
        )
    else:
        rewards, kept = scaled(rewards_of(kind, trajectories))
        logs = iql(policy, trajectories, rewards, IQLSettings(**settings), generator)
    write_log(folder / "log.jsonl", thin(logs, 100, stage="learn", arm=name))
    save(policy, folder / "policy", {"arm": name, "trajectories": len(trajectories), "reward_scale": kept})
    return {"trajectories": len(trajectories)}


def arms(config: Config, trajectories: Sequence[Trajectory], wanted: dict[str, str | Path], folder: Path) -> None:
    """A policy for every arm: name -> `true`, `zero`, `clone`, or a reward model's folder."""
    for name, kind in wanted.items():

        def make(partial: Path, name: str = name, kind: str | Path = kind) -> dict[str, Any]:
            return train_arm(config, trajectories, kind, partial, name)

        unit(folder / name, make)


def head(config: Config, command: str) -> dict[str, Any]:
    """What every metrics.json of these experiments begins with."""
    return {
        "task": config["target"] or config["task"], "seed": config["seed"], "experiment": config["experiment"], "command": command,
        "labels_asked": 0, "episodes_judged": 0, "seconds": {}, "notes": [],
    }  # fmt: skip


def finish(
    config: Config,
    out: Path,
    table: dict[str, Any],
    summarise: Callable[[dict[str, Any]], Any],
    command: str,
    first: str,
) -> None:
    """Complete metrics.json with the outcomes: rates, and paired tests of the arm `first` against every other."""
    from robopref import statistics

    policies, _ = summarise(table)
    tests = []
    for other in policies:
        if other == first or first not in policies:
            continue
        a, b = np.array(table["success"][first]), np.array(table["success"][other])
        difference, low, high = statistics.paired_bootstrap(a, b)
        tests.append(
            {
                "a": first,
                "b": other,
                "difference": difference,
                "ci95": [low, high],
                "p_value": statistics.paired_test(a, b),
            }
        )
    before = read_json(out / "metrics.json") if (out / "metrics.json").exists() else head(config, command)
    logs = [p for p in sorted((out / "arms").rglob("log.jsonl")) if p.is_file()]
    (out / "log.jsonl").write_text("".join(p.read_text(encoding="utf-8") for p in logs), encoding="utf-8")
    took = {name: [read_json(p)["seconds"] for p in (out / place).rglob("done.json")] for name, place in PLACES.items()}
    seconds = {name: round(sum(each), 1) for name, each in took.items() if each}
    write_json(out / "metrics.json", {**before, "policies": policies, "tests": tests, "seconds": seconds})
    for name, one in policies.items():
        low, high = one["ci95"]
        print(f"{name:>17}: {one['success_rate']:6.1%}  [{low:.0%}, {high:.0%}]  n={one['episodes']}", flush=True)


def report(out: Path) -> None:
    """The self-contained page of a run."""
    from robopref.stages.report import report as write_report

    if not json.loads((out / "metrics.json").read_text(encoding="utf-8"))["policies"]:
        raise InputError(f"report: got no evaluated policy in {out}, wanted stages learn and evaluate before it.")
    print(f"report: {write_report(out)}", flush=True)
