"""What a round learns from: all answers so far turned into winners, pairs and held-out pairs, in one of three ways (`rank_by`).

reward: a model of the answers ranks all rollouts. scores: the labeler has scored every rollout (GRAPE). answers: the answered pairs alone.
Histories mix: rollouts of all rounds so far take part.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import save
from robopref.data.content import behaviour_hash
from robopref.data.files import read_json
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.learners.align import PairTable
from robopref.losses.multi_objective import modpo_lead
from robopref.pictures import PictureSpec
from robopref.stages.origin import provenance
from robopref.stages.pictures import load_episodes
from robopref.stages.ranking import Ranking, from_answers, opened, rank, rejection, semi_policy
from robopref.stages.reward import Answer, fit_reward, predicted_returns

Config = dict[str, Any]
SCORES = "scores.json"


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


def scores_of(store: Path) -> list[float]:
    """What the labeler scored the rollouts of a round's store, where it did; else nothing."""
    path = store.parents[1] / "labels" / SCORES
    return read_json(path) if path.is_file() else []


def asked(store: Path) -> int:
    """Questions that were put to the rater about a round's store: scores of single rollouts, else answers about pairs."""
    return len(scores_of(store)) or len(PreferenceStore(TrajectoryStore(store)).pairs())


def evidence(
    config: Config, stores: list[Path], folder: Path, pictures: PictureSpec, **labels: Any
) -> tuple[list[Trajectory], Ranking, list[dict[str, Any]]]:
    """All rollouts so far, what they teach, and logs (marked with `labels`); a reward model is left in `folder`/reward."""
    trajectories, answers, rounds = read_rounds(stores, pictures)
    seeds, settings, logs = np.array([t.seed for t in trajectories]), config["rounds"], []
    if config["rank_by"] == "answers":
        pairs = labelled_pairs(answers, ties=True)
        check_compared(trajectories, pairs)
        ranking = from_answers(pairs, len(trajectories), settings["held_out"], config["seed"])
    else:
        hard = config["rank_by"] == "scores"
        if hard:
            predicted = np.array([score for store in stores for score in scores_of(store)])
        else:
            model, rows = fit_reward(
                config["reward"], trajectories, answers, seed=config["seed"], **config["reward_fit"]
            )
            save(model, folder / "reward", provenance(config, trajectories, answers=len(answers)))
            logs = [{"stage": "reward", **labels, "step": len(rows), **rows[-1]}]
            predicted = predicted_returns(model, trajectories)
        ranking = rank(predicted, seeds, rounds, settings["top"], settings["held_out"], config["seed"], hard)
        check_compared(trajectories, ranking.train)
        if config["pairing"] == "rejection":
            ranking = rejection(ranking, predicted, seeds, rounds, config["seed"])
        if config["pairing"] == "curriculum":
            ranking = opened(ranking, min(1.0, len(stores) / settings["count"]))
    if config["pairing"] == "semi_policy":
        ranking = semi_policy(ranking, seeds, rounds, config["seed"])
    return trajectories, replace(ranking, train=_weighed(config, trajectories, ranking.train)), logs


def check_compared(trajectories: list[Trajectory], pairs: PairTable) -> None:
    """Raise `InputError` for a pair of episodes that two policies made, and for a decided one of two equal episodes.

    What separates two policies is their style; a pair teaches what is better only where one policy made both. Scripted behaviours count
    as one source.
    """
    for first, second, prob in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.prob_first.tolist(), strict=True):
        a, b = trajectories[first], trajectories[second]
        makers = [one.policy if one.chunk is not None else "scripted" for one in (a, b)]
        if makers[0] != makers[1]:
            raise InputError(
                f"pairs: got episodes {first} and {second} by {makers[0]} and {makers[1]}, which share no policy, wanted both by one.\n"
                "Compare rollouts of one policy from the same reset."
            )
        if prob != 0.5 and behaviour_hash(a) == behaviour_hash(b):
            raise InputError(
                f"pairs: got {first} preferred to {second} or the reverse, but winner and loser are the same. Drop that answer."
            )


def labelled_pairs(answers: list[Answer], ties: bool) -> PairTable:
    """The answers themselves as a pair table, with or without ties."""
    kept = [a for a in answers if ties or a.prob_first != 0.5]
    first, second = (torch.tensor([a[k] for a in kept], dtype=torch.int64) for k in range(2))
    prob, weight = (torch.tensor([a[k] for a in kept], dtype=torch.float32) for k in (2, 3))
    return PairTable(first, second, prob, weight)


def winners(answers: list[Answer]) -> list[int]:
    """Trajectories that were preferred in a decided answer, each once."""
    return sorted({a.first if a.prob_first > 0.5 else a.second for a in answers if a.prob_first != 0.5})


def _weighed(config: Config, trajectories: list[Trajectory], pairs: PairTable) -> PairTable:
    """Pairs with the lead that the further objectives give one side (MODPO); unchanged without any."""
    from hydra.utils import instantiate

    weights, others = config["objectives"]["weights"], config["objectives"]["others"]
    if not others:
        return pairs
    scores = torch.from_numpy(np.stack([instantiate(one).scores(trajectories) for one in others])).float()  # (J, N)
    scores = scores / scores.std(dim=1, correction=0, keepdim=True).clamp(min=1e-8)
    lead = modpo_lead((scores[:, pairs.first] - scores[:, pairs.second]).T, weights)
    return replace(pairs, lead=lead)
