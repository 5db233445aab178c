"""Align: rounds of roll out -> ask -> learn a reward -> rank -> align -> gate, every piece a resumable unit.

Rollouts are free, questions are not: a few answers train a reward model, the model ranks many rollouts, and ranked rollouts give the
pairs. Training sees the teacher's answers only; the gate judges its own resets by success, and those episodes are counted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import Trajectory
from robopref.checkpoint import load, save
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.data.windows import chunk_table
from robopref.learners.align import AlignSettings, PairTable, align, calibrate
from robopref.learners.guard import HeldOutGuard
from robopref.pictures import PictureSpec
from robopref.policies.realigned import realign
from robopref.stages.choosing import choose
from robopref.stages.collect import collect_policy
from robopref.stages.environments import roll
from robopref.stages.label import ask
from robopref.stages.origin import provenance
from robopref.stages.people import answered_dataset, are_people, ask_people
from robopref.stages.pictures import load_episodes
from robopref.stages.ranking import Ranking, rank
from robopref.stages.reward import Answer, fit_reward, predicted_returns
from robopref.stages.units import thin, unit, write_log

Config = dict[str, Any]


def rounds_of(config: Config, run: Path, arm: str, base: Path, preference: float) -> dict[str, Any]:
    """All rounds of one arm, starting from the base policy; returns the folder of the policy that stays and the records of guard and choice."""
    folder, policy, record = run / "arms" / arm, base, []
    stores: list[Path] = []
    accepted: list[Path] = []
    best = judge(config, base, run / "judged")
    for number in range(config["rounds"]["count"]):
        place = folder / f"round-{number}"
        # The first round's rollouts and answers belong to the base and are the same for every arm.
        shared = run / "rounds" if number == 0 else place
        stores.append(gather_round(config, policy, shared, number))
        fitted = unit(place / "align", lambda partial: _align_round(config, stores, policy, partial, arm, preference))  # noqa: B023
        gate = unit(place / "gate", lambda _: _gate(config, best, place / "align" / "policy", place / "judged"))  # noqa: B023
        record.append({"round": number, "arm": arm, **fitted, **gate})
        if gate["accepted"]:
            policy, best = place / "align" / "policy", max(best, gate["success_after"])
            accepted.append(policy)
    choice = {}
    if accepted and config["choose"]["resets"]:
        choice = choose(config, accepted, place / "align" / "reward", folder / "chosen")
        policy = folder / "chosen" / "policy"
    return {"policy": str(policy), "guard": record, "choice": choice, "stores": [str(s) for s in stores]}


def gather_round(config: Config, policy: Path, place: Path, number: int, workers: int = 0) -> Path:
    """Rollouts of the current policy and the answers about them; returns the store."""
    if number == 0 and config["dataset"] and are_people(config):
        return answered_dataset(Path(config["dataset"]))  # people compared these episodes, not the base's
    store = place / "rollouts" / "store"
    rounds = config["rounds"]

    def collect(partial: Path) -> dict[str, Any]:
        begin = rounds["first_reset"] + 10_000 * config["seed"] + 1000 * number
        seeds = [begin + i for i in range(rounds["resets"]) for _ in range(rounds["replicas"])]
        collect_policy(
            policy, config["env"], seeds, config["seed"], partial / "store", workers, config["record_expert"],
            config["record_sim_state"], tuple(config["cameras"]),
        )  # fmt: skip
        return {"episodes": len(seeds)}

    def label(partial: Path) -> dict[str, Any]:
        trajectories = TrajectoryStore(store)
        share = config["pairs"] // rounds["count"] + (number < config["pairs"] % rounds["count"])
        if are_people(config):
            return {"asked": ask_people(config, store, share) if config["people"]["ask"] else 0}
        seed = 1000 * config["seed"] + number
        ask(trajectories, trajectories.load(), config["labeler"], share, seed, config["labeler_name"])
        return {"asked": share}  # a resumed piece stores fewer: it finds the answers of the killed one

    unit(place / "rollouts", collect)
    unit(place / "labels", label)
    return store


def read_rounds(
    stores: list[Path], pictures: PictureSpec | None = None
) -> tuple[list[Trajectory], list[Answer], np.ndarray]:
    """Trajectories of several stores in one list, the answers about them that count, with shifted indices, each one's round.

    pictures: what a policy that looks wants to see of them.
    """
    trajectories: list[Trajectory] = []
    answers: list[Answer] = []
    rounds: list[int] = []
    for number, root in enumerate(stores):
        store, offset = TrajectoryStore(root), len(trajectories)
        trajectories += load_episodes(store, pictures or PictureSpec())
        rounds += [number] * (len(trajectories) - offset)
        answers += [
            Answer(offset + p.first.episode, offset + p.second.episode, p.prob_first, p.weight)
            for p in PreferenceStore(store).pairs()
            if p.answered and p.weight > 0
        ]
    return trajectories, answers, np.array(rounds)


def _align_round(
    config: Config, stores: list[Path], policy: Path, partial: Path, arm: str, preference: float
) -> dict[str, Any]:
    """Reward from all answers so far, ranking of all rollouts so far, one alignment against the current policy."""
    number = len(stores) - 1
    trajectories, answers, rounds = read_rounds(stores, load(policy).spec.pictures)
    model, reward_logs = fit_reward(
        config["reward"], trajectories, answers, seed=config["seed"], **config["reward_fit"]
    )
    save(model, partial / "reward", provenance(config, trajectories, answers=len(answers)))
    predicted = predicted_returns(model, trajectories)
    seeds = np.array([t.seed for t in trajectories])
    ranking = rank(predicted, seeds, rounds, config["rounds"]["top"], config["rounds"]["held_out"], config["seed"])
    logs = [{"stage": "reward", "arm": arm, "round": number, "step": len(reward_logs), **reward_logs[-1]}]
    found, stopped = align_policy(config, policy, trajectories, ranking, preference, partial, logs, arm, number)
    write_log(partial / "log.jsonl", logs)
    return {
        "answers": len(answers),
        "pairs": len(ranking.train),
        "anchors": len(ranking.anchors),
        "stopped": stopped,
        **found,
    }


def align_policy(
    config: Config, policy: Path, trajectories: list[Trajectory], ranking: Ranking, preference: float,
    partial: Path, logs: list[dict[str, Any]], arm: str, number: int,
) -> tuple[dict[str, float], str]:  # fmt: skip
    """Align a policy folder on ranked trajectories into `partial`/policy under the held-out guard; returns its last measure and why it stopped.

    It will act `rounds.guidance` beyond its training, away from the policy of the first round.
    """
    from hydra.utils import instantiate

    settings = AlignSettings(**{**config["align"], "preference": preference * config["align"]["preference"]})
    learned, loss = realign(load(policy), config["rounds"]["guidance"]), instantiate(config["loss"])
    reference = learned.reference()
    table = chunk_table(trajectories, learned.spec)
    seed = 100 * config["seed"] + number
    scale = calibrate(reference, table, settings, torch.Generator().manual_seed(seed))
    guard = HeldOutGuard(learned, reference, table, ranking.held_out, scale, settings, seed)
    watched, every = len(ranking.held_out) > 0, config["guard"]["every"]
    generator = torch.Generator().manual_seed(seed)
    rows, found, stopped = [], guard.measure() if watched else {}, ""
    for step, row in enumerate(
        align(learned, reference, table, ranking.train, ranking.anchors, loss, settings, generator), 1
    ):
        rows.append(row)
        if watched and step % every == 0:
            go_on, found = guard.check()
            logs.append({"stage": "align", "arm": arm, "round": number, "step": step, **found})
            if not go_on:
                stopped = f"step {step}: held-out winners became less likely; rolled back to the last good weights"
                break
    fell, last = guard.finish(unchecked=watched and len(rows) % every != 0)
    if last:
        found = last
        logs.append({"stage": "align", "arm": arm, "round": number, "step": len(rows), **found})
    if fell:
        stopped = "at the end held-out winners were less likely than before; rolled back to the last good weights"
    logs += thin(rows, 25, stage="align", arm=arm, round=number)
    facts = {"scale": scale, "beta": settings.kappa / scale, "lr": settings.lr}
    save(learned, partial / "policy", provenance(config, trajectories, policy, **facts))
    return found, stopped


def judge(config: Config, policy: Path, place: Path, workers: int = 0) -> float:
    """Success of a policy folder on the gate's own resets, rolled out once and kept in `place`."""
    seeds = list(range(config["gate"]["first_reset"], config["gate"]["first_reset"] + config["gate"]["episodes"]))

    def make(_: Path) -> dict[str, Any]:
        outcomes = roll(policy, config["env"], seeds, config["seed"], workers)
        return {"success": sum(t.succeeded for t in outcomes) / len(outcomes), "judged": len(outcomes)}

    return float(unit(place, make)["success"])


def _gate(config: Config, old: float, after: Path, place: Path) -> dict[str, Any]:
    """Refuse the new policy if its success on the gate's resets is below the best so far by more than the tolerance."""
    new = judge(config, after, place)
    accepted = new >= old - config["gate"]["tolerance"]
    reason = f"success on {config['gate']['episodes']} gate resets went from {old:.0%} to {new:.0%}"
    return {"accepted": accepted, "reason": reason, "success_before": old, "success_after": new}


def labelled_pairs(answers: list[Answer], ties: bool) -> PairTable:
    """The answers themselves as a pair table, with or without ties."""
    kept = [a for a in answers if ties or a.prob_first != 0.5]
    first, second = (torch.tensor([a[k] for a in kept], dtype=torch.int64) for k in range(2))
    prob, weight = (torch.tensor([a[k] for a in kept], dtype=torch.float32) for k in (2, 3))
    return PairTable(first, second, prob, weight)


def winners(answers: list[Answer]) -> list[int]:
    """Trajectories that were preferred in a decided answer, each once."""
    return sorted({a.first if a.prob_first > 0.5 else a.second for a in answers if a.prob_first != 0.5})
