"""Collect: scripted demonstrations with named imperfections, or rollouts of a policy folder, into a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.store import StoreWriter
from robopref.policies.scripted import Imperfection, Scripted
from robopref.progress import track
from robopref.protocols import Environment
from robopref.rollout import Episode, episodes, trajectory
from robopref.stages.environments import environments, roll
from robopref.stages.parallel import spread


def scripted_episode(
    env: Environment, episode: Episode, imperfection: Imperfection, name: str, noise_seed: int, sim_state: bool = False
) -> Trajectory:
    """One episode of the scripted expert with an imperfection; every replica of a reset has noise of its own."""
    observation, _ = env.reset(seed=episode.seed)
    replica = (
        [episode.replica] if episode.replica else []
    )  # the first one's noise is that of an episode without replicas
    actor = Scripted(env, imperfection, np.random.default_rng([noise_seed, episode.seed, *replica]))
    rows: dict[str, list[Any]] = {k: [] for k in ("observation", "action", "reward", "success", "expert_action")}
    over = False
    while not over:
        if sim_state:
            rows.setdefault("sim_state", []).append(env.get_state())
        action = actor.act(observation)
        rows["observation"].append(observation)
        rows["action"].append(action)
        rows["expert_action"].append(env.expert(observation))
        observation, reward, terminated, truncated, info = env.step(action)
        rows["reward"].append(reward)
        rows["success"].append(bool(info["success"]))
        over = terminated or truncated
    return trajectory(rows, env, episode.seed, name)


def mixture(imperfections: dict[str, dict[str, float]], count: int) -> list[tuple[str, dict[str, float]]]:
    """`count` behaviours that go round the named imperfections in order."""
    if not imperfections:
        raise InputError("imperfections: got none, wanted at least one named mixture, for example {expert: {}}.")
    names = list(imperfections)
    return [(name, imperfections[name]) for name in (names[i % len(names)] for i in range(count))]


def _scripted(
    config: dict[str, Any], jobs: Sequence[tuple[Episode, str, dict[str, float]]], noise_seed: int, sim_state: bool
) -> list[Trajectory]:
    env = environments(config, 4)[0]
    return [scripted_episode(env, one, Imperfection(**how), name, noise_seed, sim_state) for one, name, how in jobs]


def scripted(
    config: dict[str, Any],
    seeds: Sequence[int],
    behaviours: Sequence[tuple[str, dict[str, float]]],
    noise_seed: int,
    workers: int,
    sim_state: bool = False,
) -> list[Trajectory]:
    """Scripted episodes, one per seed and behaviour; a repeated seed is the next replica of its reset."""
    jobs = [(one, name, how) for one, (name, how) in zip(episodes(seeds), behaviours, strict=True)]
    parts = max(1, min(workers, len(jobs)))
    done = spread(_scripted, [(config, jobs[k::parts], noise_seed, sim_state) for k in range(parts)], workers)
    return [done[i % parts][i // parts] for i in range(len(jobs))]


def write(root: Path, trajectories: Sequence[Trajectory], description: str) -> Path:
    """A new store of trajectories."""
    with StoreWriter(root) as writer:
        for one in track(trajectories, description, len(trajectories)):
            writer.add(one)
    return root


def collect_policy(
    policy: Path, config: dict[str, Any], seeds: Sequence[int], noise_seed: int, root: Path, workers: int, expert: bool,
    sim_state: bool = False,
) -> Path:  # fmt: skip
    """Rollouts of a policy folder into a new store, with the predicted chunks and their executed mask."""
    return write(root, roll(policy, config, seeds, noise_seed, workers, sim_state, expert), "store rollouts")
