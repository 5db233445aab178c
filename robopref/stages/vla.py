"""One policy that looks and reads, for several tasks: cloned from mixed demonstrations, aligned by trajectory DPO on all tasks' preferences.

Every task has its own store, questions and reward model (the meaning of a state differs between tasks); their pairs are joined, and one
alignment learns from whole trajectories of all tasks at once (GRAPE, Zhang et al. 2024). On request the demonstrations of the base
are judged like rollouts: which of them are good nobody has said, and answers do. Every piece is a resumable unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load, save
from robopref.data.phrasings import Phrasings
from robopref.data.store import TrajectoryStore
from robopref.episodes import Episode
from robopref.learners.align import PairTable
from robopref.stages import baselines, pretrain, vla_metrics
from robopref.stages.align import align_policy
from robopref.stages.collect import collect_policy, mixture, scripted, write
from robopref.stages.evidence import read_rounds
from robopref.stages.folders import in_order
from robopref.stages.label import ask
from robopref.stages.origin import provenance
from robopref.stages.pictures import drawn, load_episodes, pictures_of, settings_of
from robopref.stages.ranking import Ranking, rank
from robopref.stages.reward import fit_reward, predicted_returns
from robopref.stages.units import unit, write_log
from robopref.stages.vla_request import checked, env_of, judged, parts_of, questions, senses_of

Config = dict[str, Any]
_JUDGED = 900
"""In place of the number of a round where demonstrations are judged."""
_WRITTEN = {
    "collect": ("demonstrations",),
    "pretrain": ("base",),
    "align": ("rounds", "arms"),
    "evaluate": ("evaluation", "metrics.json"),
    "report": ("report.html",),
}
FOLDERS = {
    name: tuple(one for later in list(_WRITTEN)[at:] for one in _WRITTEN[later]) for at, name in enumerate(_WRITTEN)
}
"""What a stage that is done again removes: what it wrote, and all that was made from that."""


def run(config: Config, out: Path, command: str) -> None:
    """Run the wanted stages of the experiment in a folder; done pieces are kept, so a killed run continues."""
    phrasings = checked(config)
    steps = {
        "collect": lambda: collect(config, phrasings, out),
        "pretrain": lambda: clone_base(config, phrasings, out),
        "align": lambda: align(config, phrasings, out),
        "evaluate": lambda: vla_metrics.measure(config, phrasings, policies(config, out), out, command),
        "report": lambda: vla_metrics.report(out, command),
    }
    in_order(config, out, FOLDERS, steps)


def asked_episodes(seeds: Sequence[int], sentences: Sequence[str]) -> list[Episode]:
    """Episodes for reset seeds and their sentences; a repeated seed becomes the next replica of its reset, asked alike."""
    seen: dict[int, int] = {}
    listed = []
    for seed, sentence in zip(seeds, sentences, strict=True):
        listed.append(Episode(seed, seen.get(seed, 0), sentence))
        seen[seed] = listed[-1].replica + 1
    return listed


def collect(config: Config, phrasings: dict[str, Phrasings], out: Path) -> None:
    """Good and faulty demonstrations of every task with pictures, each asked for in a trained phrasing; none where the base is given."""
    if config["checkpoint"]:
        return
    count, seed = config["base"]["demonstrations"], config["seed"]
    faulty = round(config["vla"]["faulty"] * count)
    parts = (("good", count - faulty), ("faulty", faulty))
    behaviours = [b for kind, n in parts for b in mixture(config["imperfections"][kind], n)]
    cameras = tuple(dict.fromkeys([*senses_of(config)[1].cameras, *config["cameras"]]))
    for task, said in phrasings.items():

        def make(partial: Path, task: str = task, said: Phrasings = said) -> dict[str, Any]:
            env = env_of(config, task)
            wanted = asked_episodes([10_000 * seed + i for i in range(count)], said.of("trained", count))
            made = scripted(env, wanted, behaviours, seed, config["workers"], cameras=cameras)
            write(partial / "store", made, f"store {task}", render=settings_of(env, cameras))
            return {"episodes": len(made), "success": sum(t.succeeded for t in made) / len(made)}

        unit(out / "demonstrations" / task, make)


def clone_base(config: Config, phrasings: dict[str, Phrasings], out: Path) -> None:
    """One policy from the demonstrations of all tasks, or the one of `checkpoint`."""

    def make(partial: Path) -> dict[str, Any]:
        if config["checkpoint"]:
            given = Path(config["checkpoint"])
            policy = load(given)
            save(policy, partial / "policy", provenance(config, [], given))
            return {"episodes": 0, "parameters": sum(p.numel() for p in policy.parameters())}
        stores = [_store(out / "demonstrations" / task, "pretrain", "collect") for task in phrasings]
        every = [t for store in stores for t in load_episodes(store, pictures_of(config["policy"]))]
        origin = provenance(config, every, faulty=config["vla"]["faulty"])
        pretrain.pretrain(
            config["policy"], every, config["base"]["clone"], config["seed"], partial, "base", origin, drawn(stores[0])
        )
        parameters = sum(p.numel() for p in load(partial / "policy").parameters())
        return {"episodes": len(every), "parameters": parameters}

    unit(out / "base", make)


def align(config: Config, phrasings: dict[str, Phrasings], out: Path) -> None:
    """Rounds of rollouts, questions and rewards of every task, each round with one alignment on all of them; then the baselines."""
    policy = base = out / "base" / "policy"
    load(base)
    stores: dict[str, list[Path]] = {task: [] for task in phrasings}
    if judged(config):
        stores = {task: [judge(config, task, out, at, len(phrasings))] for at, task in enumerate(phrasings)}
    for number in range(config["rounds"]["count"]):
        place = out / "rounds" / f"round-{number}"
        for at, (task, said) in enumerate(phrasings.items()):
            stores[task].append(gather(config, policy, task, said, place / "tasks" / task, number, at, len(phrasings)))
        unit(place / "align", lambda partial: _align_round(config, stores, policy, partial, number))  # noqa: B023
        policy = place / "align" / "policy"
    if "filtered" in config["vla"]["baselines"]:
        baselines.filtered(config, out, base, [str(s) for task in stores.values() for s in task])


def judge(config: Config, task: str, out: Path, at: int, tasks: int) -> Path:
    """Answers about the demonstrations of one task; returns their store."""
    store = _store(out / "demonstrations" / task, "align", "collect")

    def label(_: Path) -> dict[str, Any]:
        share, seed = questions(config, 0, at, tasks), 1000 * config["seed"] + _JUDGED
        ask(store, store.load(), config["labeler"], share, seed, config["labeler_name"])
        return {"asked": share}

    unit(out / "rounds" / "demonstrations" / task, label)
    return store.root


def gather(
    config: Config, policy: Path, task: str, said: Phrasings, place: Path, number: int, at: int, tasks: int
) -> Path:
    """Rollouts of the current policy on one task and the answers about them; returns the store. `at`: which of the tasks it is."""
    rounds, seed = config["rounds"], config["seed"]
    store = place / "rollouts" / "store"

    def roll_out(partial: Path) -> dict[str, Any]:
        begin = rounds["first_reset"] + 10_000 * seed + 1000 * number
        seeds = [begin + i for i in range(rounds["resets"]) for _ in range(rounds["replicas"])]
        sentences = [one for one in said.of("trained", rounds["resets"]) for _ in range(rounds["replicas"])]
        wanted = asked_episodes(seeds, sentences)
        collect_policy(
            policy, env_of(config, task), wanted, seed, partial / "store", config["workers"], config["record_expert"],
            config["record_sim_state"], tuple(config["cameras"]),
        )  # fmt: skip
        return {"episodes": len(wanted)}

    def label(partial: Path) -> dict[str, Any]:
        share = questions(config, number + parts_of(config) - rounds["count"], at, tasks)
        opened = TrajectoryStore(store)
        ask(opened, opened.load(), config["labeler"], share, 1000 * seed + number, config["labeler_name"])
        return {"asked": share}

    unit(place / "rollouts", roll_out)
    unit(place / "labels", label)
    return store


def _align_round(
    config: Config, stores: dict[str, list[Path]], policy: Path, partial: Path, number: int
) -> dict[str, Any]:
    """A reward and a ranking for every task from all its answers so far, and one alignment of the policy on all rankings."""
    pictures = load(policy).spec.pictures
    every: list[Trajectory] = []
    rankings: list[Ranking] = []
    undecided = []
    for task, rounds_of_task in stores.items():
        trajectories, answers, rounds = read_rounds(rounds_of_task, pictures)
        if all(one.prob_first == 0.5 for one in answers):  # nothing was said about this task
            undecided.append(task)
            continue
        model, _ = fit_reward(config["reward"], trajectories, answers, seed=config["seed"], **config["reward_fit"])
        save(model, partial / "rewards" / task, provenance(config, trajectories, answers=len(answers)))
        predicted, seeds = predicted_returns(model, trajectories), np.array([t.seed for t in trajectories])
        settings = config["rounds"]
        found = rank(predicted, seeds, rounds, settings["top"], settings["held_out"], config["seed"])
        rankings.append(moved(found, len(every)))
        every += trajectories
    if not rankings:
        raise InputError(
            "align: got no decided answer about any task, wanted some. Ask more (pairs=N), or of another labeler."
        )
    joined = join(rankings)
    logs: list[dict[str, Any]] = []
    measured, stopped = align_policy(config, policy, every, joined, 1.0, partial, logs, "aligned", number)
    write_log(partial / "log.jsonl", logs)
    return {
        "pairs": len(joined.train), "anchors": len(joined.anchors), "trajectories": len(every), "undecided": undecided,
        "stopped": stopped, **measured,
    }  # fmt: skip


def moved(ranking: Ranking, by: int) -> Ranking:
    """A ranking of trajectories that stand `by` places later in a longer list."""

    def later(pairs: PairTable) -> PairTable:
        return PairTable(pairs.first + by, pairs.second + by, pairs.prob_first, pairs.weight)

    listed = torch.where(ranking.group < 0, ranking.group, ranking.group + by)
    return replace(
        ranking,
        anchors=ranking.anchors + by,
        train=later(ranking.train),
        held_out=later(ranking.held_out),
        group=listed,
    )


def join(rankings: Sequence[Ranking]) -> Ranking:
    """Several rankings as one."""

    def pairs(tables: Sequence[PairTable]) -> PairTable:
        columns = ("first", "second", "prob_first", "weight")
        return PairTable(*(torch.cat([getattr(one, name) for one in tables]) for name in columns))

    return Ranking(
        torch.cat([r.anchors for r in rankings]),
        pairs([r.train for r in rankings]),
        pairs([r.held_out for r in rankings]),
        *(torch.cat([getattr(r, name) for r in rankings]) for name in ("indicator", "group", "grade")),
    )


def policies(config: Config, out: Path) -> dict[str, Path]:
    """The policies of a run that are compared, by name."""
    last = out / "rounds" / f"round-{config['rounds']['count'] - 1}" / "align"
    made = {"base": out / "base" / "policy", "aligned": last / "policy"}
    return made | {name: out / "arms" / name / "policy" for name in config["vla"]["baselines"]}


def _store(folder: Path, stage: str, before: str) -> TrajectoryStore:
    if not (folder / "store").exists():
        raise InputError(f"{stage}: got no {folder / 'store'}, wanted what `{before}` makes. Run that stage first.")
    return TrajectoryStore(folder / "store")
