"""Policy x environments -> trajectories. Inference is batched over environments and padded to one fixed batch size.

The last bits of a matrix product depend on its batch size, so every prediction runs on exactly `batch_size` rows, and every episode
owns a random generator: results depend neither on the number of environments nor on how episodes are spread over processes
and threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.device import device_of
from robopref.episodes import (
    Episode,
    Record,
    Running,
    episode_stream,
    episodes,
    look,
    run_chunks,
    shared,
    start,
    trajectory,
)
from robopref.policies.best_of import BestOf
from robopref.protocols import Environment, Policy
from robopref.types import Observation, PolicySpec

MakeEnvironment = Callable[[], Environment]


def rollout(
    policy: Policy,
    environments: Sequence[Environment],
    seeds: Sequence[int] | Sequence[Episode],
    *,
    noise_seed: int = 0,
    batch_size: int = 32,
    policy_name: str = "",
    sim_state: bool = False,
    expert: bool = False,
    threads: int = 1,
    cameras: Sequence[str] = (),
    until_success: bool = False,
) -> Iterator[Trajectory]:
    """Run one episode per seed and yield the trajectories in the order of `seeds`.

    environments: as many run side by side. sim_state: store the simulator's state at every step. expert: store the scripted
    expert's action as `extra["expert_action"]` (what the regret teacher asks for). threads: resets and steps are shared by as many;
    it pays where a simulator lets go of Python's lock, as MuJoCo does, and cores are idle; where pictures are taken there is one, for
    a GL context belongs to one thread. cameras: store their picture of every step; what a policy looks at is drawn only where it
    decides. until_success: an episode ends with its first success. Raises `InputError` if the policy does not fit.
    """
    queue = list(enumerate(episodes(seeds)))
    if not environments or threads < 1:
        raise InputError(
            f"rollout: got {len(environments)} environments, {threads} threads, wanted at least one of each."
        )
    check_fit(policy.spec, environments[0])
    if policy.spec.words and not all(episode.sentence for _, episode in queue):
        raise InputError(
            "rollout: got an episode without a sentence, wanted one: the policy reads what is asked of it.\n"
            "Give `Episode(seed, sentence=...)`; `robopref run experiment=vla` does."
        )
    idle, following = list(environments), 0
    record = Record(policy.spec, sim_state, expert, tuple(cameras), until_success)
    running: list[Running] = []
    finished: dict[int, Trajectory] = {}
    device = device_of(policy)
    threads = 1 if record.pictures else threads
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:  # starts no thread before it is given work
        while queue or running:
            begun = [(*queue.pop(0), idle.pop(), noise_seed) for _ in range(min(len(queue), len(idle)))]
            fresh = shared(pool, threads, lambda one: start(*one), begun)
            for state in fresh:
                look(state, policy.spec, cameras, soon=True)
            running += fresh
            chunks = predict(policy, running, batch_size, device)
            run_chunks(running, chunks, record, pool, threads)
            for state in [s for s in running if s.done]:
                running.remove(state)
                idle.append(state.env)
                finished[state.index] = trajectory(
                    state.rows, state.env, state.episode.seed, policy_name, state.episode.sentence
                )
            while following in finished:
                yield finished.pop(following)
                following += 1


def predict(policy: Policy, running: Sequence[Running], batch_size: int, device: torch.device) -> np.ndarray:
    """Chunks (len(running), H, A) for the running episodes, in blocks of exactly `batch_size` rows."""
    seen = [s.history(policy.spec.history) for s in running]
    blocks = []
    for begin in range(0, len(running), batch_size):
        part = seen[begin : begin + batch_size]
        padding = batch_size - len(part)
        state = torch.from_numpy(np.stack(part + [part[-1]] * padding)).to(device)
        images = _pictures(policy.spec, running[begin : begin + batch_size], padding, device)
        asked = [s.episode.sentence for s in running[begin : begin + batch_size]] if policy.spec.words else []
        generators = [s.generator for s in running[begin : begin + batch_size]]
        spare = torch.Generator().manual_seed(0)
        asked += asked[-1:] * padding
        chunk = policy.act(Observation(state, images, tuple(asked)), generators + [spare] * padding)
        blocks.append(chunk[: len(part)].cpu().numpy())
    return np.concatenate(blocks)


def _pictures(spec: PolicySpec, running: Sequence[Running], padding: int, device: torch.device) -> dict[str, Tensor]:
    """camera -> what the policy sees of the running episodes, (len(running) + padding, K, height, width, 3) uint8."""
    images = {}
    for camera in spec.pictures.cameras:
        rows = []
        for state in running:
            last = [one[camera] for one in state.looked[-spec.history :]]
            rows.append(np.stack([last[0]] * (spec.history - len(last)) + last))
        images[camera] = torch.from_numpy(np.stack(rows + [rows[-1]] * padding)).to(device)
    return images


def check_fit(spec: PolicySpec, env: Environment) -> None:
    """Raise `InputError` when a policy and an environment disagree about dimensions or how pictures are drawn."""
    wanted = (env.observation_space.shape, env.action_space.shape)
    got = ((spec.dims.observation,), (spec.dims.action,))
    if got != wanted:
        raise InputError(
            f"policy: got one for observations {got[0]} and actions {got[1]}, wanted {wanted[0]} and {wanted[1]} as in "
            f"{env.task}. Use a policy that was trained on this environment."
        )
    if spec.pictures.cameras:
        spec.pictures.check_drawn(env.task, env.render_settings)


@torch.no_grad()
def with_log_prob(policy: Policy, trajectory: Trajectory, noise_seed: int = 0) -> Trajectory:
    """The same rollout with `extra["log_prob"]` (T, 1): the acting policy's (surrogate) log-likelihood of what it executed.

    A chunk's score is shared evenly by the steps that ran. Rollouts of one reset are scored at the same draws, so they compare. Raises
    `InputError` for a wrapper that only acts, and for an episode in which no policy acted.
    """
    if isinstance(policy, BestOf) or trajectory.executed is None:
        who = "a policy that only acts (best of N)" if isinstance(policy, BestOf) else "an episode without chunks"
        raise InputError(f"log_prob: got {who}, wanted rollouts of a policy with a score. Set record_log_prob=false.")
    chunks = chunk_table([trajectory], policy.spec).chunks.to(device_of(policy))
    generator = torch.Generator().manual_seed(episode_stream(noise_seed, Episode(max(trajectory.seed, 0))))
    score = policy.score(chunks, policy.draw(chunks, generator)).double().cpu().numpy()  # (C,)
    ran = trajectory.executed.sum(axis=1)
    ran = ran[ran > 0]  # (C,) executed steps of each chunk, which together are the episode
    log_prob = np.repeat(score / ran, ran).astype(np.float32)[:, None]
    return replace(trajectory, extra={**trajectory.extra, "log_prob": log_prob})
