"""What labels mean: the same episodes judged by return and by regret, and learners that take them for one or the other.

`experiment=regret` asks which learner survives both kinds of label; `experiment=cpl` compares the variants and heads of contrastive
preference learning. Segments are cut at random; every arm sees the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import save
from robopref.data.files import read_json, write_json
from robopref.data.store import TrajectoryStore
from robopref.data.windows import ChunkTable, chunk_table, pair_batch
from robopref.labelers.teacher import Teacher
from robopref.learners.contrast import ContrastSettings, contrast
from robopref.learners.reward import FitSettings, fit_reward
from robopref.stages import offline
from robopref.stages.collect import mixture, scripted, write
from robopref.stages.environments import dims_of
from robopref.stages.evaluate import evaluate, summary
from robopref.stages.folders import in_order
from robopref.stages.units import thin, unit, write_log

Config = dict[str, Any]
FOLDERS = {
    "collect": ("episodes",),
    "label": ("labels",),
    "learn": ("rewards", "arms"),
    "evaluate": ("evaluation", "metrics.json"),
    "report": ("report.html",),
}


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept."""
    dims_of(config["env"])
    names = list(config["arms"])
    steps = {
        "collect": lambda: collect(config, out),
        "label": lambda: label(config, out),
        "learn": lambda: learn(config, out),
        "evaluate": lambda: measure(config, out, names, command),
        "report": lambda: offline.report(out),
    }
    in_order(config, out, FOLDERS, steps)


def collect(config: Config, out: Path) -> None:
    """Scripted episodes of many qualities, with the expert's action beside each step."""

    def make(partial: Path) -> dict[str, Any]:
        count, seed = config["episodes"], config["seed"]
        count = config["transfer"]["episodes"] if count is None else count
        seeds = [10_000 * seed + i for i in range(count)]
        made = scripted(
            config["env"], seeds, mixture(config["transfer"]["imperfections"], count), seed, config["workers"]
        )
        write(partial / "store", made, "store episodes")
        return {"episodes": len(made), "success": sum(t.succeeded for t in made) / len(made)}

    unit(out / "episodes", make)


def label(config: Config, out: Path) -> None:
    """`pairs` questions about random windows of `segment` steps, answered by return and by regret."""

    def make(partial: Path) -> dict[str, Any]:
        trajectories = TrajectoryStore(out / "episodes" / "store").load()
        rng = np.random.default_rng([config["seed"], 31])
        windows = []
        for _ in range(2 * config["pairs"]):
            episode = int(rng.integers(len(trajectories)))
            length = min(config["segment"], len(trajectories[episode]))
            start = int(rng.integers(0, len(trajectories[episode]) - length + 1))
            windows.append((episode, start, start + length))
        cut = [trajectories[e].window(a, b) for e, a, b in windows]
        half = config["pairs"]
        answers = {k: Teacher(criterion=k).label(cut[:half], cut[half:]).tolist() for k in ("return", "regret")}
        write_json(partial / "labels.json", {"windows": windows, "prob_first": answers})
        same = np.mean(np.array(answers["return"]) == np.array(answers["regret"]))
        return {"asked": half, "agreement_of_return_and_regret": float(same)}

    print(
        f"return and regret agree on {unit(out / 'labels', make)['agreement_of_return_and_regret']:.0%} of the pairs",
        flush=True,
    )


def learn(config: Config, out: Path) -> None:
    """One policy per arm: `learner` clone, iql (with `reward` and `labels`, or `reward` true or zero) or contrast (with `labels`)."""
    trajectories = TrajectoryStore(out / "episodes" / "store").load()
    rows = read_json(out / "labels" / "labels.json")
    cut = [trajectories[e].window(a, b) for e, a, b in rows["windows"]]
    for name, arm in config["arms"].items():
        own = {**config, "policy": arm.get("policy") or config["policy"]}
        prob = np.array(rows["prob_first"][arm["labels"]]) if "labels" in arm else None

        def make(
            partial: Path, name: str = name, arm: Config = arm, own: Config = own, prob: np.ndarray | None = prob
        ) -> Config:
            if arm["learner"] == "contrast":
                assert prob is not None
                return _contrast(own, trajectories, cut, prob, arm, partial, name)
            if arm["learner"] == "clone":
                return offline.train_arm(own, trajectories, "clone", partial, name)
            if arm["learner"] != "iql":
                raise InputError(f"arms.{name}.learner: got {arm['learner']!r}, wanted clone, iql or contrast.")
            kind: str | Path = arm["reward"] if prob is None else _reward(own, cut, prob, arm["reward"], partial)
            return offline.train_arm(own, trajectories, kind, partial, name)

        unit(out / "arms" / name, make)


def _reward(config: Config, cut: Sequence[Trajectory], prob: np.ndarray, reward: Config, folder: Path) -> Path:
    """A reward model fitted to the answers, as a folder."""
    from hydra.utils import instantiate

    half = len(prob)
    torch.manual_seed(config["seed"])
    # Rewards are later asked about every STRIDE-th step at a time: an advantage over one step is another quantity.
    batch = pair_batch(cut[:half], cut[half:], prob, np.ones(half), stride=offline.STRIDE)
    model = instantiate(reward, _partial_=True)(dims=dims_of(config["env"]))
    generator = torch.Generator().manual_seed(config["seed"])
    for _ in fit_reward(model, batch, FitSettings(**config["reward_protocol"]), generator):
        pass
    return save(model, folder / "reward", {"pairs": half})


def segment_table(cut: Sequence[Trajectory], policy: Any) -> ChunkTable:
    """The chunks of judged windows, one after the other: the sum over a window's chunks then counts every step once, as CPL's does."""
    return chunk_table(cut, policy.spec, every=policy.spec.execute)


def _contrast(
    config: Config,
    trajectories: Sequence[Trajectory],
    cut: Sequence[Trajectory],
    prob: np.ndarray,
    arm: Config,
    folder: Path,
    name: str,
) -> Config:
    """A policy from the pairs alone: cloning of all segments, then contrast."""
    policy, _ = offline.policy_of(config, trajectories)
    table = segment_table(cut, policy)
    half = len(prob)
    settings = ContrastSettings(**{**config["contrast"], "variant": arm.get("variant", "cpl")})
    made = contrast(
        policy, table, torch.arange(half), torch.arange(half, 2 * half), torch.from_numpy(prob.astype(np.float32)), settings,
        torch.Generator().manual_seed(config["seed"]),
    )  # fmt: skip
    rows = [row for row in made if "contrast/loss" in row]
    write_log(folder / "log.jsonl", thin(rows, 100, stage="learn", arm=name))
    save(policy, folder / "policy", {"arm": name, "pairs": half})
    return {"pairs": half}


def measure(config: Config, out: Path, names: list[str], command: str) -> None:
    """Open the evaluation resets and write metrics.json, each arm against cloning."""
    table = evaluate(
        config, {n: str(out / "arms" / n / "policy") for n in names}, out / "evaluation", config["workers"]
    )
    done = read_json(out / "labels" / "done.json")
    write_json(out / "metrics.json", offline.head(config, command) | {"labels_asked": done["asked"], "labels": done})
    offline.finish(config, out, table, summary, command, "cloned")
