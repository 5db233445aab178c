"""What a dial buys: success against cost at every weight on the same fresh resets, with intervals, as metrics, a plot and a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robopref import statistics
from robopref.arrays import Trajectory
from robopref.checkpoint import load
from robopref.data.files import atomic_file, read_json, write_json
from robopref.labelers.marks import costs
from robopref.stages import reward_page
from robopref.stages.environments import act, roll
from robopref.stages.evaluate import outcomes, summary
from robopref.stages.parallel import spread
from robopref.stages.units import unit

Config = dict[str, Any]
WHAT = {"contact": "contacts per episode", "length": "steps to success"}
"""Cost -> what its numbers are."""


def name_of(weight: float) -> str:
    """What the policy at a weight is called: `w=0.5`."""
    return f"w={weight:g}"


def measure(config: Config, out: Path, command: str) -> None:
    """Open the evaluation resets once for the base and every weight; writes metrics.json and the plot."""
    table = evaluated(config, out)
    policies, tests = summary(table)
    cost, dial = table["cost"], config["dial"]
    for name, one in policies.items():
        mean, low, high = statistics.paired_bootstrap(cost[name], np.zeros(len(cost[name])))
        one |= {"cost": mean, "cost_ci95": [low, high], "spared": float(np.mean(np.array(cost[name]) == 0))}
    for test in tests:
        ratio, low, high = statistics.ratio_of_means([(cost[test["a"]], cost[test["b"]])])
        test |= {"cost_saved": 1 - ratio, "cost_saved_ci95": [1 - high, 1 - low]}
    asked = read_json(out / "dial" / "done.json")
    rounds = [
        {
            **{k: v for k, v in read_json(place / "steered" / "done.json").items() if k != "seconds"},
            "looks": len(rows := read_json(place / "marks" / "done.json")["marks"]), "marked": sum(row["bad"] for row in rows),
        }
        for place in sorted((out / "rounds").iterdir())
    ]  # fmt: skip
    head = name_of(dial["headline"])
    metrics = {
        "task": config["task"], "seed": config["seed"], "experiment": config["experiment"], "labels_asked": asked["looks"],
        "labels_marked": asked["marked"], "episodes_judged": 0, "cost": dial["cost"], "headline": head,
        "promise": promise(policies, tests, head, dial), "weights": {name_of(w): w for w in dial["weights"]},
        "zero_is_base": all(table[key][name_of(0)] == table[key]["base"] for key in ("success", "return", "length", "cost")),
        "policies": policies, "tests": tests,
        "rounds": rounds,
        "seconds": seconds(out), "command": command,
    }  # fmt: skip
    frontier(out / "figures" / "frontier.png", metrics)
    write_json(out / "metrics.json", metrics)


def evaluated(config: Config, out: Path) -> Config:
    """Success, return, length and cost of every reset, for the base's own folder and for every weight of the one policy."""
    settings = config["evaluation"]
    begin = settings["first_reset"] + 1000 * config["seed"]
    seeds = list(range(begin, begin + settings["episodes"]))

    def make(partial: Path) -> Config:
        weights = config["dial"]["weights"]
        short = config["dial"]["cost"] == "length"  # nobody asks what happens after the first success
        calls = [(str(out / "dial" / "policy"), w, config["env"], seeds, config["seed"], short) for w in weights]
        base, workers = out / "base" / "policy", config["workers"]
        made = {"base": roll(base, config["env"], seeds, config["seed"], workers, until_success=short)}
        made |= zip(map(name_of, weights), spread(_turned, calls, config["workers"]), strict=True)
        table: Config = {"seeds": seeds, "success": {}, "return": {}, "length": {}, "cost": {}}
        for name, episodes in made.items():
            for key, values in outcomes(episodes).items():
                table[key][name] = values
            table["cost"][name] = costs(episodes, config["dial"]["cost"]).tolist()
        write_json(partial / "outcomes.json", table)
        return table

    return unit(out / "evaluation", make)


def _turned(
    folder: str, weight: float, env: Config, seeds: list[int], noise_seed: int, until_success: bool
) -> list[Trajectory]:
    """Episodes of the dial at a weight."""
    dial = load(folder)
    dial.set_weight(weight)
    return act(dial, env, seeds, noise_seed, until_success=until_success)


def promise(policies: Mapping[str, Any], tests: list[Config], head: str, dial: Config) -> Config:
    """Whether the headline's weight saves enough at little enough success lost, by point estimates; intervals stand beside them."""
    test = next(one for one in tests if (one["a"], one["b"]) == (head, "base"))
    wanted = float(dial["target"][dial["cost"]])
    return {
        "cost_saved": test["cost_saved"], "cost_saved_ci95": test["cost_saved_ci95"], "wanted": wanted,
        "success_change": test["difference"], "success_ci95": test["ci95"], "may_lose": dial["success"],
        "kept": test["cost_saved"] >= wanted and test["difference"] >= -dial["success"] - 1e-9,
        "shown": test["cost_saved_ci95"][0] >= wanted and test["ci95"][0] >= -dial["success"] - 1e-9,
    }  # fmt: skip


