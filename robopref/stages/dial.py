"""A dial for safety or speed: marks on bad rollouts -> what is bad -> a steered network beside the base -> one policy with a weight.

`robopref run experiment=safety_dial task=T seed=S out=DIR`. The rater sees at most `pairs` rollouts of the base and says of some that they
were bad; learning sees these marks and free rollouts, never success, reward or cost. Every piece is a resumable unit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.content import trajectory_hash
from robopref.data.store import TrajectoryStore
from robopref.data.windows import chunk_table, segments
from robopref.device import placed
from robopref.labelers.marks import Marks
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.policies.dial import Dial
from robopref.rewards.marked import Marked
from robopref.stages import dial_metrics
from robopref.stages import pretrain as pretraining
from robopref.stages.collect import collect_policy, mixture, scripted, write
from robopref.stages.environments import dims_of
from robopref.stages.folders import in_order
from robopref.stages.origin import provenance
from robopref.stages.units import thin, unit, write_log
from robopref.train import fit

Config = dict[str, Any]
FOLDERS = {
    "collect": ("demonstrations",),
    "pretrain": ("base",),
    "steer": ("rounds", "dial"),
    "evaluate": ("evaluation", "figures", "metrics.json"),
    "report": ("report.html",),
}


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept, so a killed run continues."""
    config = of_task(config)
    steps = {
        "collect": lambda: collect(config, out),
        "pretrain": lambda: pretrain(config, out),
        "steer": lambda: steer(config, out),
        "evaluate": lambda: dial_metrics.measure(config, out, command),
        "report": lambda: dial_metrics.report(config, out, command),
    }
    in_order(config, out, FOLDERS, steps)


def of_task(config: Config) -> Config:
    """The configuration with what `dial.tasks` says of its task (`other` for one that is not named), and its environment changed so.

    Raises `InputError` for weights without 0 or below it, a headline that is none of them, and shares outside their ranges.
    """
    dial = config["dial"]
    weights = [float(w) for w in dial["weights"]]
    if not all(math.isfinite(w) and w >= 0 for w in [*weights, dial["headline"]]):
        raise InputError(
            f"dial.weights: got {weights} and headline {dial['headline']}, wanted numbers >= 0 (0 is the base)."
        )
    if 0 not in weights or float(dial["headline"]) not in weights or len(set(weights)) < len(weights):
        raise InputError(
            f"dial.weights: got {weights}, wanted different ones with 0 and the headline {dial['headline']} among them."
        )
    if not 0 < dial["keep"] < 1 or dial["stride"] < 1 or config["rounds"]["count"] < 1:
        raise InputError(
            f"dial.keep, dial.stride: got {dial['keep']}, {dial['stride']}, wanted a share in (0, 1) and >= 1."
        )
    own = dial["tasks"].get(str(config["task"]).replace("_", "-").removesuffix("-v3"), dial["tasks"]["other"])
    env = own["env"] if "_target_" in own["env"] else {**config["env"], **own["env"]}
    base = {**config["base"], "clone": {**config["base"]["clone"], **own["clone"]}}
    kept = {k: v for k, v in own.items() if k not in ("env", "clone", "rounds")}
    rounds = {**config["rounds"], **own["rounds"]}
    return {**config, "env": env, "base": base, "rounds": rounds, "dial": {**dial, "tasks": {}, **kept}}


def collect(config: Config, out: Path) -> None:
    """Demonstrations of all behaviours by turns, good at the task and not all of them careful or brisk."""

    def make(folder: Path) -> dict[str, Any]:
        count, seed = config["base"]["demonstrations"], config["seed"]
        behaviours = mixture(config["dial"]["behaviours"], count)
        made = scripted(config["env"], [10_000 * seed + i for i in range(count)], behaviours, seed, config["workers"])
        write(folder / "store", made, "store demonstrations")
        return {"episodes": count, "success": sum(t.succeeded for t in made) / count}

    unit(out / "demonstrations", make)


def pretrain(config: Config, out: Path) -> None:
    """The base: cloned from all demonstrations."""

    def make(folder: Path) -> dict[str, Any]:
        shown = TrajectoryStore(out / "demonstrations" / "store").load()
        origin = provenance(config, shown)
        pretraining.pretrain(config["policy"], shown, config["base"]["clone"], config["seed"], folder, "base", origin)
        return {"demonstrations": len(shown)}

    unit(out / "base", make)


