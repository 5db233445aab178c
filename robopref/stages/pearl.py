"""PEARL: answers about source tasks are carried to a target task, a robust reward is learned from them, a policy from the reward.

No reward, success or answer of the target is read before `evaluate`, except by the arms that are there for comparison (`oracle`, `true_reward`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.files import read_json, write_json
from robopref.data.preferences import Pair, PreferenceStore, Window
from robopref.data.store import TrajectoryStore
from robopref.labelers.teacher import Teacher
from robopref.labelers.transfer import Source, Transfer
from robopref.learners.reward import FitSettings, fit_reward, probabilities, quality
from robopref.stages import offline, reward_page
from robopref.stages.collect import mixture, scripted, write
from robopref.stages.diagnostics import coupling, reliability
from robopref.stages.environments import dims_of, environments
from robopref.stages.evaluate import evaluate, summary
from robopref.stages.folders import in_order
from robopref.stages.reward_quality import batch_of
from robopref.stages.units import unit, write_log

Config = dict[str, Any]
FOLDERS = {
    "collect": ("episodes",),
    "label": ("labels", "figures", "report.html", "metrics.json"),
    "learn": ("rewards", "arms"),
    "evaluate": ("evaluation", "metrics.json"),
    "report": ("report.html",),
}


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept."""
    if not config["source"] or not config["target"]:
        raise InputError("pearl: got no source or no target, wanted source=[TASK,TASK] target=TASK.")
    if isinstance(config["source"], str):
        config = {**config, "source": [config["source"]]}
    *sources, target = (environments(_env(config, task), 1)[0].task for task in (*config["source"], config["target"]))
    if target in sources:
        raise InputError(
            f"pearl: got target={config['target']} among its sources, wanted another task. Nothing would be carried over."
        )
    if len(set(sources)) < len(sources):
        raise InputError(f"pearl: got source={config['source']}, wanted every task once. Name it once.")
    steps = {
        "collect": lambda: collect(config, out),
        "label": lambda: label(config, out, command),
        "learn": lambda: learn(config, out, command),
        "evaluate": lambda: measure(config, out, command),
        "report": lambda: offline.report(out),
    }
    in_order(config, out, FOLDERS, steps)


def _env(config: Config, task: str) -> Config:
    return {**config["env"], "task": task}


def collect(config: Config, out: Path) -> None:
    """Episodes of every task: scripted, of many qualities, with noise that says nothing about quality."""
    count, seed = config["episodes"], config["seed"]
    count = config["transfer"]["episodes"] if count is None else count
    behaviours = mixture(config["transfer"]["imperfections"], count)
    for number, task in enumerate([*config["source"], config["target"]]):
        seeds = [10_000 * seed + 1000 * (number + 1) + i for i in range(count)]

        def make(partial: Path, task: str = task, seeds: list[int] = seeds) -> dict[str, Any]:
            made = scripted(_env(config, task), seeds, behaviours, seed, config["workers"])
            write(partial / "store", made, f"store {task}")
            return {"episodes": len(made), "success": sum(t.succeeded for t in made) / len(made)}

        unit(out / "episodes" / task, make)


