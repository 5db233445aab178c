"""The policy step of a round, by the name of its learner, and what then acts: the policy itself or the best of N of its candidates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robopref.arrays import InputError
from robopref.data.windows import ChunkTable
from robopref.learners.align import AlignSettings, align
from robopref.learners.conditioned import condition
from robopref.learners.contrast import ContrastSettings, contrast
from robopref.learners.sets import FLAGGED, align_flags, align_lists, lists_of
from robopref.learners.unreferenced import ErrorLoss, unreferenced
from robopref.losses.listwise import lambda_rank, list_softmax, plackett_luce
from robopref.losses.reference_free import fkpd, mapo
from robopref.networks.recompute import recompute
from robopref.policies.best_of import BestOf, ImplicitReward
from robopref.policies.conditioned import Conditioned
from robopref.policies.lora import LoRA
from robopref.protocols import ListLoss, PairLoss
from robopref.stages.ranking import Ranking

Config = dict[str, Any]
LISTS: dict[str, ListLoss] = {"plackett_luce": plackett_luce, "list_softmax": list_softmax, "lambda_rank": lambda_rank}
"""Learners on ranked rollouts of a reset, by their loss."""


def learn(
    config: Config, learner: str, policy: Any, reference: Any, table: ChunkTable, ranking: Ranking, loss: PairLoss,
    settings: AlignSettings, scale: float, generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place by a learner's name; yields logs. With preference 0 every learner becomes cloning of the winners.

    Raises `InputError` for a learner that wants another policy.
    """
    if learner == "align" or settings.preference == 0:
        weight = config["objectives"]["weights"][0]
        tempered = replace(settings, kappa=settings.kappa / weight)
        yield from align(policy, reference, table, ranking.train, ranking.anchors, loss, tempered, generator)
    elif learner == "conditioned":
        assert isinstance(policy, Conditioned)  # the door has seen to it
        policy.set_guidance(config["condition"]["guidance"])
        yield from condition(
            policy, table, ranking.indicator, steps=settings.steps, lr=settings.lr, batch=settings.anchor_chunks,
            generator=generator, drop=config["condition"]["drop"],
        )  # fmt: skip
    elif learner in LISTS:
        lists = lists_of(ranking.group, ranking.grade)
        yield from align_lists(policy, reference, table, lists, ranking.anchors, LISTS[learner], settings, generator)
    elif learner in FLAGGED:
        flags = ranking.indicator
        yield from align_flags(policy, reference, table, flags, ranking.anchors, learner, settings, generator)
    elif learner == "diffusion_cpl":
        # Diff-CPL (Diff-UAPA, eq. 12): the regret model on errors relative to the reference, both sides alike; the schedule is in alpha.
        chosen = ContrastSettings(
            "cpl_kl", clone_steps=0, steps=settings.steps, lr=settings.lr, pairs=settings.pairs_per_step,
            chunks=settings.chunks_per_trajectory, bias=1.0,
        )  # fmt: skip
        pairs = ranking.train
        yield from contrast(policy, table, pairs.first, pairs.second, pairs.prob_first, chosen, generator)
    else:
        # An error is -2 scores: the same strength as one unit of kappa rho, and the same anchor as `align` has.
        strengths: dict[str, ErrorLoss] = {
            "mapo": _without_data, "fkpd": partial(fkpd, strength=settings.kappa / (2 * scale), hold=settings.anchor / (2 * scale)),
        }  # fmt: skip
        yield from unreferenced(policy, table, ranking.train, strengths[learner], settings, generator)


def _without_data(first: Tensor, second: Tensor, prob_first: Tensor, data: Tensor) -> Tensor:
    """MaPO as published; it needs no errors on other data."""
    return mapo(first, second, prob_first)


def trained(model: Any) -> Any:
    """The policy that learns inside what acts."""
    return model.judge.policy if isinstance(model, BestOf) else model


def adapted(config: Config, policy: Any, seed: int) -> Any:
    """The policy of which only adapters learn, where `lora.rank` asks for them, its blocks computed again where `recompute` does.

    Raises `InputError` where a second policy must act or learn beside adapters, and for `recompute` without transformer blocks.

    What was learned is merged before it is saved, so that the next round's reference is the policy of this one.
    """
    settings = config["lora"]
    if config.get("recompute"):
        recompute(policy)
    if settings["rank"] == 0:
        return policy
    if config["learner"] != "align" or config["best_of"]["candidates"] > 1 or config["rounds"]["guidance"] > 0:
        raise InputError(
            f"lora.rank: got {settings['rank']} with learner={config['learner']}, best_of.candidates={config['best_of']['candidates']}, "
            f"rounds.guidance={config['rounds']['guidance']}, wanted align, 1 and 0: the reference is no policy of its own.\nSet lora.rank=0."
        )
    torch.manual_seed(seed)  # the first factor of an adapter is drawn
    return LoRA(policy, **settings)


def acting(config: Config, learned: Any, before: Any, reference: Any) -> Any:
    """What the gate, the next round and the evaluation run: `learned` itself, or with `best_of.candidates` > 1 the best of N.

    before: what acted until now. The judge is the likelihood ratio of what was learned against the first round's reference; the
    candidates come from that reference, which has not forgotten how to act (DeformPAM), or from what was learned.
    """
    settings = config["best_of"]
    if settings["candidates"] == 1:
        return learned
    first: Any = before.judge.reference if isinstance(before, BestOf) else reference
    judge = ImplicitReward(learned, first, settings["probes"], settings["lowest"], config["seed"])
    return BestOf(learned if settings["actor"] == "aligned" else first, judge, settings["candidates"])