def rollouts(config: Config, policy: Path, place: Path, number: int) -> list[Trajectory]:
    """Free rollouts of a policy folder, several from each reset of a round."""

    def make(folder: Path) -> dict[str, Any]:
        rounds = config["rounds"]
        begin = rounds["first_reset"] + 10_000 * config["seed"] + 1000 * number
        seeds = [begin + i for i in range(rounds["resets"]) for _ in range(rounds["replicas"])]
        collect_policy(policy, config["env"], seeds, config["seed"], folder / "store", config["workers"], False)
        return {"episodes": len(seeds)}

    unit(place, make)
    return TrajectoryStore(place / "store").load()


def show(
    config: Config, made: list[Trajectory], number: int, earlier: list[Config], model: Marked | None, offset: int
) -> list[Config]:
    """Rows {episode, hash, bad, limit} of what the rater is shown of round `number`'s rollouts `made`, one of a reset.

    Without a model: resets at random, more than the round's share until some are marked and some are not. With one: where it is least
    sure, which teaches most (uncertainty sampling). earlier: rows of the rounds before; offset: place of the first rollout among all.
    """
    dial = config["dial"]
    order = np.random.default_rng([config["seed"], 61, number]).permutation(len(made))
    if model is not None:
        order = np.argsort(np.abs(badness(model, made, dial["stride"])), kind="stable")
    _, places = np.unique([made[i].seed for i in order], return_index=True)
    queue = [int(order[k]) for k in sorted(places)]
    left = config["pairs"] - len(earlier)
    share = looks(config["pairs"], config["rounds"]["count"], dial["first"])[number]
    rater = Marks(dial["cost"], earlier[0]["limit"] if earlier else None).standard([made[i] for i in queue[:share]])
    rows: list[Config] = []
    for i in queue[:left]:
        kinds = {row["bad"] for row in [*earlier, *rows]}
        if len(rows) >= share and len(kinds) == 2:
            break
        bad = bool(rater.marks([made[i]])[0])
        rows.append({"episode": offset + i, "hash": trajectory_hash(made[i]), "bad": bad, "limit": rater.limit})
    return rows


