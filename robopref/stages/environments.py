"""Environments of a configuration, built once per process, and rollouts of a policy folder spread over processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import fingerprint, load
from robopref.device import placed
from robopref.episodes import Episode, episodes
from robopref.protocols import Environment, Policy
from robopref.rollout import rollout
from robopref.stages.parallel import spread
from robopref.types import Dims

BATCH = 32
"""Environments side by side and rows of every prediction, everywhere: the last bits of a result depend on it."""


def environments(config: dict[str, Any], count: int) -> list[Environment]:
    """`count` environments of a Hydra configuration; later calls get the same ones."""
    return list(_environments(json.dumps(config, sort_keys=True), count))


@lru_cache(maxsize=4)
def _environments(config: str, count: int) -> tuple[Environment, ...]:
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return tuple(instantiate(json.loads(config)) for _ in range(count))
    except InstantiationException as error:  # Hydra hides what was wrong with the request
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def dims_of(config: dict[str, Any]) -> Dims:
    """Widths of the environment of a configuration."""
    env = environments(config, 1)[0]
    return Dims(env.observation_space.shape[0], env.action_space.shape[0])


def roll(
    policy: Path, config: dict[str, Any], seeds: Sequence[int] | Sequence[Episode], noise_seed: int, workers: int,
    sim_state: bool = False, expert: bool = False, cameras: tuple[str, ...] = (), until_success: bool = False,
) -> list[Trajectory]:  # fmt: skip
    """One episode per reset seed of the policy in a folder, in the order of `seeds`; pictures by `cameras` are kept.

    until_success: an episode ends with its first success, for a caller who asks for nothing else.
    """
    listed = episodes(seeds)
    parts = max(1, min(workers, len(listed)))
    kept = (sim_state, expert, cameras, until_success)
    calls = [(str(policy), config, listed[k::parts], noise_seed, *kept) for k in range(parts)]
    done = spread(_roll, calls, workers)
    merged: list[Trajectory] = [done[i % parts][i // parts] for i in range(len(listed))]
    return merged


def act(
    policy: Policy, config: dict[str, Any], seeds: Sequence[int] | Sequence[Episode], noise_seed: int, name: str = "", sim_state: bool = False,
    expert: bool = False, cameras: tuple[str, ...] = (), until_success: bool = False,
) -> list[Trajectory]:  # fmt: skip
    """The same of a policy at hand, in this process."""
    listed = episodes(seeds)
    if not listed:
        return []
    count = min(BATCH, len(listed))
    if isinstance(policy, nn.Module):
        placed(policy)
    made = rollout(
        policy, environments(config, BATCH)[:count] if count > 4 else environments(config, 4)[:count], listed,
        noise_seed=noise_seed, batch_size=BATCH, policy_name=name, sim_state=sim_state, expert=expert,
        cameras=cameras, until_success=until_success,
    )  # fmt: skip
    return list(made)


def _roll(
    folder: str, config: dict[str, Any], listed: list[Episode], noise_seed: int, sim_state: bool, expert: bool,
    cameras: tuple[str, ...], until_success: bool,
) -> list[Trajectory]:  # fmt: skip
    name = fingerprint(Path(folder))
    return act(load(folder), config, listed, noise_seed, name, sim_state, expert, cameras, until_success)
