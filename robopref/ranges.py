"""What numbers a configuration may hold, and that its sets of resets never meet: told before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from robopref.arrays import InputError

SEEDS = 100
"""Seeds of runs: 0 to 99. Resets of a run are numbered from its seed, so more would run into the next set."""
PER_SEED = 10_000
"""Resets of one seed's demonstrations and rounds."""
_SMALL = 1e-12
NUMBERS: dict[str, tuple[type, float, float]] = {
    "seed": (int, 0, SEEDS - 1), "pairs": (int, 1, math.inf), "workers": (int, 1, math.inf), "episodes": (int, 1, math.inf),
    "base.demonstrations": (int, 1, PER_SEED // 2), "base.first_reset": (int, 0, math.inf), "base.episodes": (int, 1, math.inf),
    "base.rounds": (int, 1, math.inf), "base.clone.steps": (int, 1, math.inf), "base.clone.lr": (float, _SMALL, math.inf),
    "base.clone.batch": (int, 1, math.inf), "base.clone.ema": (float, 0, 1),
    "rounds.count": (int, 1, 9), "rounds.resets": (int, 2, 1000), "rounds.replicas": (int, 2, math.inf),
    "rounds.first_reset": (int, 0, math.inf), "rounds.top": (float, _SMALL, 1), "rounds.held_out": (float, 0, 0.9),
    "reward_fit.steps": (int, 1, math.inf), "reward_fit.lr": (float, _SMALL, math.inf),
    "align.steps": (int, 1, math.inf), "align.lr": (float, _SMALL, math.inf), "align.pairs_per_step": (int, 1, math.inf),
    "align.chunks_per_trajectory": (int, 1, math.inf), "align.preference": (float, 0, math.inf),
    "align.kappa": (float, _SMALL, math.inf), "align.length_norm": (float, 0, math.inf), "align.anchor": (float, 0, math.inf),
    "align.anchor_chunks": (int, 1, math.inf), "align.proximal": (float, 0, math.inf), "align.trust": (float, 0, math.inf),
    "choose.resets": (int, 0, 1000), "choose.every": (int, 1, math.inf), "align.early": (float, 0, 100), "rounds.guidance": (float, 0, 10),
    "guard.every": (int, 1, math.inf), "gate.first_reset": (int, 0, math.inf), "gate.episodes": (int, 1, math.inf),
    "gate.tolerance": (float, 0, 1), "gate.error": (float, _SMALL, 0.5),
    "condition.drop": (float, _SMALL, 1), "condition.guidance": (float, 0, math.inf), "best_of.candidates": (int, 1, 1000),
    "best_of.probes": (int, 1, math.inf), "best_of.lowest": (float, _SMALL, 1), "evaluation.first_reset": (int, 0, math.inf), "evaluation.episodes": (int, 1, math.inf),
    "evaluation.videos": (int, 0, math.inf),
    "list_budget": (int, 0, math.inf), "label_flips": (float, 0, 0.5), "held_out.episodes": (float, 0, 1), "held_out.pairs": (int, 0, math.inf), "segment": (int, 2, math.inf),
    "transfer.episodes": (int, 2, 1000), "transfer.pairs": (int, 1, math.inf), "reward_protocol.steps": (int, 1, math.inf),
    "reward_protocol.lr": (float, _SMALL, math.inf), "reward_protocol.batch": (int, 1, math.inf),
    "reward_protocol.every": (int, 1, math.inf), "reward_protocol.patience": (int, 1, math.inf), "iql.steps": (int, 1, math.inf),
    "iql.lr": (float, _SMALL, math.inf), "iql.batch": (int, 1, math.inf), "contrast.clone_steps": (int, 0, math.inf),
    "contrast.steps": (int, 1, math.inf), "contrast.lr": (float, _SMALL, math.inf), "contrast.pairs": (int, 1, math.inf),
    "contrast.chunks": (int, 1, math.inf),
}  # fmt: skip
"""Key -> (type, least, most)."""
OPTIONAL = ("episodes",)
"""Keys that may be null."""


LISTS = ("plackett_luce", "list_softmax", "lambda_rank")
"""Learners that want every rollout of a reset ranked."""
CHOICES = {
    "rank_by": ("reward", "scores", "answers"), "pairing": ("best_worst", "rejection", "semi_policy", "curriculum"),
    "learner": ("align", "conditioned", "mapo", "fkpd", "diffusion_cpl", *LISTS, "kto", "bco", "apo_zero", "d2o"), "best_of.actor": ("reference", "aligned"),
}  # fmt: skip
"""Key -> the words it may be."""
BASELINES = ("cloned", "filtered", "plain_dpo", "aligned_no_pairs", "diffusion_cpl", "fkpd", "mapo")


def check(config: Mapping[str, Any]) -> None:
    """Raise `InputError` for a number of another type or out of its range, and for sets of resets that meet."""
    for key, (kind, low, high) in NUMBERS.items():
        value = _at(config, key)
        if not (value is None and key in OPTIONAL) and not _fits(value, kind, low, high):
            wanted = "a whole number" if kind is int else "a number"
            most = f" to {high:g}" if math.isfinite(high) else " or more"
            why = " (resets of seeds must not meet)" if key == "seed" else ""
            least = "above 0" if low == _SMALL else f"from {low:g}"
            raise InputError(f"{key}: got {value!r}, wanted {wanted} {least}{most}{why}.")
    for key, known in CHOICES.items():
        if _at(config, key) not in known:
            raise InputError(f"{key}: got {_at(config, key)!r}, wanted one of {', '.join(known)}.")
    for refused, why in _contradictions(config):
        if refused:
            raise InputError(why)
    for (name, one), (other, two) in combinations(_resets(config), 2):
        if one.start < two.stop and two.start < one.stop:
            raise InputError(
                f"resets: got {name} {one.start} to {one.stop - 1} and {other} {two.start} to {two.stop - 1}, wanted sets that "
                f"do not meet at any seed.\nChange their first_reset, or ask for fewer."
            )


def _contradictions(config: Mapping[str, Any]) -> Iterator[tuple[bool, str]]:
    """(whether it holds, what is wrong with it) of settings that are right alone and wrong together."""
    objectives, several = config["objectives"], config["best_of"]["candidates"] > 1
    weights = [float(w) for w in objectives["weights"]]
    yield (
        not weights or min(weights) < 0 or weights[0] == 0 or abs(sum(weights) - 1) > 1e-6 or len(weights) != 1 + len(objectives["others"]),
        f"objectives.weights: got {weights} for the answers' objective and {len(objectives['others'])} others, wanted one number >= 0 for "
        "each, the first above 0, that sum to one.\nDivide them by their sum.",
    )  # fmt: skip
    unknown = [name for name in config["baselines"] if name not in BASELINES]
    yield bool(unknown), f"baselines: got {', '.join(unknown)}, wanted some of {', '.join(BASELINES)}."
    yield (
        config["learner"] == "conditioned" and not str(config["policy"].get("_target_", "")).endswith(".Conditioned"),
        "learner=conditioned: got a policy that cannot be told what is preferred, wanted policy=conditioned.",
    )
    yield (
        several and (config["learner"] == "conditioned" or config["record_log_prob"]),
        "best_of.candidates: got more than 1 beside learner=conditioned or record_log_prob=true, wanted a policy with a score of its own.\n"
        "Set best_of.candidates=1.",
    )
    yield (
        config["align"]["anchor"] == 0 and "aligned_no_pairs" in config["baselines"],
        "baselines: got aligned_no_pairs with align.anchor=0, which would learn from nothing. Leave it out of baselines=[...].",
    )
    yield (
        config["rank_by"] != "reward" and config["choose"]["resets"] > 0,
        f"choose.resets: got {config['choose']['resets']} with rank_by={config['rank_by']}, which learns no reward to choose by, wanted 0.",
    )
    yield (
        config["rank_by"] == "answers" and config["learner"] in LISTS,
        f"learner={config['learner']}: got rank_by=answers, wanted every rollout of a reset ranked. Take rank_by=reward or scores.",
    )
    yield (
        config["rank_by"] != "reward" and config["pairing"] == "curriculum",
        f"pairing=curriculum: got rank_by={config['rank_by']}, which says no more than who won, wanted rank_by=reward: it opens clear pairs first.",
    )
    yield (
        bool(objectives["others"]) and config["learner"] != "align",
        f"objectives.others: got {len(objectives['others'])} with learner={config['learner']}, which does not weigh them, wanted learner=align.",
    )
    yield (
        bool(objectives["others"]) and ".pairwise." not in str(config["loss"].get("_target_", "")),
        f"objectives.others: got loss={config['loss'].get('_target_')}, wanted one on the difference of two scores, such as loss=sigmoid:\n"
        "what the other objectives say is a lead of one side over the other.",
    )
    yield (
        config["rank_by"] == "answers" and config["pairing"] == "rejection",
        "pairing=rejection: got rank_by=answers, wanted every rollout ranked. Take rank_by=reward or scores.",
    )
    yield (
        config["rank_by"] == "scores" and str(config["labeler"].get("_target_", "")).endswith(".People"),
        "rank_by=scores: got labeler=people, who compare and do not score, wanted rank_by=reward.",
    )


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _fits(value: Any, kind: type, low: float, high: float) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return (whole or (kind is float and isinstance(value, float))) and low <= value <= high and math.isfinite(value)


def _resets(config: Mapping[str, Any]) -> Iterator[tuple[str, range]]:
    """What every set of resets may come to hold over all allowed seeds."""
    base, gate, evaluation = config["base"], config["gate"], config["evaluation"]
    last = SEEDS - 1
    yield "demonstrations", range(PER_SEED * last + 2 * base["demonstrations"])
    first = config["rounds"]["first_reset"]
    yield "rounds", range(first, first + PER_SEED * SEEDS)
    yield "base", range(base["first_reset"], base["first_reset"] + base["episodes"])
    yield "gate", range(gate["first_reset"], gate["first_reset"] + gate["episodes"])
    first = evaluation["first_reset"]
    yield "evaluation", range(first, first + 1000 * last + evaluation["episodes"])