def label(config: Config, out: Path, command: str) -> None:
    """Carry the sources' answers to the target, write them as a sidecar of its store, and measure them against its true returns."""
    settings = config["transfer"]

    def make(partial: Path) -> dict[str, Any]:
        targets = _load(out, config["target"])
        sources = [Source(made := _load(out, task), asked(made, settings["teacher"])) for task in config["source"]]
        known = sum(len(s.trajectories) * (len(s.trajectories) - 1) // 2 for s in sources)
        begin = time.process_time()
        fitted = _labeler(config).fit(sources, targets)
        spent = (time.process_time() - begin) / len(sources)
        truth = Teacher(criterion=settings["teacher"]).scores(targets)  # to judge by, once the labels are fixed
        found = accuracy(fitted, targets, truth) | {"cpu_seconds": round(spent, 2)}
        raw = Transfer(features="raw", fused=0.0, smoothing=0.0, seed=config["seed"]).fit(sources, targets)
        found["raw_observations"] = accuracy(raw, targets, truth)["accuracy"]
        _picture(config, out, fitted, sources, truth)
        pairs = _pairs(fitted, targets, config)
        PreferenceStore(TrajectoryStore(out / "episodes" / config["target"] / "store")).append(pairs)
        write_json(partial / "pairs.json", [[p.first.episode, p.second.episode, p.prob_first] for p in pairs])
        return {"transfer": found, "pairs": len(pairs), "source_answers": known}

    said = unit(out / "labels", make)["transfer"]
    rows = [(name.replace("_", " "), "undecided" if v is None else f"{v:.3f}") for name, v in said.items()]
    shown = dict(rows)
    print(
        f"transfer: accuracy {shown['accuracy']} (confident half {shown['confident half accuracy']}, coverage {shown['coverage']}); "
        f"smoother wins {shown['jitter rule']}, raw observations {shown['raw observations']}", flush=True,
    )  # fmt: skip
    write_json(out / "metrics.json", _begun(config, out, command))
    reward_page.write(
        out, f"Transfer from {', '.join(config['source'])} to {config['target']}", [("Transfer", ("measure", "value"), rows)],
        [out / "figures" / "coupling.png"], command,
    )  # fmt: skip


def _begun(config: Config, out: Path, command: str) -> Config:
    """metrics.json as far as the finished stages say: what the transfer was worth and, once they are learned, the rewards."""
    done, judged = read_json(out / "labels" / "done.json"), out / "rewards" / "quality.json"
    found = {"transfer": done["transfer"], "pairs": done["pairs"], "source_answers": done.get("source_answers")}
    rewards = {"rewards": read_json(judged)} if judged.exists() else {}
    return offline.head(config, command) | found | rewards | {"policies": {}, "tests": []}


def asked(trajectories: list[Trajectory], criterion: str) -> np.ndarray:
    """P(row preferred over column) of a scripted teacher about all pairs of a source, (N, N)."""
    scores = Teacher(criterion=criterion).scores(trajectories)
    return 0.5 + 0.5 * np.sign(np.subtract.outer(scores, scores))


def _labeler(config: Config) -> Transfer:
    from hydra.utils import instantiate

    made = instantiate(config["labeler"])
    if not isinstance(made, Transfer):
        raise InputError(f"pearl: got labeler={config['labeler_name']}, wanted labeler=transfer.")
    return made


def accuracy(fitted: Transfer, targets: list[Trajectory], returns: np.ndarray) -> dict[str, float | None]:
    """How often the carried preference is the one of the target's true returns (N,), beside rules that carry nothing over.

    Over all pairs of unequal return (None where there is none); no preference (S = 0) counts as half. `chance` is what a coin gets.
    """
    assert fitted.fitted is not None
    i, j = np.triu_indices(len(targets), 1)
    decided = returns[i] != returns[j]
    i, j = i[decided], j[decided]
    truth = np.sign(returns[i] - returns[j])
    moved = fitted.fitted.relation[i, j]
    right = 0.5 + 0.5 * np.sign(moved) * truth
    surest = np.argsort(-np.abs(moved), kind="stable")[: max(1, len(moved) // 2)]
    jitter = np.array([np.square(np.diff(t.action, axis=0)).sum() for t in targets])
    smoother = 0.5 + 0.5 * np.sign(jitter[j] - jitter[i]) * truth
    sure = np.abs(moved) >= max(fitted.least(), 1e-12)
    shares = {"accuracy": right, "confident_half_accuracy": right[surest], "coverage": sure, "jitter_rule": smoother}
    found = {name: float(each.mean()) if len(each) else None for name, each in shares.items()}
    return {**found, "chance": 0.5, "decided_pairs": len(moved)}


def _pairs(fitted: Transfer, targets: list[Trajectory], config: Config) -> list[Pair]:
    """`transfer.pairs` random questions about the target, with the carried answers; those it is not sure of are left out."""
    rng = np.random.default_rng([config["seed"], 29])
    i, j = np.triu_indices(len(targets), 1)
    chosen = rng.permutation(len(i))[: config["transfer"]["pairs"]]
    first, second = i[chosen], j[chosen]
    answers = fitted.label([targets[a] for a in first], [targets[b] for b in second])
    return [
        Pair(
            Window(int(a), 0, len(targets[a])), Window(int(b), 0, len(targets[b])), float(p), annotator="transfer", source="transfer",
            label_model="transfer", strategy="random", segment_policy="whole", uid=f"transfer-{config['seed']}-{a}-{b}",
        )
        for a, b, p in zip(first, second, answers, strict=True)
        if not np.isnan(p)
    ]  # fmt: skip


def _picture(config: Config, out: Path, fitted: Transfer, sources: list[Source], truth: np.ndarray) -> None:
    assert fitted.fitted is not None
    plans = {task: c.plan for task, c in zip(config["source"], fitted.fitted.couplings, strict=True)}
    ranks = {task: s.prob_first.mean(axis=1) for task, s in zip(config["source"], sources, strict=True)}
    coupling(out / "figures" / "coupling.png", plans, ranks, truth)


def learn(config: Config, out: Path, command: str) -> None:
    """A reward per kind of label, and a policy per arm, all from the same target episodes.

    What the transfer says is how sure it is, not how often people would agree, so the reward learns its sides: from its shades
    it learns gaps that are too small where they should be large.
    """
    from hydra.utils import instantiate

    targets = _load(out, config["target"])
    rows = read_json(out / "labels" / "pairs.json")
    if not rows:
        raise InputError(
            "pearl: got no carried answer about the target, wanted some. The sources' answers are all ties, or labeler.coverage and "
            "labeler.threshold leave none."
        )
    windows = [(Window(a, 0, len(targets[a])), Window(b, 0, len(targets[b]))) for a, b, _ in rows]
    sides = [0.5 + 0.5 * float(np.sign(p - 0.5)) for _, _, p in rows]
    carried = [Pair(a, b, side, source="transfer") for (a, b), side in zip(windows, sides, strict=True)]
    answers = Teacher(criterion=config["transfer"]["teacher"]).label(
        [targets[a.episode] for a, _ in windows], [targets[b.episode] for _, b in windows]
    )
    oracle = [Pair(a, b, float(p)) for (a, b), p in zip(windows, answers, strict=True)]
    models: dict[str, Path] = {}
    for name, pairs in (("transfer", carried), ("oracle", oracle)):

        def make(partial: Path, pairs: list[Pair] = pairs) -> dict[str, Any]:
            torch.manual_seed(config["seed"])
            batch = batch_of(targets, pairs)
            model = instantiate(config["reward"], _partial_=True)(dims=dims_of(_env(config, config["target"])))
            generator = torch.Generator().manual_seed(config["seed"])
            logs = list(fit_reward(model, batch, FitSettings(**config["reward_protocol"]), generator))
            save(model, partial / "model", {"pairs": len(pairs)})
            write_log(partial / "log.jsonl", [{"stage": "reward", "step": len(logs), **logs[-1]}])
            return {"pairs": len(pairs), "flip_estimate": float(model.calibration.flip)}

        unit(out / "rewards" / name, make)
        models[name] = out / "rewards" / name / "model"
    _judge_rewards(out, models, targets, oracle)
    write_json(out / "metrics.json", _begun(config, out, command))
    arms: dict[str, str | Path] = {
        "transfer": models["transfer"],
        "oracle": models["oracle"],
        "true_reward": "true",
        "zero_reward": "zero",
        "cloned": "clone",
    }
    offline.arms(config, targets, {k: v for k, v in arms.items() if k in config["transfer"]["arms"]}, out / "arms")


def _judge_rewards(out: Path, models: dict[str, Path], targets: list[Trajectory], oracle: list[Pair]) -> None:
    """Both rewards against the target's true answers, as a picture and numbers; nothing is learned from this."""
    batch = batch_of(targets, oracle)
    truth = batch.prob_first.double().numpy()
    curves = {f"reward from {name}": (probabilities(load(path), batch), truth) for name, path in models.items()}
    reliability(out / "figures" / "calibration.png", curves)
    write_json(out / "rewards" / "quality.json", {name: quality(*curve) for name, curve in curves.items()})


def measure(config: Config, out: Path, command: str) -> None:
    """Open the evaluation resets of the target and complete metrics.json."""
    policies = {name: str(out / "arms" / name / "policy") for name in config["transfer"]["arms"]}
    table = evaluate({**config, "env": _env(config, config["target"])}, policies, out / "evaluation", config["workers"])
    write_json(out / "metrics.json", _begun(config, out, command))
    offline.finish(config, out, table, summary, command, "transfer")


def _load(out: Path, task: str) -> list[Trajectory]:
    return TrajectoryStore(out / "episodes" / task / "store").load()
