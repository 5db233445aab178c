"""What an experiment of the loop is refused for before it claims its folder: a wrong request must not cost rollouts."""

from __future__ import annotations

from typing import Any

import torch

from robopref.checkpoint import load
from robopref.data.stage_spec import read, ready_spec
from robopref.rollout import check_fit
from robopref.stages.environments import environments

Config = dict[str, Any]


def check(config: Config) -> None:
    """Raise `InputError` for an unknown task, a policy of other shapes, stages that do not fit, and a loss with impossible numbers."""
    env = environments(config["env"], 1)[0]
    if config["checkpoint"]:
        check_fit(load(config["checkpoint"]).spec, env)
    for labeler in (config["labeler"], *config["objectives"]["others"]):
        if labeler["_target_"].endswith(".Stages"):
            _ = read(labeler["spec"]) if labeler.get("spec") else ready_spec(config["task"])
    check_loss(config["loss"])


def check_loss(preset: Config) -> None:
    """Try a pair loss on one undecided pair: it checks its own numbers."""
    from hydra.utils import instantiate

    zero, tie = torch.zeros(1), torch.full((1,), 0.5)
    instantiate(preset)(zero, zero, tie)
