"""Leak-free cross-validation of reward learners on a file of human comparisons: `robopref run experiment=human_labels dataset=FILE.npz`.

A pair is judged by models that saw no demonstration of it. Where pairs fall into components of shared frames, components are left out
whole; where they do not, every training pair that touches a left-out demonstration is left out too, and how many remain is said.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref import statistics
from robopref.arrays import InputError
from robopref.data.comparisons import Comparisons, check_disjoint
from robopref.data.files import locked, write_json
from robopref.data.foreign import read_npz
from robopref.learners.reward import FitSettings, correct, fit_reward, probabilities, quality
from robopref.progress import track
from robopref.stages import offline, reward_page
from robopref.stages.diagnostics import reliability
from robopref.stages.folders import claim
from robopref.stages.parallel import spread
from robopref.stages.units import unit
from robopref.types import Dims

Config = dict[str, Any]


def run(config: Config, out: Path, command: str) -> None:
    """Cross-validate every reward of `human.rewards`; writes metrics.json, predictions.json, config.yaml, report.html.

    A run that was killed continues; one on another file or with other settings is refused its folder.
    """
    if not config["dataset"]:
        raise InputError("human_labels: got no dataset, wanted dataset=FILE.npz, a file of human comparisons.")
    if (out / "metrics.json").exists():
        raise InputError(f"out={out}: holds results already, wanted a new folder. Choose another out=DIR.")
    given = read_npz(Path(config["dataset"]))
    other = read_npz(Path(config["human"]["judged"])) if config["human"]["judged"] else None
    if other is not None:
        check_disjoint(given, other)
    with locked(out):
        claim(config, out)
        _judge(config, given, other, out, command)


def _judge(config: Config, given: Comparisons, other: Comparisons | None, out: Path, command: str) -> None:
    begin, human, name_of_file = time.perf_counter(), config["human"], Path(config["dataset"]).stem
    calls = [(config, out, name, repetition) for repetition in range(human["repetitions"]) for name in human["rewards"]]
    made = list(track(spread(_kept, calls, config["workers"]), "cross-validation", len(calls)))
    predicted: dict[str, list[np.ndarray]] = {}
    for (_, _, name, _), prob in zip(calls, made, strict=True):
        predicted.setdefault(name, []).append(np.array(prob))
    found = {name: summary(given, np.stack(rows), config["seed"]) for name, rows in predicted.items()}
    data = describe(given, human["folds"])
    elsewhere = {} if other is None else {"judged": judged_elsewhere(config, given, other)}
    metrics = offline.head({**config, "target": name_of_file}, command) | {
        "labels_asked": len(given), "episodes_judged": data["demonstrations"], "policies": {}, "tests": [],
        "data": data, "cross_validation": found, "baselines": baselines(given),
        "headline": human["headline"], **elsewhere, "seconds": {"cross_validation": round(time.perf_counter() - begin, 1)},
    }  # fmt: skip
    write_json(out / "predictions.json", {name: np.stack(rows).round(4).tolist() for name, rows in predicted.items()})
    picture = reliability(
        out / "figures" / "calibration.png",
        {n: (np.concatenate(r), np.tile(given.prob_first, len(r))) for n, r in predicted.items()},
    )
    tables = [reward_page.quality_table("Leak-free cross-validation", found)]
    if elsewhere:
        tables.append(reward_page.quality_table(f"Judged on {Path(human['judged']).stem}", elsewhere["judged"]))
    reward_page.write(out, f"Human labels: {name_of_file}", tables, [picture], command)
    write_json(out / "metrics.json", metrics)
    for name, one in found.items():
        accuracy = "undecided" if one["accuracy"] is None else f"{one['accuracy']:6.1%}"
        print(
            f"{name:>16}: {accuracy}  [{one['ci95'][0]:.0%}, {one['ci95'][1]:.0%}]  ECE {one['ece']:.3f}  n={one['decided']}",
            flush=True,
        )


def summary(given: Comparisons, prob: np.ndarray, seed: int) -> dict[str, Any]:
    """accuracy over repetitions (R, N), with an interval that resamples components of pairs; ece, brier, each repetition's accuracy.

    Where every pair is a tie there is no accuracy (None).
    """
    decided = given.prob_first != 0.5
    right = correct(prob, given.prob_first)[:, decided]  # (R, n)
    groups = given.components()[decided]
    share = right.mean(axis=0)
    low, high = _interval(share, groups, seed)
    each = [quality(row, given.prob_first) for row in prob]
    return {
        "accuracy": float(right.mean()) if decided.any() else None, "ci95": [low, high], "decided": int(decided.sum()),
        "ece": float(np.mean([e["ece"] for e in each])), "brier": float(np.mean([e["brier"] for e in each])),
        "repetitions": [e["accuracy"] for e in each],
    }  # fmt: skip


def judged_elsewhere(config: Config, given: Comparisons, other: Comparisons) -> dict[str, Any]:
    """`summary` of every reward on another file that shares no pair with `given`, which it is fitted to as a whole, once a repetition."""
    seeds = [100 * config["seed"] + repetition for repetition in range(config["human"]["repetitions"])]
    return {
        name: summary(other, np.stack([_predicted(config, reward, given, other, 1000 * s + 999) for s in seeds]), config["seed"])
        for name, reward in config["human"]["rewards"].items()
    }  # fmt: skip


def _interval(share: np.ndarray, groups: np.ndarray, seed: int) -> tuple[float, float]:
    """95% interval of the mean over pairs (n,) when components are drawn anew; of a single component, Wilson's over pairs,
    which is too sure of itself where demonstrations repeat."""
    names = np.unique(groups)
    if len(names) < 2:
        return statistics.wilson(float(share.sum()), len(share))
    total = np.array([share[groups == g].sum() for g in names])
    count = np.array([(groups == g).sum() for g in names])
    drawn = np.random.default_rng(seed).integers(0, len(names), (10_000, len(names)))
    low, high = np.quantile(total[drawn].sum(axis=1) / count[drawn].sum(axis=1), [0.025, 0.975])
    return float(low), float(high)


def baselines(given: Comparisons) -> dict[str, float | None]:
    """Accuracy of rules that learn nothing: the commoner side, and "the smoother one wins"; None where every pair is a tie."""
    decided = given.prob_first != 0.5
    if not decided.any():
        return {"commoner_side": None, "jitter_rule": None}
    label = given.prob_first[decided]
    first = float((label > 0.5).mean())
    one, other = (
        np.square(np.diff(a[decided], axis=1)).sum(axis=(1, 2)) for a in (given.first_action, given.second_action)
    )
    smoother = 0.5 + 0.5 * np.sign(other - one)
    return {"commoner_side": max(first, 1 - first), "jitter_rule": float(correct(smoother, label).mean())}


def describe(given: Comparisons, folds: int) -> dict[str, Any]:
    """What the file holds, and how many pairs train and judge in a fold."""
    parts = partition(given, folds, np.random.default_rng(0))
    return {
        "pairs": len(given), "ties": int((given.prob_first == 0.5).sum()), "components": len(np.unique(given.components())),
        "demonstrations": int(given.demonstrations().max()) + 1, "folds": len(parts),
        "least_training_pairs": min(len(train) for train, _ in parts),
    }  # fmt: skip


def partition(given: Comparisons, folds: int, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, judged rows) of each fold; every pair is judged once, by pairs that share no demonstration with it."""
    component = given.components()
    names, sizes = np.unique(component, return_counts=True)
    if len(names) >= folds and sizes.max() <= len(given) / 3:
        place = np.zeros(folds, dtype=int)
        fold_of = np.zeros(len(names), dtype=int)
        for name in rng.permutation(len(names)):  # each component into the emptiest fold
            fold_of[name] = int(place.argmin())
            place[fold_of[name]] += sizes[name]
        groups = [np.flatnonzero(fold_of[component] == f) for f in range(folds)]
    else:
        groups = [np.sort(g) for g in np.array_split(rng.permutation(len(given)), 2 * folds) if len(g)]
    demonstration = given.demonstrations()
    made = []
    for judged in groups:
        touched = np.isin(demonstration, demonstration[:, judged]).any(axis=0)
        made.append((np.flatnonzero(~touched), judged))
    return [(train, judged) for train, judged in made if len(judged)]