def looks(total: int, rounds: int, first: float) -> list[int]:
    """How many of `total` looks each round gets: the share `first`, then the rest evenly."""
    begin = total if rounds == 1 else max(1, round(first * total))
    rest = total - begin
    return (
        [begin, *(rest // (rounds - 1) + (k < rest % (rounds - 1)) for k in range(rounds - 1))]
        if rounds > 1
        else [begin]
    )


def learn_marks(
    config: Config, everything: list[Trajectory], shown: list[Trajectory], marked: np.ndarray
) -> tuple[Marked, list[dict[str, Any]]]:
    """The model of what the rater marks, its features scaled on all rollouts. marked (N,) bool. Raises `InputError` where all or none are."""
    dial, seed = config["dial"], config["seed"]
    torch.manual_seed(seed)
    model = Marked(dims_of(config["env"]), dial["quantities"], 1.0 if dial["cost"] == "contact" else 0.0)
    model.fit_normalizer(segments(everything, dial["stride"]))
    seen, said = segments(shown, dial["stride"]), torch.from_numpy(marked.astype(np.float32))

    def step(_: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        return model.loss(seen, said)

    generator = torch.Generator().manual_seed(seed)
    rows = list(fit(model, step, generator=generator, weight_decay=1e-2, **dial["marks"]))
    logs = [{"stage": "marks", "step": len(rows), **rows[-1]}]
    return model.eval(), logs


@torch.no_grad()
def badness(model: Marked, trajectories: list[Trajectory], stride: int) -> np.ndarray:
    """Logit of "would be marked" of every trajectory, members averaged: (N,)."""
    blocks = [trajectories[i : i + 64] for i in range(0, len(trajectories), 64)]
    return np.concatenate([model.badness(segments(one, stride)).mean(dim=0).numpy() for one in blocks])


def chosen(bad: np.ndarray, seeds: np.ndarray, keep: float) -> tuple[torch.Tensor, PairTable]:
    """What to learn from, by how bad (N,) rollouts of resets (N,) are: the least bad share `keep` of each reset, and its ends as pairs.

    A rollout that would rather be marked than not is no example, unless nothing else is left; pairs of a gap below one standard
    deviation of all are dropped.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for index, seed in enumerate(seeds.tolist()):
        groups[seed].append(index)
    ordered = [sorted(group, key=lambda i: bad[i]) for group in groups.values()]
    best = [i for group in ordered for i in group[: max(1, round(keep * len(group)))]]
    anchors = [i for i in best if bad[i] < 0] or best
    gap = max(float(bad.std()), 1e-6)
    ends = [(g[0], g[-1]) for g in ordered if bad[g[-1]] - bad[g[0]] >= gap] or [
        max(((g[0], g[-1]) for g in ordered if len(g) > 1), key=lambda pair: bad[pair[1]] - bad[pair[0]])
    ]
    first, second = (torch.tensor([pair[side] for pair in ends]) for side in (0, 1))
    odds = torch.tensor([float(bad[b] - bad[a]) for a, b in ends])
    return torch.tensor(sorted(anchors)), PairTable(first, second, odds.sigmoid(), torch.ones(len(ends)))


def steer(config: Config, out: Path) -> None:
    """Rounds of free rollouts, looks and alignment; in the end one policy: the base, what was steered, and a weight."""
    base = acting = out / "base" / "policy"
    gathered: list[Trajectory] = []
    said: list[Config] = []
    for number in range(config["rounds"]["count"]):
        place = out / "rounds" / f"{number}"
        made = rollouts(config, acting, place / "rollouts", number)
        marked = unit(place / "marks", partial(_mark, config, place, number, made, gathered, said))
        gathered, said = [*gathered, *made], [*said, *marked["marks"]]
        unit(place / "steered", partial(_round, config, place / "marks" / "model", acting, gathered, len(made), number))
        acting = place / "steered" / "policy"

    def last(folder: Path) -> dict[str, Any]:
        dial = Dial(load(base), load(acting), float(config["dial"]["headline"]))
        save(dial, folder / "policy", provenance(config, gathered, acting))
        return {"looks": len(said), "marked": sum(row["bad"] for row in said)}

    unit(out / "dial", last)


def _mark(
    config: Config, place: Path, number: int, made: list[Trajectory], gathered: list[Trajectory], said: list[Config], folder: Path
) -> dict[str, Any]:  # fmt: skip
    """Show the rater some of a round's rollouts and learn from all marks so far."""
    before = place.parent / f"{number - 1}" / "marks" / "model"
    rows = show(config, made, number, said, load(before) if number else None, len(gathered))
    every, told = [*gathered, *made], [*said, *rows]
    shown, bad = [every[row["episode"]] for row in told], np.array([row["bad"] for row in told])
    model, logs = learn_marks(config, every, shown, bad)
    save(model, folder / "model", provenance(config, shown, marks=int(bad.sum())))
    write_log(folder / "log.jsonl", logs)
    return {"marks": rows, "accuracy": logs[-1]["marks/accuracy"]}


def _round(
    config: Config, model: Path, policy: Path, gathered: list[Trajectory], newest: int, number: int, folder: Path
) -> dict[str, Any]:
    """One alignment of a policy folder on all rollouts so far, of which the last `newest` are the policy's own."""
    bad = badness(load(model), gathered, config["dial"]["stride"])
    anchors, pairs = chosen(bad, np.array([t.seed for t in gathered]), config["dial"]["keep"])
    learned = placed(load(policy))
    logs = aligned(config, learned, gathered, anchors, pairs, number)
    save(learned, folder / "policy", provenance(config, gathered, policy, anchors=len(anchors), pairs=len(pairs)))
    write_log(folder / "log.jsonl", logs)
    return {"anchors": len(anchors), "pairs": len(pairs), "share_bad": float((bad[-newest:] > 0).mean())}


def aligned(
    config: Config, policy: Any, trajectories: list[Trajectory], anchors: torch.Tensor, pairs: PairTable, number: int
) -> list[dict[str, Any]]:
    """Align `policy` in place against itself as it was; returns logs."""
    from hydra.utils import instantiate

    settings, table = AlignSettings(**config["align"]), chunk_table(trajectories, policy.spec)
    generator = torch.Generator().manual_seed(100 * config["seed"] + number)
    loss = instantiate(config["loss"])
    made = align(policy, policy.reference(), table, pairs, anchors, loss, settings, generator)
    return thin(made, 25, stage="steer", round=number)
