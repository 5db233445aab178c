"""Flipped training labels: reward learners on the same 500 pairs, clean and with a share turned round, judged on the same clean pairs.

`robopref run experiment=noise task=TASK seed=S out=DIR`. Every fit is a piece of its own, so a run that was killed continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref import statistics
from robopref.checkpoint import save
from robopref.data.files import read_json, write_json
from robopref.data.preferences import Pair, PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.learners.reward import correct
from robopref.stages import label, offline, reward_page
from robopref.stages.diagnostics import reliability
from robopref.stages.environments import dims_of
from robopref.stages.folders import in_order
from robopref.stages.label_models import collect
from robopref.stages.reward_quality import fit_and_judge, questions
from robopref.stages.units import unit

Config = dict[str, Any]
FOLDERS = {"collect": ("episodes",), "reward": ("labels", "rewards", "figures", "report.html", "metrics.json")}


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept."""
    dims_of(config["env"])
    in_order(
        config, out, FOLDERS, {"collect": lambda: collect(config, out), "reward": lambda: rewards(config, out, command)}
    )


def rewards(config: Config, out: Path, command: str) -> None:
    """Answers by return about whole episodes, one fit per cell of `noise.cells`, and metrics.json with paired differences."""
    store = TrajectoryStore(out / "episodes" / "store")
    trajectories, settings = store.load(), config["noise"]

    def ask(_: Path) -> dict[str, Any]:
        new = label.ask(store, trajectories, config["labeler"], settings["asked"], config["seed"], "return")
        return {"asked": new}

    asked = unit(out / "labels", ask)["asked"]
    pairs = [p for p in PreferenceStore(store).pairs() if p.answered]
    made: dict[str, Any] = {}
    for name, cell in settings["cells"].items():

        def make(partial: Path, cell: Config = cell) -> dict[str, Any]:
            own = {**config, "reward": settings["rewards"][cell["reward"]], "label_flips": cell["flips"]}
            model, found, curves = fit_and_judge(own, trajectories, pairs, config["pairs"])
            save(model, partial / "model", {"pairs": found["train"]["pairs"]})
            return {**found, "reward": cell["reward"], "prob": curves["held out"][0].round(6).tolist()}

        made[name] = unit(out / "rewards" / name, make)
    _, judged = questions(config, trajectories, pairs, config["pairs"])
    truth = np.array([p.prob_first for p in judged])
    prob = {name: np.array(one["prob"]) for name, one in made.items()}
    picture = reliability(out / "figures" / "calibration.png", {name: (p, truth) for name, p in prob.items()})
    write_json(
        out / "metrics.json",
        offline.head(config, command)
        | {
            "labels_asked": asked,
            "cells": {name: {k: v for k, v in one.items() if k != "prob"} for name, one in made.items()},
            "differences": {f"{a} - {b}": difference(prob[a], prob[b], judged) for a, b in settings["compare"]},
            "policies": {},
        },
    )
    metrics = read_json(out / "metrics.json")
    table = reward_page.quality_table("Clean held-out pairs", {k: v["held_out"] for k, v in metrics["cells"].items()})
    reward_page.write(out, f"Flipped labels: {config['task']}, seed {config['seed']}", [table], [picture], command)
    show(metrics)


def difference(one: np.ndarray, other: np.ndarray, judged: list[Pair]) -> dict[str, Any]:
    """Accuracy and Brier score of one model less those of another on the same pairs (N,), each with a 95% interval over episodes.

    A probability of exactly 0.5 is half right. The interval speaks of these two fitted models, not of other training labels.
    """
    truth = np.array([p.prob_first for p in judged])
    first, second = (
        np.array([w.episode for w in side]) for side in zip(*((p.first, p.second) for p in judged), strict=True)
    )
    right = [correct(p, truth) for p in (one, other)]
    brier = [np.square(p - truth) for p in (one, other)]
    decided = truth != 0.5
    made = {}
    for name, (a, b), rows in (("accuracy", right, decided), ("brier", brier, np.ones(len(truth), bool))):
        value, low, high = statistics.paired_nodes_bootstrap((a - b)[rows], first[rows], second[rows])
        made[name] = {"difference": value, "ci95": [low, high]}
    return made


def show(metrics: Config) -> None:
    """The cells and differences of metrics.json, one a line."""
    for name, one in metrics["cells"].items():
        held = one["held_out"]
        print(
            f"{name:>22}: accuracy {held['accuracy']:.3f}, ECE {held['ece']:.3f}, Brier {held['brier']:.3f}, "
            f"flips estimated {one['flip_estimate']:.2f}, n={held['pairs']}", flush=True,
        )  # fmt: skip
    for name, one in metrics["differences"].items():
        low, high = one["accuracy"]["ci95"]
        print(f"{name}: accuracy {one['accuracy']['difference']:+.3f} [{low:+.3f}, {high:+.3f}]", flush=True)
