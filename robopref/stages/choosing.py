"""Choose: which of the policies that the rounds made stays, by the learned reward on free rollouts; nothing is asked or judged for it.

Which weights a training ends with moves success by more than its settings do, and the reward model tells good rollouts from bad ones
far better than the policy step learns from it. So every accepted round is a candidate, and so are averages of their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robopref.checkpoint import load, save
from robopref.networks.averaging import averaged
from robopref.policies.realigned import Realigned
from robopref.stages.environments import act
from robopref.stages.origin import provenance
from robopref.stages.reward import predicted_returns
from robopref.stages.units import unit

Config = dict[str, Any]


def candidates(policies: list[Path]) -> dict[str, Any]:
    """Name -> policy, of accepted policies in the order of their rounds: each one, the averages of the last ones, guidance off."""
    made = [plain(load(folder)) for folder in policies]
    named = {f"round-{number}": policy for number, policy in enumerate(made)}
    named |= {f"average-{count}": averaged(made[-count:]) for count in range(2, len(made) + 1)}
    return named


def plain(policy: Any) -> Any:
    """The policy that acts as it was trained."""
    return policy.trained() if isinstance(policy, Realigned) else policy


def choose(config: Config, policies: list[Path], reward: Path, place: Path) -> dict[str, Any]:
    """Roll out every candidate on the same free resets, keep the one of the highest mean predicted return in `place`/policy.

    Returns {"chosen": name, "predicted": {name: mean predicted return in logits}}.
    """

    def make(partial: Path) -> dict[str, Any]:
        named, model = candidates(policies), load(reward)
        predicted = {name: _predicted(config, policy, model) for name, policy in named.items()}
        chosen = best(predicted)
        save(named[chosen], partial / "policy", provenance(config, [], policies[-1], chosen=chosen))
        return {"chosen": chosen, "predicted": {name: round(value, 4) for name, value in predicted.items()}}

    return unit(place, make)


def best(predicted: Mapping[str, float]) -> str:
    """The candidate of the highest value; among equals the first."""
    return max(predicted, key=lambda name: predicted[name])


def _predicted(config: Config, policy: Any, reward: Any) -> float:
    first = config["rounds"]["first_reset"] + 10_000 * config["seed"] + 1000 * config["rounds"]["count"]
    seeds = range(first, first + config["choose"]["resets"])
    return float(predicted_returns(reward, act(policy, config["env"], seeds, config["seed"])).mean())
