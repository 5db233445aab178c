"""What an experiment with several tasks and phrasings measures: success per task and per set of phrasings, on shared held-out resets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robopref import statistics
from robopref.data.files import read_json, write_json
from robopref.data.phrasings import SETS, Phrasings
from robopref.episodes import Episode
from robopref.stages import reward_page
from robopref.stages.environments import roll
from robopref.stages.evaluate import outcomes
from robopref.stages.units import unit

Config = dict[str, Any]
Outcomes = dict[str, dict[str, dict[str, dict[str, list[float]]]]]
"""policy -> task -> set of phrasings -> success, return, length of every episode."""


def measure(
    config: Config, phrasings: Mapping[str, Phrasings], policies: Mapping[str, Path], out: Path, command: str
) -> None:
    """Every policy on every task, asked by both sets of phrasings from the same resets; writes metrics.json."""
    settings, seed = config["evaluation"], config["seed"]
    begin, count = settings["first_reset"] + 1000 * seed, settings["episodes"]
    found: Outcomes = {}
    for name, policy in policies.items():
        for task, said in phrasings.items():

            def make(_: Path, policy: Path = policy, task: str = task, said: Phrasings = said) -> dict[str, Any]:
                env = {**config["env"], "task": task}
                asked = {
                    which: [Episode(begin + i, 0, one) for i, one in enumerate(said.of(which, count))] for which in SETS
                }
                return {k: outcomes(roll(policy, env, v, seed, config["workers"])) for k, v in asked.items()}

            done = unit(out / "evaluation" / name / task, make)
            found.setdefault(name, {})[task] = {which: done[which] for which in SETS}
    write_json(out / "metrics.json", metrics(config, found, phrasings, out, command))
    for name, one in read_json(out / "metrics.json")["policies"].items():
        parts = ", ".join(f"{k.replace('_', ' ')} {v['success_rate']:.1%}" for k, v in one["phrasings"].items())
        low, high = one["ci95"]
        print(
            f"{name:>9}: {one['success_rate']:6.1%}  [{low:.0%}, {high:.0%}]  n={one['episodes']} ({parts})", flush=True
        )


def metrics(
    config: Config, found: Outcomes, phrasings: Mapping[str, Phrasings], out: Path, command: str
) -> dict[str, Any]:
    """The content of metrics.json: rates with Wilson intervals per policy, task, set of phrasings and sentence, and paired tests."""
    tasks = list(next(iter(found.values())))
    done = [read_json(path) for path in sorted((out / "rounds").glob("round-*/align/done.json"))]
    asked = ("demonstrations/*/done.json", "round-*/tasks/*/labels/done.json")
    labels = [read_json(path)["asked"] for one in asked for path in (out / "rounds").glob(one)]
    return {
        "task": ",".join(tasks), "tasks": tasks, "seed": config["seed"], "experiment": config["experiment"], "command": command,
        "labels_asked": sum(labels), "episodes_judged": 0, "policies": {name: {**rates(one), "sentences": sentences(one, phrasings)} for name, one in found.items()},
        "tests": tests(found), "rounds": [{k: v for k, v in one.items() if k != "seconds"} for one in done],
        "parameters": read_json(out / "base" / "done.json")["parameters"], "seconds": seconds(out),
        "notes": ["Intervals take episodes as independent; they are grouped by task, and one run is one seed."],
    }  # fmt: skip


def rates(found: Mapping[str, Mapping[str, Mapping[str, list[float]]]]) -> dict[str, Any]:
    """Success over everything, per task and set, and per set, of one policy: task -> set -> outcomes."""
    every = [one for sets in found.values() for one in sets.values()]
    return {
        **_rate(every),
        "phrasings": {which: _rate([sets[which] for sets in found.values()]) for which in SETS},
        "tasks": {task: {which: _rate([sets[which]]) for which in SETS} for task, sets in found.items()},
    }


def sentences(
    found: Mapping[str, Mapping[str, Mapping[str, list[float]]]], phrasings: Mapping[str, Phrasings]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Success of one policy per task and sentence; the sentences of a set took turns."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for task, sets in found.items():
        for which, outcome in sets.items():
            said = phrasings[task].of(which, len(outcome["success"]))
            for one in dict.fromkeys(said):
                chosen = [x for x, other in zip(outcome["success"], said, strict=True) if other == one]
                low, high = statistics.wilson(int(sum(chosen)), len(chosen))
                rate = {"success_rate": sum(chosen) / len(chosen), "ci95": [low, high], "episodes": len(chosen)}
                rows.setdefault(task, {})[one] = rate
    return rows


def tests(found: Outcomes) -> list[dict[str, Any]]:
    """Paired differences over the same resets: aligned against the others, and each policy's held-out against its trained phrasings."""

    def successes(name: str, sets: Iterable[str]) -> np.ndarray:
        chosen = tuple(sets)
        return np.array([x for task in found[name].values() for which in chosen for x in task[which]["success"]])

    pairs = [
        (a, b, successes(a, SETS), successes(b, SETS)) for a, b in (("aligned", o) for o in found if o != "aligned")
    ]
    pairs += [
        (f"{name}, held-out phrasings", f"{name}, trained phrasings", successes(name, SETS[1:]), successes(name, SETS[:1]))
        for name in found
    ]  # fmt: skip
    rows = []
    for a, b, first, second in pairs:
        difference, low, high = statistics.paired_bootstrap(first, second)
        p_value = statistics.paired_test(first, second)
        rows.append({"a": a, "b": b, "difference": difference, "ci95": [low, high], "p_value": p_value})
    return rows


