"""Rollouts that are no simulation in this process: played on an arm, or recorded there before, and taken in as they are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import fingerprint
from robopref.data.files import read_json
from robopref.data.store import TrajectoryStore
from robopref.protocols import Arm
from robopref.stages.units import unit

Config = dict[str, Any]
PLAYED = "Rollouts and evaluation were played on the arm in real time, base and gate in its simulation."


def is_on_arm(config: Config) -> bool:
    """Whether rounds and evaluation are played on an arm."""
    return bool(config.get("arm"))


def play(config: Config, policy: Path, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
    """Play a policy folder from the given resets on the configured arm; leaves `folder`/store and returns how it went."""
    from hydra.utils import instantiate

    arm: Arm = instantiate(config["arm"])
    return {"episodes": len(seeds), "arm": arm.play(policy, seeds, folder)}


def played(config: Config, policy: Path, seeds: Sequence[int], folder: Path) -> list[Trajectory]:
    """The same as a piece of work that is done once, read back: the trajectories in the order of `seeds`."""
    unit(folder, lambda partial: play(config, policy, seeds, partial))
    return TrajectoryStore(folder / "store").load()


def recorded(dataset: Path, policy: Path, folder: Path) -> dict[str, Any]:
    """Take a recorded dataset in as the rollouts of `policy`: a copy without answers in `folder`/store, so that it stays as it is.

    Raises `InputError` for episodes in which another policy acted: what is aligned on them would not be what made them.
    """
    store = TrajectoryStore(dataset)
    makers = {one.policy for one in store.load() if one.chunk is not None}
    wanted = fingerprint(policy)
    if makers - {wanted}:
        raise InputError(
            f"dataset: got {dataset} with episodes of policy {', '.join(sorted(makers - {wanted}))}, wanted those of {wanted} ({policy}).\\n"
            "Say checkpoint=DIR, the folder of the policy that was deployed."
        )
    shutil.copytree(dataset, folder / "store", ignore=shutil.ignore_patterns("preferences"))
    return {"episodes": len(store)}


def how_it_went(out: Path) -> dict[str, Any]:
    """What an arm lived through in each of the pieces it played; nothing without one."""
    patterns = ("rounds/rollouts/done.json", "arms/*/round-*/rollouts/done.json", "played/*/done.json")
    pieces = sorted(piece for pattern in patterns for piece in out.glob(pattern))
    found = {str(piece.parent.relative_to(out)): read_json(piece).get("arm") for piece in pieces}
    return {name: told for name, told in found.items() if told}
