"""Pretrain: clone a policy from demonstrations; find the imperfection level at which the base half works."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import save
from robopref.data.store import TrajectoryStore
from robopref.data.windows import chunk_table
from robopref.device import placed
from robopref.learners.clone import clone, fit_normalizer
from robopref.stages.environments import roll
from robopref.stages.origin import provenance
from robopref.stages.parallel import spread
from robopref.stages.pictures import drawn, load_episodes, pictures_of, with_settings
from robopref.stages.units import thin, unit, write_log
from robopref.types import Dims


def pretrain(
    config: dict[str, Any],
    demonstrations: Sequence[Trajectory],
    settings: dict[str, Any],
    seed: int,
    folder: Path,
    arm: str,
    origin: dict[str, Any] | None = None,
    render: dict[str, Any] | None = None,
) -> None:
    """Clone a new policy from demonstrations into `folder`/policy, with its log beside it; `origin` goes into its provenance.

    render: how the demonstrations' pictures were drawn, which a policy that looks keeps.
    """
    from hydra.utils import instantiate

    if not demonstrations:
        raise InputError("pretrain: got no demonstration, wanted at least one. Run `robopref collect` first.")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    dims = Dims(demonstrations[0].observation.shape[1], demonstrations[0].action.shape[1])
    policy = placed(instantiate(with_settings(config, render or {}), _partial_=True)(dims=dims))
    table = chunk_table(demonstrations, policy.spec)
    fit_normalizer(policy, table)
    logs = thin(clone(policy, table, generator=generator, **settings), 50, stage="pretrain", arm=arm)
    save(policy, folder / "policy", {**(origin or {}), "seed": seed, "demonstrations": len(demonstrations), **settings})
    write_log(folder / "log.jsonl", logs)


def demonstrations_at(level: float, good: Sequence[Trajectory], faulty: Sequence[Trajectory]) -> list[Trajectory]:
    """A mixture of fixed size of which the share `level` is faulty."""
    count = round(level * len(good))
    return [*good[: len(good) - count], *faulty[:count]]


def _try_level(config: dict[str, Any], store: str, level: float, folder: str) -> dict[str, Any]:
    """Clone from the mixture at a level and measure its success on the resets that are for finding the base."""

    def make(partial: Path) -> dict[str, Any]:
        opened = TrajectoryStore(store)
        everything = load_episodes(opened, pictures_of(config["policy"]))
        half = len(everything) // 2
        mixed = demonstrations_at(level, everything[:half], everything[half:])
        origin = provenance(config, mixed, level=level)
        pretrain(
            config["policy"], mixed, config["base"]["clone"], config["seed"], partial, "base", origin, drawn(opened)
        )
        seeds = range(config["base"]["first_reset"], config["base"]["first_reset"] + config["base"]["episodes"])
        outcomes = roll(partial / "policy", config["env"], list(seeds), config["seed"], 0, until_success=True)
        return {
            "level": level,
            "success_rate": sum(t.succeeded for t in outcomes) / len(outcomes),
            "episodes": len(outcomes),
        }

    return unit(Path(folder), make)


def next_levels(bracket: tuple[float, float], tried: list[float]) -> list[float]:
    """Two untried levels that cut the bracket in three, or else the middles of the widest gaps between tried ones."""
    thirds = [round(bracket[0] + (bracket[1] - bracket[0]) * k / 3, 4) for k in (1, 2)]
    fresh = [level for level in thirds if level not in tried]
    known = sorted({0.0, 1.0, *tried, *fresh})
    gaps = sorted(pairwise(known), key=lambda gap: gap[0] - gap[1])
    middles = [round((low + high) / 2, 4) for low, high in gaps]
    return [*fresh, *middles][:2]


def find_base(config: dict[str, Any], store: Path, folder: Path, workers: int) -> dict[str, Any]:
    """The rule that finds the base, the same for all tasks: bracket the share of faulty demonstrations.

    Two levels at a time cut the bracket in three. The search ends with the level whose measured success lies in the band and is
    closest to its middle; if none does after `rounds`, the closest one is taken and said so.
    """
    low, high = config["base"]["band"]
    middle, bracket = (low + high) / 2, (0.0, 1.0)
    tried: list[dict[str, Any]] = []
    for _ in range(config["base"]["rounds"]):
        levels = next_levels(bracket, [one["level"] for one in tried])
        calls = [(config, str(store), level, str(folder / f"level-{level}")) for level in levels]
        tried += spread(_try_level, calls, workers)
        if any(low <= one["success_rate"] <= high for one in tried):
            break
        above = [one["level"] for one in tried if one["success_rate"] > high]
        below = [one["level"] for one in tried if one["success_rate"] < low]
        bracket = (max(above, default=0.0), min(below, default=1.0))
        if bracket[0] >= bracket[1]:  # success is noisy and need not fall at every step of the level
            bracket = (min(*bracket, *above), max(*bracket, *below))
    best = min(tried, key=lambda one: abs(one["success_rate"] - middle))
    search = [{**one, "in_band": low <= one["success_rate"] <= high} for one in tried]
    return {"search": search, "level": best["level"], "policy": str(folder / f"level-{best['level']}" / "policy")}
