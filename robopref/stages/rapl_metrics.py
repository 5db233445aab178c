"""What rewards of films are worth: rank correlation with the hidden score on held-out films, and how diagonal their couplings are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import Trajectory
from robopref.data.files import read_json, write_json
from robopref.data.windows import segments
from robopref.stages import offline, reward_page
from robopref.stages.diagnostics import film_plans, scatter
from robopref.transport.sinkhorn import concentration, diagonality
from robopref.types import Segments

Config = dict[str, Any]
NAMES = {"aligned": "", "pictured": "rlhf_", "untaught": "untaught_"}
"""Reward -> prefix of its numbers in metrics.json."""
SETS = {"held_out": "spearman", "other": "spearman_other_arm"}
RESAMPLES = 2000


def measure(
    config: Config, rewards: Mapping[str, Any], films: Mapping[str, Sequence[Trajectory]], out: Path, command: str
) -> None:
    """Score the held-out films of both arms by every reward; writes metrics.json and the pictures of couplings."""
    camera = config["rapl"]["camera"]
    reward: dict[str, Any] = {"triplets": config["pairs"], "demonstrations": len(films["preferred"])}
    table: dict[str, Any] = {}
    for where, key in SETS.items():
        listed = list(films[where])
        hidden = np.array([float(t.reward.sum()) for t in listed])
        every = segments(listed, cameras=(camera,))
        table[where] = {"hidden": hidden.round(4).tolist(), "behaviour": [t.policy for t in listed]}
        reward[f"{where}_films"] = len(listed)
        for name, model in rewards.items():
            predicted = _returns(model, every)
            table[where][name] = predicted.round(6).tolist()
            value, low, high = rank_correlation(predicted, hidden, config["seed"])
            reward[NAMES[name] + key], reward[f"{NAMES[name]}{key}_ci95"] = value, [low, high]
    coupled = couplings(rewards["aligned"], segments(list(films["held_out"]), cameras=(camera,)))
    hidden = np.array(table["held_out"]["hidden"])
    write_json(
        out / "metrics.json",
        offline.head(config, command)
        | {
            "labels_asked": config["pairs"], "reward": reward, "diagonality": coupled.summary(hidden, config["seed"]), "films": table,
            "success": {k: float(np.mean([t.succeeded for t in v])) for k, v in films.items()}, "policies": {},
            "arms": {"arm": config["env"], "other_arm": config["rapl"]["other_env"]},
        },
    )  # fmt: skip
    order = np.argsort(-hidden)
    shown = order[[0, len(order) // 3, 2 * len(order) // 3, -1]].tolist()
    named = [f"{name}: {hidden[i]:.1f}" for name, i in zip(("best", "good", "poor", "worst"), shown, strict=True)]
    film_plans(out / "figures" / "films.png", dict(zip(named, coupled.plan[shown], strict=True)))
    names = table["held_out"]["behaviour"]
    groups = {n: np.array([x == n for x in names]) for n in dict.fromkeys(names)}
    scatter(
        out / "figures" / "diagonality.png", {n: (hidden[rows], coupled.diagonal[rows]) for n, rows in groups.items()},
        "hidden preference score", "diagonality of the coupling",
    )  # fmt: skip
    show(read_json(out / "metrics.json"))


@dataclass(frozen=True)
class Couplings:
    """Plans of N films against the nearest preferred film of a reward."""

    plan: np.ndarray
    """(N, T, T')."""
    diagonal: np.ndarray
    """(N,), see `sinkhorn.diagonality`."""
    concentrated: np.ndarray
    """(N,), see `sinkhorn.concentration`."""

    def summary(self, hidden: np.ndarray, seed: int) -> dict[str, Any]:
        """Means over the better and the worse third of the films, and rank correlations with the hidden score (N,)."""
        third, order = max(1, len(hidden) // 3), np.argsort(-hidden)
        found: dict[str, Any] = {"films": len(hidden)}
        for name, values in (("diagonality", self.diagonal), ("concentration", self.concentrated)):
            value, low, high = rank_correlation(values, hidden, seed)
            found[name] = {
                "best_third": float(values[order[:third]].mean()), "worst_third": float(values[order[-third:]].mean()),
                "spearman": value, "ci95": [low, high],
            }  # fmt: skip
        return found


@torch.no_grad()
def couplings(model: Any, films: Segments) -> Couplings:
    """The plans of films against the preferred film that is nearest to each."""
    plan = torch.cat([model.nearest(films[rows])[0] for rows in torch.arange(len(films)).split(16)])
    return Couplings(plan.numpy(), diagonality(plan).numpy(), concentration(plan).numpy())


def rank_correlation(predicted: np.ndarray, hidden: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Spearman's correlation of (N,) with (N,), and its 95% interval over episodes (percentile bootstrap)."""
    from scipy.stats import rankdata

    def of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (rankdata(x, axis=-1) for x in (a, b))
        a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
        size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
        return np.where(size > 0, (a * b).sum(-1) / np.maximum(size, 1e-12), 0.0)

    rows = np.random.default_rng([seed, 47]).integers(0, len(hidden), (RESAMPLES, len(hidden)))
    low, high = np.quantile(of(predicted[rows], hidden[rows]), [0.025, 0.975])
    return float(of(predicted, hidden)), float(low), float(high)


@torch.no_grad()
def _returns(model: Any, films: Segments) -> np.ndarray:
    parts = [model.returns(films[rows])[0] for rows in torch.arange(len(films)).split(16)]
    return torch.cat(parts).double().numpy()


def show(metrics: Config) -> None:
    """The correlations of metrics.json, one a line."""
    for row in rows(metrics):
        print(f"{row[0]:>34}: {row[1]} / {row[2]}", flush=True)


def rows(metrics: Config) -> list[tuple[str, ...]]:
    """Reward, this arm, other arm: Spearman with intervals."""
    one = metrics["reward"]
    label = {"": "aligned (RAPL)", "rlhf_": "plain reward, same answers", "untaught_": "time contrast only, no answer"}
    made = []
    for prefix, name in label.items():
        shown = [
            f"{one[prefix + key]:.2f} [{one[f'{prefix}{key}_ci95'][0]:.2f}, {one[f'{prefix}{key}_ci95'][1]:.2f}]"
            for key in SETS.values()
        ]
        made.append((name, *shown))
    return made


def report(out: Path, command: str) -> None:
    """The page of a run."""
    found = read_json(out / "metrics.json")
    one, diagonal = found["reward"], found["diagonality"]
    header = ("reward", f"this arm, n={one['held_out_films']}", f"other arm, n={one['other_films']}")
    shape = [
        (k, f"{v['best_third']:.2f}", f"{v['worst_third']:.2f}", f"{v['spearman']:.2f} [{v['ci95'][0]:.2f}, {v['ci95'][1]:.2f}]")
        for k, v in diagonal.items() if isinstance(v, dict)
    ]  # fmt: skip
    tables: list[reward_page.Table] = [
        ("Spearman with the hidden score", header, rows(found)),
        ("Couplings", ("measure", "best third", "worst third", "Spearman with the hidden score"), shape),
    ]
    figures = [out / "figures" / f"{name}.png" for name in ("films", "diagonality")]
    title = f"Rewards from {one['triplets']} triplets of films: {found['task']}, seed {found['seed']}"
    print(f"report: {reward_page.write(out, title, tables, figures, command)}", flush=True)
