"""The baselines that always run beside an alignment, from the same base, on the same data, with as many steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from robopref.arrays import Trajectory
from robopref.checkpoint import load, save
from robopref.data.store import TrajectoryStore
from robopref.data.windows import chunk_table
from robopref.device import placed
from robopref.learners.align import AlignSettings, calibrate
from robopref.learners.clone import clone
from robopref.losses.pairwise import sigmoid
from robopref.stages.evidence import labelled_pairs, read_rounds, winners
from robopref.stages.origin import provenance
from robopref.stages.pictures import load_episodes
from robopref.stages.pretrain import demonstrations_at
from robopref.stages.ranking import Ranking
from robopref.stages.steps import learn
from robopref.stages.units import thin, unit, write_log

Config = dict[str, Any]


def cloned(config: Config, run: Path, base: Path, level: float) -> str:
    """Behaviour cloning continued on the demonstrations of the base."""

    def make(partial: Path) -> dict[str, Any]:
        store = TrajectoryStore(run / "demonstrations" / "store")
        everything = load_episodes(store, load(base).spec.pictures)
        half = len(everything) // 2
        return _clone(config, base, demonstrations_at(level, everything[:half], everything[half:]), partial, "cloned")

    unit(run / "arms" / "cloned", make)
    return str(run / "arms" / "cloned" / "policy")


def filtered(config: Config, run: Path, base: Path, stores: list[str]) -> str:
    """Cloning of the trajectories that won a labelled comparison."""

    def make(partial: Path) -> dict[str, Any]:
        trajectories, answers, _ = read_rounds([Path(s) for s in stores], load(base).spec.pictures)
        chosen = [trajectories[i] for i in winners(answers)]
        if not chosen:  # every answer was a tie: there is nothing to filter by
            chosen = trajectories
        return _clone(config, base, chosen, partial, "filtered")

    unit(run / "arms" / "filtered", make)
    return str(run / "arms" / "filtered" / "policy")


ON_ANSWERS = {"plain_dpo": "align", "diffusion_cpl": "diffusion_cpl", "fkpd": "fkpd", "mapo": "mapo"}
"""Baseline -> learner (`stages.steps`) that trains the base on the labelled pairs alone, with neither guard nor reward model."""


def on_answers(config: Config, run: Path, base: Path, stores: list[str], name: str) -> str:
    """A published learner on the labelled pairs: DPO (Rafailov 2023) with neither anchor nor proximal term, Diff-CPL, FKPD or MaPO."""

    def make(partial: Path) -> dict[str, Any]:
        trajectories, answers, _ = read_rounds([Path(s) for s in stores], load(base).spec.pictures)
        pairs, policy = labelled_pairs(answers, ties=False), placed(load(base))
        reference, steps = policy.reference(), config["align"]["steps"] * config["rounds"]["count"]
        own = {"steps": steps, "preference": 1.0, "proximal": 0.0, "trust": 0.0}
        own |= {"anchor": 0.0} if name == "plain_dpo" else {}
        settings, plain = AlignSettings(**{**config["align"], **own}), {**config, "objectives": {"weights": [1.0]}}
        logs: list[dict[str, Any]] = []
        if len(pairs):
            table, generator = chunk_table(trajectories, policy.spec), torch.Generator().manual_seed(config["seed"])
            scale = calibrate(reference, table, settings, torch.Generator().manual_seed(config["seed"]))
            taught = Ranking(torch.zeros(0, dtype=torch.int64), pairs, pairs)
            made = learn(plain, ON_ANSWERS[name], policy, reference, table, taught, sigmoid, settings, scale, generator)
            logs = thin(made, 25, stage="align", arm=name, round=0)
        save(policy, partial / "policy", provenance(config, trajectories, base, pairs=len(pairs), steps=steps))
        write_log(partial / "log.jsonl", logs)
        return {"pairs": len(pairs)}

    unit(run / "arms" / name, make)
    return str(run / "arms" / name / "policy")


def _clone(config: Config, base: Path, trajectories: list[Trajectory], partial: Path, arm: str) -> dict[str, Any]:
    policy = placed(load(base))
    table = chunk_table(trajectories, policy.spec)
    generator = torch.Generator().manual_seed(config["seed"])
    steps = config["align"]["steps"] * config["rounds"]["count"]
    made = clone(
        policy,
        table,
        steps=steps,
        lr=config["align"]["lr"],
        batch=config["align"]["anchor_chunks"],
        generator=generator,
        autocast=config["align"]["autocast"],
    )
    write_log(partial / "log.jsonl", thin(made, 25, stage="align", arm=arm, round=0))
    save(policy, partial / "policy", provenance(config, trajectories, base, episodes=len(trajectories), steps=steps))
    return {"trajectories": len(trajectories)}
