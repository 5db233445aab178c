"""Choose: which of the policies that the rounds made stays, by the learned reward on free rollouts; nothing is asked or judged for it.

Which weights a training ends with moves success by more than its settings do, and the reward model tells good rollouts from bad ones
far better than the policy step learns from it. So every accepted round is a candidate, and so are averages of their weights; inside a
long training so are its weights after every `choose.every` steps. The base is one too, unless a gate was sure that success held: what
fifty resets cannot see, free rollouts may. A reward is as good as its answers, though, and answers that are all turned round agree with
each other: where no gate was sure, the base stays whatever the reward says if no gate saw a gain either, or if answers do not foresee
each other (`stages.trust`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from robopref.checkpoint import load, save
from robopref.networks.averaging import averaged
from robopref.policies.realigned import Realigned
from robopref.stages.environments import act
from robopref.stages.evidence import read_rounds
from robopref.stages.origin import provenance
from robopref.stages.reward import predicted_returns
from robopref.stages.trust import foreseen
from robopref.stages.units import unit

Config = dict[str, Any]
State = dict[str, Tensor]
BASE = "base"
LAST = -1
"""The step by which `keep_best` calls the last weights."""


def candidates(policies: list[Path], base: Path | None = None) -> dict[str, Any]:
    """Name -> policy: the base where one is given, each accepted policy by its round, the averages of the last ones, guidance off."""
    made = [plain(load(folder)) for folder in policies]
    named = {BASE: plain(load(base))} if base else {}
    named |= {f"round-{number}": policy for number, policy in enumerate(made)}
    named |= {f"average-{count}": averaged(made[-count:]) for count in range(2, len(made) + 1)}
    return named


def plain(policy: Any) -> Any:
    """The policy that acts as it was trained."""
    return policy.trained() if isinstance(policy, Realigned) else policy


def choose(
    config: Config, policies: list[Path], base: Path | None, reward: Path, place: Path, stores: Sequence[Path] = (),
    gained: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Roll out every candidate on the same free resets, keep the one of the highest mean predicted return in `place`/policy.

    base: the policy that the rounds began with, where it may still be the best; it stays where no gate saw a gain (`gained`) or the answers
    in `stores` do not foresee each other. Returns {"chosen": name, "predicted": {name: mean predicted return in logits}, "left_out": what `foreseen` found, empty
    where it was not asked, "doubt": why the base stays in spite of the reward, or ""}.
    """

    def make(partial: Path) -> dict[str, Any]:
        named, model = candidates(policies, base), load(reward)
        predicted = {name: predicted_success(config, policy, model) for name, policy in named.items()}
        told = _left_out(config, stores) if base and policies and stores else {}
        doubt = _doubt(told, gained, config["gate"]["error"]) if base and policies else ""
        chosen = BASE if doubt else best(predicted)
        last = policies[-1] if policies else base
        assert last is not None  # without an accepted round no gate was sure
        save(named[chosen], partial / "policy", provenance(config, [], last, chosen=chosen))
        rounded = {name: round(value, 4) for name, value in predicted.items()}
        return {"chosen": chosen, "predicted": rounded, "left_out": told, "doubt": doubt}

    return unit(place, make)


def _left_out(config: Config, stores: Sequence[Path]) -> dict[str, Any]:
    trajectories, answers, _ = read_rounds(list(stores))
    return foreseen(config["reward"], trajectories, answers, config["reward_fit"], config["seed"])


def _doubt(told: Mapping[str, Any], gained: bool, error: float) -> str:
    """Why the base stays where no gate was sure, or nothing."""
    if not gained:
        return (
            "No gate was sure that success held, and none saw a gain: the base stays. Ask more, or judge more episodes."
        )
    if told and told["p_value"] > error:
        return (
            f"A reward foresees {told['right']} of {told['of']} answers that it has not seen, as a coin might, and no gate was sure that "
            "success held: the base stays. Look at the answers, or ask more."
        )
    return ""


def keep_best(policy: nn.Module, marks: Mapping[int, State], judge: Callable[[], float]) -> dict[str, float]:
    """Give `policy` back the weights of the step that `judge` puts highest, among those at hand and those it has now, which are the last.

    marks: step -> weights of before. Returns the step that was kept and what was predicted of it and of the last weights, for the record.
    """
    states = {**marks, LAST: {name: value.clone() for name, value in policy.state_dict().items()}}
    predicted = {}
    for step, state in states.items():
        policy.load_state_dict(state)
        predicted[step] = judge()
    kept = max(predicted, key=lambda step: predicted[step])
    policy.load_state_dict(states[kept])
    return {"mark/kept": float(kept), "mark/predicted": predicted[kept], "mark/predicted_last": predicted[LAST]}


def best(predicted: Mapping[str, float]) -> str:
    """The candidate of the highest value; among equals the first."""
    return max(predicted, key=lambda name: predicted[name])


def predicted_success(config: Config, policy: Any, reward: Any) -> float:
    """Mean predicted return, in logits, of a policy on the free resets that no round rolls out."""
    first = config["rounds"]["first_reset"] + 10_000 * config["seed"] + 1000 * config["rounds"]["count"]
    seeds = range(first, first + config["choose"]["resets"])
    return float(predicted_returns(reward, act(policy, config["env"], seeds, config["seed"])).mean())
