"""Policy x environments -> trajectories. Inference is batched over environments and padded to one fixed batch size.

The last bits of a matrix product depend on its batch size, so every prediction runs on exactly `batch_size` rows, and every episode
owns a random generator: results depend neither on the number of environments nor on how episodes are spread over processes
and threads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import chunk_table
from robopref.device import device_of
from robopref.policies.best_of import BestOf
from robopref.protocols import Environment, Policy
from robopref.types import Observation, PolicySpec

IMAGES = "images."
"""Rows of pictures are called by this and the camera's name."""
COST = "cost"
"""What an environment may report of a step beside success: for teachers and evaluation, never for training."""
MakeEnvironment = Callable[[], Environment]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Episode:
    """One episode to run: a reset seed, and which of several runs from that reset it is."""

    seed: int
    replica: int = 0
    sentence: str = ""
    """What is asked for, in words; the episode's noise does not depend on it."""


def episodes(seeds: Sequence[int] | Sequence[Episode]) -> list[Episode]:
    """Episodes for reset seeds; a repeated seed becomes the next replica of the same reset. Episodes stay what they are."""
    seen: Counter[int] = Counter()
    listed = []
    for seed in seeds:
        if isinstance(seed, Episode):
            listed.append(seed)
            continue
        listed.append(Episode(int(seed), seen[int(seed)]))
        seen[int(seed)] += 1
    return listed


def episode_stream(noise_seed: int, episode: Episode) -> int:
    """A seed of its own for the noise of an episode, from (noise seed, reset seed, replica)."""
    return int(np.random.SeedSequence([noise_seed, episode.seed, episode.replica]).generate_state(1, np.uint64)[0] >> 1)


@dataclass
class _Running:
    """An episode under way in one environment; `rows` hold one entry per step taken."""

    index: int
    episode: Episode
    env: Environment
    generator: torch.Generator
    observation: np.ndarray
    rows: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    view: dict[str, np.ndarray] = field(default_factory=dict)
    """camera -> picture of the current observation, where it was drawn."""
    looked: list[dict[str, np.ndarray]] = field(default_factory=list)
    """Pictures of the last observations, for a policy that looks."""
    done: bool = False

    def history(self, length: int) -> np.ndarray:
        """The last `length` observations (K, D), the first one repeated where there were fewer."""
        seen = [*self.rows["observation"][max(0, len(self.rows["observation"]) - length + 1) :], self.observation]
        return np.stack([seen[0]] * (length - len(seen)) + seen)


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
    execute = partial(
        _execute, spec=policy.spec, sim_state=sim_state, expert=expert, cameras=cameras, until_success=until_success
    )
    running: list[_Running] = []
    finished: dict[int, Trajectory] = {}
    device = device_of(policy)
    threads = 1 if cameras or policy.spec.pictures.cameras else threads
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:  # starts no thread before it is given work
        while queue or running:
            begun = [(*queue.pop(0), idle.pop(), noise_seed) for _ in range(min(len(queue), len(idle)))]
            fresh = _shared(pool, threads, lambda one: _start(*one), begun)
            for state in fresh:
                _look(state, policy.spec, cameras, soon=True)
            running += fresh
            chunks = predict(policy, running, batch_size, device)
            pairs = list(zip(running, chunks, strict=True))
            _shared(pool, threads, lambda pair: execute(*pair), pairs)
            for state in [s for s in running if s.done]:
                running.remove(state)
                idle.append(state.env)
                finished[state.index] = trajectory(
                    state.rows, state.env, state.episode.seed, policy_name, state.episode.sentence
                )
            while following in finished:
                yield finished.pop(following)
                following += 1


def _shared(
    pool: ThreadPoolExecutor, threads: int, work: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """`[work(item) for item in items]`; this thread and `threads` - 1 of the pool take the next item as they get free."""
    done: dict[int, Result] = {}
    left = iter(enumerate(items))

    def take() -> None:
        for i, item in left:
            done[i] = work(item)

    others = [pool.submit(take) for _ in range(threads - 1)]
    take()
    for other in others:
        other.result()
    return [done[i] for i in range(len(items))]


def predict(policy: Policy, running: Sequence[_Running], batch_size: int, device: torch.device) -> np.ndarray:
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


def _pictures(spec: PolicySpec, running: Sequence[_Running], padding: int, device: torch.device) -> dict[str, Tensor]:
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


def _start(index: int, episode: Episode, env: Environment, noise_seed: int) -> _Running:
    observation, _ = env.reset(seed=episode.seed)
    generator = torch.Generator().manual_seed(episode_stream(noise_seed, episode))
    return _Running(index, episode, env, generator, observation)


def _look(state: _Running, spec: PolicySpec, record: Sequence[str], soon: bool) -> None:
    """Draw the current observation: for the record, and for the policy if it is among the last K before it decides (`soon`)."""
    wanted = dict.fromkeys([*record, *(spec.pictures.cameras if soon else ())])
    state.view = {camera: state.env.render(camera) for camera in wanted}
    if soon and spec.pictures.cameras:
        view = {camera: state.view[camera] for camera in spec.pictures.cameras}
        state.looked = [*state.looked, view][-spec.history :]


def _execute(
    state: _Running, chunk: np.ndarray, spec: PolicySpec, sim_state: bool, expert: bool, cameras: Sequence[str],
    until_success: bool,
) -> None:  # fmt: skip
    """Run up to E steps of a chunk in the episode's environment and record them."""
    rows, before = state.rows, len(state.rows["reward"])
    for action in chunk[: spec.execute]:
        rows["observation"].append(state.observation)
        for camera in cameras:
            rows[IMAGES + camera].append(state.view[camera])
        if sim_state:
            rows["sim_state"].append(state.env.get_state())
        if expert:
            rows["expert_action"].append(state.env.expert(state.observation))
        state.observation, reward, terminated, truncated, info = state.env.step(action)
        rows["reward"].append(reward)
        rows["success"].append(bool(info["success"]))
        if COST in info:
            rows[COST].append([info[COST]])
        state.done = terminated or truncated or (until_success and rows["success"][-1])
        if state.done:
            break
        soon = len(rows["reward"]) - before > spec.execute - spec.history
        _look(state, spec, cameras, soon)
    count = len(rows["reward"]) - before
    predicted, executed = np.zeros((count, *chunk.shape), chunk.dtype), np.zeros((count, len(chunk)), dtype=bool)
    predicted[0], executed[0, :count] = chunk, True
    rows["action"] += list(chunk[:count])
    rows["chunk"] += list(predicted)
    rows["executed"] += list(executed)


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


def trajectory(
    rows: dict[str, list[np.ndarray | float | bool]], env: Environment, seed: int, policy_name: str, sentence: str = ""
) -> Trajectory:
    """A trajectory from recorded rows, and what was asked for in words."""

    def column(name: str, dtype: type = np.float32) -> np.ndarray | None:
        return np.asarray(rows[name], dtype=dtype) if name in rows else None

    def needed(name: str, dtype: type = np.float32) -> np.ndarray:
        return np.asarray(rows[name], dtype=dtype)

    images = {k.removeprefix(IMAGES): needed(k, np.uint8) for k in rows if k.startswith(IMAGES)}
    extra = {name: needed(name) for name in ("expert_action", COST) if name in rows}
    return Trajectory(
        needed("observation"), needed("action"), needed("reward"), needed("success", bool), env.task, seed, policy_name,
        type(env).__name__.lower(), column("sim_state", np.float64), column("chunk"), column("executed", bool), images, extra,
        sentence,
    )  # fmt: skip