def seconds(out: Path) -> dict[str, float]:
    """Seconds of work in each stage's finished units."""
    places = {
        "collect": "demonstrations/*/done.json", "pretrain": "base/done.json", "align": "rounds/**/done.json",
        "baselines": "arms/*/done.json", "evaluate": "evaluation/*/*/done.json",
    }  # fmt: skip
    return {k: round(sum(read_json(p)["seconds"] for p in out.glob(v)), 1) for k, v in places.items()}


def report(out: Path, command: str) -> None:
    """The page of a run: success of every policy per set of phrasings, and per task."""
    found = read_json(out / "metrics.json")
    policies = found["policies"]
    overall = [
        (name, *(_shown(one["phrasings"][which]) for which in SETS), _shown(one)) for name, one in policies.items()
    ]
    each = [
        (task, *(_shown(one["tasks"][task][which]) for one in policies.values() for which in SETS))
        for task in found["tasks"]
    ]
    header = ("task", *(f"{name}, {which.replace('_', ' ')}" for name in policies for which in SETS))
    tested = [
        (t["a"], t["b"], f"{t['difference']:+.1%}", f"{t['ci95'][0]:+.1%} to {t['ci95'][1]:+.1%}", f"{t['p_value']:.3f}")
        for t in found["tests"]
    ]  # fmt: skip
    tables = [
        ("Success", ("policy", "trained phrasings", "held-out phrasings", "both"), overall),
        ("Success per task", header, each),
        ("Paired differences", ("a", "b", "a minus b", "95% interval", "p"), tested),
    ]
    title = f"{len(found['tasks'])} tasks in words"
    print(f"report: {reward_page.write(out, title, tables, [], command)}", flush=True)


def _rate(parts: Iterable[Mapping[str, list[float]]]) -> dict[str, Any]:
    joined = _joined(parts)
    success = joined["success"]
    low, high = statistics.wilson(int(sum(success)), len(success))
    return {
        "success_rate": sum(success) / len(success), "ci95": [low, high], "episodes": len(success),
        "return": float(np.mean(joined["return"])), "length": float(np.mean(joined["length"])),
    }  # fmt: skip


def _joined(parts: Iterable[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    listed = list(parts)
    return {k: [x for part in listed for x in part[k]] for k in ("success", "return", "length")}


def _shown(rate: Mapping[str, Any]) -> str:
    low, high = rate["ci95"]
    return f"{rate['success_rate']:.0%} [{low:.0%}, {high:.0%}] n={rate['episodes']}"
