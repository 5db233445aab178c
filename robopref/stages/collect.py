"""Collect: scripted demonstrations with named imperfections, or rollouts of a policy folder, into a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.checkpoint import load
from robopref.data.store import StoreWriter
from robopref.episodes import COST, IMAGES, Episode, episodes, trajectory
from robopref.policies.scripted import Imperfection, Scripted
from robopref.progress import track
from robopref.protocols import Environment
from robopref.rollout import with_log_prob
from robopref.stages.environments import environments, roll
from robopref.stages.parallel import spread
from robopref.stages.pictures import settings_of

_PICTURED = 64
"""Episodes with pictures that are in memory at once."""


def scripted_episode(
    env: Environment, episode: Episode, imperfection: Imperfection, name: str, noise_seed: int, sim_state: bool = False,
    cameras: tuple[str, ...] = (), options: dict[str, Any] | None = None,
) -> Trajectory:  # fmt: skip
    """One episode of the scripted expert with an imperfection; every replica of a reset has noise of its own. options: of the reset."""
    observation, _ = env.reset(seed=episode.seed, options=options)
    replica = (
        [episode.replica] if episode.replica else []
    )  # the first one's noise is that of an episode without replicas
    actor = Scripted(env, imperfection, np.random.default_rng([noise_seed, episode.seed, *replica]))
    rows: dict[str, list[Any]] = {k: [] for k in ("observation", "action", "reward", "success", "expert_action")}
    over = False
    while not over:
        if sim_state:
            rows.setdefault("sim_state", []).append(env.get_state())
        for camera in cameras:
            rows.setdefault(IMAGES + camera, []).append(env.render(camera))
        action = actor.act(observation)
        rows["observation"].append(observation)
        rows["action"].append(action)
        rows["expert_action"].append(env.expert(observation))
        observation, reward, terminated, truncated, info = env.step(action)
        rows["reward"].append(reward)
        rows["success"].append(bool(info["success"]))
        if COST in info:
            rows.setdefault(COST, []).append([info[COST]])
        over = terminated or truncated
    return trajectory(rows, env, episode.seed, name, episode.sentence)


def mixture(imperfections: dict[str, dict[str, float]], count: int) -> list[tuple[str, dict[str, float]]]:
    """`count` behaviours that go round the named imperfections in order."""
    if not imperfections:
        raise InputError("imperfections: got none, wanted at least one named mixture, for example {expert: {}}.")
    names = list(imperfections)
    return [(name, imperfections[name]) for name in (names[i % len(names)] for i in range(count))]


def _scripted(
    config: dict[str, Any], jobs: Sequence[tuple[Episode, str, dict[str, float]]], noise_seed: int, sim_state: bool,
    cameras: tuple[str, ...],
) -> list[Trajectory]:  # fmt: skip
    env = environments(config, 4)[0]
    made = []
    for one, name, how in jobs:
        errs = Imperfection(**{k: v for k, v in how.items() if k != "care"})
        minds = {"care": how["care"]} if "care" in how else None
        made.append(scripted_episode(env, one, errs, name, noise_seed, sim_state, cameras, minds))
    return made


def scripted(
    config: dict[str, Any],
    seeds: Sequence[int] | Sequence[Episode],
    behaviours: Sequence[tuple[str, dict[str, float]]],
    noise_seed: int,
    workers: int,
    sim_state: bool = False,
    cameras: tuple[str, ...] = (),
) -> list[Trajectory]:
    """Scripted episodes, one per seed and behaviour, with pictures by `cameras`; a repeated seed is the next replica of its reset.

    `care` of a behaviour goes to the reset and says how far the expert minds what is to be avoided; the rest says how it errs.
    """
    jobs = [(one, name, how) for one, (name, how) in zip(episodes(seeds), behaviours, strict=True)]
    parts = max(1, min(workers, len(jobs)))
    done = spread(_scripted, [(config, jobs[k::parts], noise_seed, sim_state, cameras) for k in range(parts)], workers)
    return [done[i % parts][i // parts] for i in range(len(jobs))]


def write(
    root: Path,
    trajectories: Iterable[Trajectory],
    description: str,
    count: int | None = None,
    render: dict[str, Any] | None = None,
) -> Path:
    """A new store of trajectories; `count` them where they have no length, `render` says how their pictures were drawn."""
    with StoreWriter(root, render=render) as writer:
        for one in track(trajectories, description, count):
            writer.add(one)
    return root


def collect_policy(
    policy: Path, config: dict[str, Any], seeds: Sequence[int] | Sequence[Episode], noise_seed: int, root: Path, workers: int, expert: bool,
    sim_state: bool = False, cameras: tuple[str, ...] = (), log_prob: bool = False,
) -> Path:  # fmt: skip
    """Rollouts of a policy folder into a new store, with the predicted chunks, their executed mask, and on request their likelihood.

    Pictures by `cameras`, and by those that the policy looks through, are stored too, a few episodes at a time.
    """
    acted = load(policy)
    wanted = tuple(dict.fromkeys([*acted.spec.pictures.cameras, *cameras]))
    render = settings_of(config, wanted)
    listed = episodes(seeds)
    block = _PICTURED if wanted else len(listed)
    parts = (listed[i : i + block] for i in range(0, len(listed), block))
    made = (one for part in parts for one in roll(policy, config, part, noise_seed, workers, sim_state, expert, wanted))
    if log_prob:
        made = (with_log_prob(acted, one, noise_seed) for one in made)
    return write(root, made, "store rollouts", len(listed), render)