def frontier(path: Path, metrics: Mapping[str, Any]) -> None:
    """The plot: cost to the right, success upwards, one point a weight with both 95% intervals, joined in the order of weights."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes, policies = figure.add_subplot(), metrics["policies"]
    names = sorted(metrics["weights"], key=lambda name: metrics["weights"][name])
    x, y = ([policies[n][key] * by for n in names] for key, by in (("cost", 1), ("success_rate", 100)))
    axes.plot(x, y, color="#9aa0a8", linewidth=1, zorder=1)
    for name, a, b in zip(names, x, y, strict=True):
        one, colour = policies[name], "#0b7a5e" if name == metrics["headline"] else "#2d55aa"
        axes.plot(one["cost_ci95"], [b, b], color=colour, linewidth=1, alpha=0.6)
        axes.plot([a, a], [100 * v for v in one["ci95"]], color=colour, linewidth=1, alpha=0.6)
        axes.plot(a, b, "o", color=colour, markersize=6)
        axes.annotate(name, (a, b), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.plot(policies["base"]["cost"], 100 * policies["base"]["success_rate"], "x", color="#c0392b", markersize=9)
    axes.axhline(
        100 * (policies["base"]["success_rate"] - metrics["promise"]["may_lose"]),
        color="#c0392b",
        linewidth=0.8,
        linestyle=":",
    )
    axes.axvline(
        (1 - metrics["promise"]["wanted"]) * policies["base"]["cost"], color="#c0392b", linewidth=0.8, linestyle=":"
    )
    axes.set_xlabel(f"{WHAT[metrics['cost']]} (less is better)")
    axes.set_ylabel("success, %")
    axes.set_title(f"{metrics['task']}: base x, what is promised dotted", fontsize=9)
    if metrics["cost"] == "contact":
        axes.set_xlim(left=0)
    axes.grid(color="#e2e1db", linewidth=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def seconds(out: Path) -> dict[str, float]:
    """Seconds per stage, from the records of finished pieces."""
    parts = {
        "collect": ["demonstrations"], "pretrain": ["base"], "steer": ["rounds/*/*", "dial"], "evaluate": ["evaluation"],
    }  # fmt: skip
    return {
        stage: round(sum(read_json(p)["seconds"] for one in places for p in out.glob(f"{one}/done.json")), 1)
        for stage, places in parts.items()
    }


def rows(metrics: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Policy, success, cost, share of the cost saved and change of success against the base, with intervals."""
    against = {t["a"]: t for t in metrics["tests"] if t["b"] == "base"}
    made: list[tuple[str, ...]] = []
    for name, one in metrics["policies"].items():
        t = against.get(name)
        saved = (
            "" if t is None else f"{t['cost_saved']:.0%} [{t['cost_saved_ci95'][0]:.0%}, {t['cost_saved_ci95'][1]:.0%}]"
        )
        moved = (
            "" if t is None else f"{100 * t['difference']:+.1f} [{100 * t['ci95'][0]:+.1f}, {100 * t['ci95'][1]:+.1f}]"
        )
        success = f"{one['success_rate']:.1%} [{one['ci95'][0]:.1%}, {one['ci95'][1]:.1%}]"
        made.append(
            (name, success, f"{one['cost']:.2f} [{one['cost_ci95'][0]:.2f}, {one['cost_ci95'][1]:.2f}]", saved, moved)
        )
    return made


def report(config: Config, out: Path, command: str) -> None:
    """The page of a run, and its table on the terminal."""
    metrics = read_json(out / "metrics.json")
    header = ("policy", "success", WHAT[metrics["cost"]], "saved against the base", "success, points against the base")
    title = f"A dial on {metrics['task']}, seed {metrics['seed']}: {metrics['labels_marked']} marks among {metrics['labels_asked']} looks"
    count = metrics["policies"]["base"]["episodes"]
    tables: list[reward_page.Table] = [
        (f"Every weight on the same {count} fresh resets, paired 95% intervals", header, rows(metrics))
    ]
    page = reward_page.write(out, title, tables, [out / "figures" / "frontier.png"], command)
    for row in rows(metrics):
        print(" | ".join(row), flush=True)
    said = metrics["promise"]
    print(
        f"{metrics['headline']}: {said['cost_saved']:.0%} saved, {100 * said['success_change']:+.1f} points: {'kept' if said['kept'] else 'not kept'}"
    )
    print(f"report: {page}", flush=True)