def _kept(config: Config, out: Path, name: str, repetition: int) -> list[float]:
    """One repartition for one reward, kept in the run folder: a run that was killed continues."""

    def make(_: Path) -> dict[str, Any]:
        return {"prob": _repetition(config, config["human"]["rewards"][name], repetition)}

    prob: list[float] = unit(out / "repetitions" / f"{name}-{repetition}", make)["prob"]
    return prob


def _repetition(config: Config, reward: Config, repetition: int) -> list[float]:
    """P(first) of every pair in one repartition."""
    given = read_npz(Path(config["dataset"]))
    seed = 100 * config["seed"] + repetition
    parts = partition(given, config["human"]["folds"], np.random.default_rng([seed, 23]))
    prob = np.full(len(given), 0.5)
    for number, (train, judged) in enumerate(parts):
        if len(train) == 0:
            continue  # every pair touches a left-out demonstration: nothing can be said, and 0.5 says so
        prob[judged] = _predicted(config, reward, given[train], given[judged], 1000 * seed + number)
    return [float(p) for p in prob]


def _predicted(config: Config, reward: Config, train: Comparisons, judged: Comparisons, seed: int) -> np.ndarray:
    """P(first) of the judged pairs (N,) by a reward fitted to others; pairs of one component are left out of a member together."""
    from hydra.utils import instantiate

    torch.manual_seed(seed)
    batch = train.batch()
    dims = Dims(batch.first.observation.shape[-1], batch.first.action.shape[-1])
    model = instantiate(reward, _partial_=True)(dims=dims)
    groups = torch.from_numpy(train.components())
    settings = FitSettings(**config["reward_protocol"])
    for _ in fit_reward(model, batch, settings, torch.Generator().manual_seed(seed), groups):
        pass
    return probabilities(model, judged.batch())
