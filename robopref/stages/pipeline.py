"""The pipeline of an experiment: collect -> pretrain -> align beside its baselines -> evaluate -> report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.data.files import atomic_file, locked, read_json, write_json
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.stages import baselines, door
from robopref.stages.align import gather_round, rounds_of
from robopref.stages.collect import mixture, scripted, write
from robopref.stages.evaluate import evaluate, summary
from robopref.stages.evidence import asked
from robopref.stages.folders import claim
from robopref.stages.gate import judge, judged, resets
from robopref.stages.label import name_of
from robopref.stages.on_arm import PLAYED, how_it_went, is_on_arm
from robopref.stages.parallel import spread
from robopref.stages.pictures import pictures_of, settings_of
from robopref.stages.pretrain import find_base
from robopref.stages.units import unit

Config = dict[str, Any]

FOLDERS = {
    "collect": ("demonstrations",),
    "pretrain": ("base",),
    "align": ("rounds", "arms", "judged"),
    "evaluate": ("played", "evaluation", "metrics.json", "log.jsonl"),
    "report": ("videos", "strips", "report.html", "pairs.json"),
}
"""What each stage of a run writes. `stages=[...]` removes these and all that was made from them, and makes its own anew."""


def run(config: Config, out: Path, command: str) -> None:
    """Run the stages of an experiment in a folder; done pieces are kept, so a killed run continues."""
    wanted = config["stages"]
    for name in wanted:
        if name not in FOLDERS:
            raise InputError(f"stages: got {name!r}, wanted some of {', '.join(FOLDERS)}.")
    door.check(config)
    with locked(out):
        _run(config, out, command)


def _run(config: Config, out: Path, command: str) -> None:
    wanted = config["stages"]
    claim(config, out)
    _needs(out, wanted)
    if len(wanted) < len(FOLDERS):
        _forget(out, wanted)
    steps: dict[str, Callable[[Config, Path], None]] = {
        "collect": collect, "pretrain": pretrain, "align": align, "evaluate": lambda c, o: measure(c, o, command), "report": report,
    }  # fmt: skip
    for name, step in steps.items():
        if name in wanted:
            _say(f"{name} ...")
            begin = time.perf_counter()
            step(config, out)
            _say(f"{name} done in {time.perf_counter() - begin:.0f} s")
    if (out / "metrics.json").exists():
        _headline(out)


def collect(config: Config, out: Path) -> None:
    """Demonstrations of the scripted expert, good ones first, then faulty ones."""

    def make(partial: Path) -> dict[str, Any]:
        count, seed = config["base"]["demonstrations"], config["seed"]
        behaviours = [b for kind in ("good", "faulty") for b in mixture(config["imperfections"][kind], count)]
        seeds = [10_000 * seed + i for i in range(2 * count)]
        cameras = tuple(dict.fromkeys([*pictures_of(config["policy"]).cameras, *config["cameras"]]))
        render = settings_of(config["env"], cameras)
        made = scripted(config["env"], seeds, behaviours, seed, config["workers"], cameras=cameras)
        write(partial / "store", made, "store demonstrations", render=render)
        half = len(made) // 2
        rates = [sum(t.succeeded for t in part) / half for part in (made[:half], made[half:])]
        return {"episodes": len(made), "good_success": rates[0], "faulty_success": rates[1]}

    unit(out / "demonstrations", make)


def pretrain(config: Config, out: Path) -> None:
    """Find the imperfection level at which the base half works, and clone that base."""
    folder = out / "base"
    if (folder / "base.json").exists():
        return
    begin = time.perf_counter()
    if config["checkpoint"]:
        found = {"search": [], "level": 0.0, "policy": config["checkpoint"]}
    else:
        found = find_base(config, out / "demonstrations" / "store", folder, config["workers"])
    found["policy"] = os.path.relpath(found["policy"], out)  # a run folder may be moved
    write_json(folder / "base.json", {**found, "seconds": round(time.perf_counter() - begin, 3)})


def align(config: Config, out: Path) -> None:
    """The aligned arm and, beside it, every baseline of the configuration."""
    found = read_json(out / "base" / "base.json")
    base, wanted = out / found["policy"], config["baselines"]
    judge(config, base, out / "judged", resets(config), config["workers"])
    gather_round(config, base, out / "rounds", 0, config["workers"])
    # Cloning goes on beside the rounds: the ablation ends earlier than the aligned arm and leaves a process idle.
    jobs: list[tuple[str, tuple[Any, ...]]] = [("aligned", (config, out, "aligned", base, 1.0))]
    if "aligned_no_pairs" in wanted:
        jobs.append(("aligned_no_pairs", (config, out, "aligned_no_pairs", base, 0.0)))
    if "cloned" in wanted and not config["checkpoint"]:  # the demonstrations of a given base are not known
        jobs.append(("cloned", (config, out, base, found["level"])))
    made = dict(zip((name for name, _ in jobs), spread(_arm, jobs, config["workers"]), strict=True))
    aligned, ablation = made.pop("aligned"), made.pop("aligned_no_pairs", None)
    taught: dict[str, tuple[Any, ...]] = {"filtered": (config, out, base, aligned["stores"])}
    taught |= {name: (config, out, base, aligned["stores"], name) for name in baselines.ON_ANSWERS}
    jobs = [(name, arguments) for name, arguments in taught.items() if name in wanted]
    made |= zip((name for name, _ in jobs), spread(_arm, jobs, config["workers"]), strict=True)
    policies = {"base": str(base), **made}
    if ablation:
        policies["aligned_no_pairs"] = ablation["policy"]
    policies["aligned"] = aligned["policy"]
    write_json(
        out / "arms" / "arms.json",
        {
            "policies": {k: os.path.relpath(v, out) for k, v in policies.items()},
            "stores": [os.path.relpath(s, out) for s in aligned["stores"]],
            "guard": [*aligned["guard"], *(ablation["guard"] if ablation else [])],
            "choice": {k: v for k, v in aligned["choice"].items() if k != "seconds"},
        },
    )


def _arm(name: str, arguments: tuple[Any, ...]) -> Any:
    """One arm by its name: what `rounds_of` gives for the two that go through rounds, a policy folder for the others."""
    arms: dict[str, Callable[..., Any]] = {
        "aligned": rounds_of, "aligned_no_pairs": rounds_of, "cloned": baselines.cloned, "filtered": baselines.filtered,
    }  # fmt: skip
    return arms.get(name, baselines.on_answers)(*arguments)


def measure(config: Config, out: Path, command: str) -> None:
    """Open the evaluation resets, write metrics.json and the joined log."""
    from hydra.utils import instantiate

    arms = read_json(out / "arms" / "arms.json")
    table = evaluate(
        config, {k: str(out / v) for k, v in arms["policies"].items()}, out / "evaluation", config["workers"]
    )
    policies, tests = summary(table)
    base = read_json(out / "base" / "base.json")
    metrics = {
        "task": config["task"], "seed": config["seed"], "experiment": config["experiment"], "labels_asked": sum(asked(out / store) for store in arms["stores"]),
        "episodes_judged": judged([out / "judged", *out.glob("arms/aligned/round-*/judged")]),
        "labeler": name_of(instantiate(config["labeler"]), config["labeler_name"]),
        "policies": policies, "tests": tests, "base_level": base["level"], "base_search": _timeless(base["search"]),
        "guard": _timeless(arms["guard"]), "choice": arms.get("choice", {}), "arm": how_it_went(out),
        "notes": notes(config, policies, tests, base["search"], arms.get("choice", {}).get("doubt", "")), "seconds": seconds(out), "command": command,
    }  # fmt: skip
    write_log(out)
    write_json(out / "metrics.json", metrics)


def _timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records without their seconds, which differ from run to run."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def notes(
    config: Config, policies: dict[str, Any], tests: list[dict[str, Any]], search: list[dict[str, Any]], doubt: str = ""
) -> list[str]:
    """What a reader must know first."""
    said = [*([PLAYED] if is_on_arm(config) else []), *([doubt] if doubt else [])]
    if config["rank_by"] == "scores":
        said.append(
            "The labeler scored every rollout (one label each); a score may look at success, which people would have to say."
        )
    for test in tests:
        if (test["a"], test["b"]) == ("aligned", "aligned_no_pairs") and test["ci95"][0] <= 0:
            said.append("The preference term adds nothing that these resets can show over the same run without it.")
        if (test["a"], test["b"]) == ("aligned", "base") and test["ci95"][0] <= 0:
            said.append("The aligned policy is not shown to be better than its base.")
    if search and not any(one["in_band"] for one in search):
        said.append("No imperfection level gave a base inside the wanted band; the closest one was taken.")
    return said


def seconds(out: Path) -> dict[str, float]:
    """Seconds of work per part (summed over processes), from the records of finished pieces."""

    def total(*patterns: str) -> float:
        paths = {p for pattern in patterns for p in out.glob(pattern)}
        return round(sum(read_json(p)["seconds"] for p in paths), 1)

    aligned = total("rounds/*/done.json", "judged/*/done.json", "arms/aligned/*/*/done.json", "arms/aligned/chosen/done.json")  # fmt: skip
    return {
        "collect": total("demonstrations/done.json"),
        "pretrain": read_json(out / "base" / "base.json")["seconds"],
        "align": aligned,
        "baselines": total("arms/aligned_no_pairs/*/*/done.json", "arms/aligned_no_pairs/chosen/done.json", "arms/*/done.json"),
        "evaluate": total("evaluation/done.json"),
    }  # fmt: skip


def write_log(out: Path) -> None:
    """All logs of a run in one file, in the order of the arms."""
    base = (out / read_json(out / "base" / "base.json")["policy"]).parent / "log.jsonl"
    parts = [base, *sorted((out / "arms").rglob("log.jsonl"))]
    with atomic_file(out / "log.jsonl") as temporary:
        temporary.write_text("".join(p.read_text(encoding="utf-8") for p in parts if p.exists()), encoding="utf-8")


def report(config: Config, out: Path) -> None:
    """Videos and the self-contained page."""
    from robopref.stages.report import CARDS
    from robopref.stages.report import report as write_report
    from robopref.stages.videos import film, strips

    arms = read_json(out / "arms" / "arms.json")
    stores = [out / s for s in arms["stores"]]
    pairs = _asked_pairs(stores)
    strips(config["env"], pairs, stores, CARDS, out / "strips")
    write_json(out / "pairs.json", pairs)
    film(config, {k: str(out / arms["policies"][k]) for k in ("base", "aligned")}, out / "videos")
    _say(f"report: {write_report(out)}")


def _asked_pairs(stores: list[Path]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, root in enumerate(stores):
        store = TrajectoryStore(root)
        for pair in PreferenceStore(store).pairs():
            sides = {
                side: {"store": root.name, "episode": w.episode, "task": store.episodes[w.episode].task, "seed": store.episodes[w.episode].seed}
                for side, w in (("first", pair.first), ("second", pair.second))
            }  # fmt: skip
            answer = None if pair.prob_first != pair.prob_first else pair.prob_first
            thumbs = {f"{side}_thumb": f"strips/{len(rows)}_{side}.png" for side in sides}
            rows.append({"round": number, **sides, "prob_first": answer, "strategy": pair.strategy, **thumbs})
    return rows


def _needs(out: Path, wanted: list[str]) -> None:
    """Refuse to redo a stage whose input is neither made by the same call nor there and made from what stays."""
    inputs = {
        "pretrain": ("collect", "demonstrations/done.json"), "align": ("pretrain", "base/base.json"),
        "evaluate": ("align", "arms/arms.json"), "report": ("evaluate", "metrics.json"),
    }  # fmt: skip
    order = list(FOLDERS)
    first = min((order.index(name) for name in wanted), default=0)
    for stage, (before, path) in inputs.items():
        if stage not in wanted or before in wanted:
            continue
        if order.index(before) > first:
            raise InputError(
                f"stages: got {order[first]} and {stage} without {before}, wanted all between: {before} rests on {order[first]}. "
                f"Add it to stages=[...]."
            )
        if not (out / path).exists():
            raise InputError(
                f"stages: got {stage} without {path} in {out}, wanted {before} before it. Add it to stages=[...]."
            )


def _forget(out: Path, stages: list[str]) -> None:
    """Remove what the earliest of the stages and everything after it has written: later results rest on earlier ones."""
    order = list(FOLDERS)
    for name in order[min((order.index(name) for name in stages), default=len(order)) :]:
        for entry in FOLDERS[name]:
            path = out / entry
            if path.is_dir():
                shutil.rmtree(path)
            elif path.exists():
                path.unlink()


def _headline(out: Path) -> None:
    metrics = read_json(out / "metrics.json")
    for name, one in metrics["policies"].items():
        low, high = one["ci95"]
        _say(f"{name:>17}: {one['success_rate']:6.1%}  [{low:.0%}, {high:.0%}]  n={one['episodes']}")
    for note in metrics["notes"]:
        _say(note)


def _say(text: str) -> None:
    print(text, flush=True)
