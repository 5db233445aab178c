"""Align: rounds of roll out -> ask -> learn a reward -> rank -> align -> gate, every piece a resumable unit.

Rollouts are free, questions are not: a few answers train a reward model, the model ranks many rollouts, and ranked rollouts give the
pairs. Training sees the teacher's answers only; the gate judges its own resets by success, and those episodes are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial as bind
from pathlib import Path
from typing import Any

import torch

from robopref import processes
from robopref.arrays import Trajectory
from robopref.checkpoint import load, save
from robopref.data.files import write_json
from robopref.data.store import TrajectoryStore
from robopref.data.windows import chunk_table
from robopref.device import placed
from robopref.learners.align import AlignSettings, calibrate
from robopref.learners.guard import HeldOutGuard
from robopref.policies.lora import LoRA
from robopref.policies.realigned import realign
from robopref.stages.choosing import choose, keep_best, predicted_success
from robopref.stages.collect import collect_policy
from robopref.stages.evidence import SCORES, asked, evidence
from robopref.stages.gate import compare
from robopref.stages.label import ask, grade
from robopref.stages.on_arm import is_on_arm, play, recorded
from robopref.stages.origin import provenance
from robopref.stages.people import answered_dataset, are_people, ask_people
from robopref.stages.ranking import Ranking
from robopref.stages.steps import acting, adapted, learn, trained
from robopref.stages.units import thin, unit, write_log

Config = dict[str, Any]


def rounds_of(config: Config, run: Path, arm: str, base: Path, preference: float) -> dict[str, Any]:
    """All rounds of one arm, starting from the base policy; returns the folder of the policy that stays and the records of guard and choice."""
    folder, policy, record = run / "arms" / arm, base, []
    stores: list[Path] = []
    accepted: list[Path] = []
    best = (base, run / "judged")  # what a new policy is compared with, and where its judged episodes are kept
    for number in range(config["rounds"]["count"]):
        place = folder / f"round-{number}"
        # The first round's rollouts and answers belong to the base and are the same for every arm.
        shared = run / "rounds" if number == 0 else place
        stores.append(gather_round(config, policy, shared, number))
        fitted = unit(place / "align", lambda partial: _align_round(config, stores, policy, partial, arm, preference))  # noqa: B023
        new = (place / "align" / "policy", place / "judged")
        gate = unit(place / "gate", lambda _: compare(config, best, new))  # noqa: B023
        record.append({"round": number, "arm": arm, **fitted, **gate})
        if gate["accepted"]:
            policy = new[0]
            best = new if gate["difference"] >= 0 else best  # small losses of several rounds must not add up
            accepted.append(policy)
    choice = {}
    if config["choose"]["resets"]:
        sure = any(one["sure"] for one in record)
        gained = any(one["accepted"] and one["difference"] > 0 for one in record)
        rest = None if sure else base
        choice = choose(config, accepted, rest, place / "align" / "reward", folder / "chosen", stores, gained)
        policy = folder / "chosen" / "policy"
    return {"policy": str(policy), "guard": record, "choice": choice, "stores": [str(s) for s in stores]}


def gather_round(config: Config, policy: Path, place: Path, number: int, workers: int = 0) -> Path:
    """Rollouts of the current policy and the answers about them; returns the store."""
    if number == 0 and config["dataset"] and are_people(config):
        return answered_dataset(Path(config["dataset"]))  # people compared these episodes, not the base's
    store = place / "rollouts" / "store"
    rounds = config["rounds"]

    def collect(partial: Path) -> dict[str, Any]:
        if number == 0 and config["dataset"]:
            return recorded(Path(config["dataset"]), policy, partial)
        begin = rounds["first_reset"] + 10_000 * config["seed"] + (0 if rounds["same_resets"] else 1000 * number)
        seeds = [begin + i for i in range(rounds["resets"]) for _ in range(rounds["replicas"])]
        if is_on_arm(config):
            return play(config, policy, seeds, partial)
        collect_policy(
            policy, config["env"], seeds, config["seed"], partial / "store", workers, config["record_expert"],
            config["record_sim_state"], tuple(config["cameras"]), config["record_log_prob"],
        )  # fmt: skip
        return {"episodes": len(seeds)}

    def label(partial: Path) -> dict[str, Any]:
        trajectories = TrajectoryStore(store)
        share = config["pairs"] // rounds["count"] + (number < config["pairs"] % rounds["count"])
        if are_people(config):
            return {"asked": ask_people(config, store, share) if config["people"]["ask"] else 0}
        seed = 1000 * config["seed"] + number
        if config["rank_by"] == "scores":
            scores = grade(trajectories, trajectories.load(), config["labeler"], seed, config["labeler_name"])
            write_json(partial / SCORES, scores)
            return {"asked": len(scores)}
        ask(trajectories, trajectories.load(), config["labeler"], share, seed, config["labeler_name"])
        return {"asked": share}  # a resumed piece stores fewer: it finds the answers of the killed one

    unit(place / "rollouts", collect)
    unit(place / "labels", label)
    return store


def _align_round(
    config: Config, stores: list[Path], policy: Path, partial: Path, arm: str, preference: float
) -> dict[str, Any]:
    """What all rollouts and answers so far teach, and one alignment against the current policy."""
    number = len(stores) - 1
    pictures = load(policy).spec.pictures
    trajectories, ranking, logs = evidence(config, stores, partial, pictures, arm=arm, round=number)
    judge = None
    if config["choose"]["resets"] and (partial / "reward").exists():
        judge = bind(predicted_success, config, reward=load(partial / "reward"))
    found, stopped = align_policy(config, policy, trajectories, ranking, preference, partial, logs, arm, number, judge)
    write_log(partial / "log.jsonl", logs)
    return {
        "answers": sum(asked(store) for store in stores),
        "pairs": len(ranking.train),
        "anchors": len(ranking.anchors),
        "stopped": stopped,
        **found,
    }


def align_policy(
    config: Config, policy: Path, trajectories: list[Trajectory], ranking: Ranking, preference: float,
    partial: Path, logs: list[dict[str, Any]], arm: str, number: int, judge: Callable[..., float] | None = None,
) -> tuple[dict[str, float], str]:  # fmt: skip
    """Align a policy folder on ranked trajectories into `partial`/policy under the held-out guard; returns its last measure and why it stopped.

    It will act `rounds.guidance` beyond its training, away from the policy of the first round. judge: predicted return of a policy; where
    given, a training longer than `choose.every` steps ends with the best of the weights of every so many steps.
    """
    from hydra.utils import instantiate

    settings = AlignSettings(**{**config["align"], "preference": preference * config["align"]["preference"]})
    before, loss = placed(load(policy)), instantiate(config["loss"])
    seed = 100 * config["seed"] + number
    learned = adapted(config, realign(trained(before), config["rounds"]["guidance"]), seed)
    reference = learned.reference()
    table = chunk_table(trajectories, learned.spec)
    scale = calibrate(reference, table, settings, torch.Generator().manual_seed(seed))
    guard = HeldOutGuard(learned, reference, table, ranking.held_out, scale, settings, seed)
    watched, every = len(ranking.held_out) > 0, config["guard"]["every"]
    generator = torch.Generator().manual_seed(seed)
    rows, found, stopped = [], guard.measure() if watched else {}, ""
    marks: dict[int, dict[str, torch.Tensor]] = {}
    for step, row in enumerate(
        learn(config, config["learner"], learned, reference, table, ranking, loss, settings, scale, generator), 1
    ):
        rows.append(row)
        if watched and step % every == 0:
            go_on, found = guard.check()
            go_on = processes.agreed(go_on)
            logs.append({"stage": "align", "arm": arm, "round": number, "step": step, **found})
            if not go_on:
                stopped = f"step {step}: held-out winners became less likely; rolled back to the last good weights"
                break
        if judge and step % config["choose"]["every"] == 0 and step < settings.steps:
            marks[step] = {name: value.clone() for name, value in learned.state_dict().items()}
    fell, last = guard.finish(unchecked=watched and len(rows) % every != 0)
    if last:
        found = last
        logs.append({"stage": "align", "arm": arm, "round": number, "step": len(rows), **found})
    if fell:
        stopped = "at the end held-out winners were less likely than before; rolled back to the last good weights"
    if judge and marks:
        learned.eval()
        found = {**found, **keep_best(learned, marks, lambda: judge(acting(config, learned, before, reference)))}
    logs += thin(rows, 25, stage="align", arm=arm, round=number)
    facts = {"scale": scale, "beta": settings.kappa / scale, "lr": settings.lr}
    save(
        acting(config, learned.merged() if isinstance(learned, LoRA) else learned, before, reference),
        partial / "policy",
        provenance(config, trajectories, policy, **facts),
    )
    return found, stopped
