"""Episodes under way: what is asked for, how a chunk of actions runs in many of them at once, and what is recorded.

A step of a simulator is physics, which lets go of Python's lock, and Python, which does not. Threads share the first only.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch

from robopref.arrays import Trajectory
from robopref.protocols import Environment, Simulated, StepResult
from robopref.types import PolicySpec

IMAGES = "images."
"""Rows of pictures are called by this and the camera's name."""
COST = "cost"
"""What an environment may report of a step beside success: for teachers and evaluation, never for training."""
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
class Running:
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
    parts: Simulated | None = None
    """The environment, if its step comes in two parts."""

    def history(self, length: int) -> np.ndarray:
        """The last `length` observations (K, D), the first one repeated where there were fewer."""
        if length == 1:
            return self.observation[None]
        seen = [*self.rows["observation"][max(0, len(self.rows["observation"]) - length + 1) :], self.observation]
        return np.stack([seen[0]] * (length - len(seen)) + seen)


@dataclass(frozen=True)
class Record:
    """What is recorded of an episode, and when it ends."""

    spec: PolicySpec
    sim_state: bool
    expert: bool
    cameras: tuple[str, ...]
    until_success: bool

    @cached_property
    def pictures(self) -> bool:
        """Whether any picture is taken, for the record or for the policy."""
        return bool(self.cameras or self.spec.pictures.cameras)


def shared(
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


def start(index: int, episode: Episode, env: Environment, noise_seed: int) -> Running:
    observation, _ = env.reset(seed=episode.seed)
    generator = torch.Generator().manual_seed(episode_stream(noise_seed, episode))
    return Running(index, episode, env, generator, observation, parts=env if isinstance(env, Simulated) else None)


def look(state: Running, spec: PolicySpec, record: Sequence[str], soon: bool) -> None:
    """Draw the current observation: for the record, and for the policy if it is among the last K before it decides (`soon`)."""
    wanted = dict.fromkeys([*record, *(spec.pictures.cameras if soon else ())])
    state.view = {camera: state.env.render(camera) for camera in wanted}
    if soon and spec.pictures.cameras:
        view = {camera: state.view[camera] for camera in spec.pictures.cameras}
        state.looked = [*state.looked, view][-spec.history :]


def run_chunks(
    running: Sequence[Running], chunks: np.ndarray, record: Record, pool: ThreadPoolExecutor, threads: int
) -> None:
    """Run up to E steps of every episode's chunk and record them.

    Several threads go step by step through all episodes, so that they share only what lets go of Python's lock; one thread goes
    episode by episode, while a simulator's arrays are still in the processor's cache.
    """
    pairs = list(zip(running, chunks, strict=True))
    for group in [pairs] if threads > 1 else [[pair] for pair in pairs]:
        for k in range(record.spec.execute):
            acting = [(state, chunk[k]) for state, chunk in group if not state.done]
            for state, _ in acting:
                _before(state, record)
            begun = shared(pool, threads, _begin, acting)
            for (state, _), answer in zip(acting, begun, strict=True):
                _after(state, answer or _outcome(state), record, k + 1)
        for state, chunk in group:
            _keep_chunk(state.rows, chunk)


def _begin(one: tuple[Running, np.ndarray]) -> StepResult | None:
    """The part of a step that lets go of Python's lock, where the environment has one; else the whole of it."""
    state, action = one
    if state.parts is None:
        return state.env.step(action)
    state.parts.simulate(action)
    return None


def _outcome(state: Running) -> StepResult:
    assert state.parts is not None  # else `_begin` has stepped
    return state.parts.outcome()


def _before(state: Running, record: Record) -> None:
    rows = state.rows
    rows["observation"].append(state.observation)
    for camera in record.cameras:
        rows[IMAGES + camera].append(state.view[camera])
    if record.sim_state:
        rows["sim_state"].append(state.env.get_state())
    if record.expert:
        rows["expert_action"].append(state.env.expert(state.observation))


def _after(state: Running, answer: StepResult, record: Record, taken: int) -> None:
    """Record what a step led to; `taken` steps of the chunk have run."""
    rows, spec = state.rows, record.spec
    state.observation, reward, terminated, truncated, info = answer
    rows["reward"].append(reward)
    rows["success"].append(bool(info["success"]))
    if COST in info:
        rows[COST].append([info[COST]])
    state.done = terminated or truncated or (record.until_success and rows["success"][-1])
    if not state.done and record.pictures:
        look(state, spec, record.cameras, soon=taken > spec.execute - spec.history)


def _keep_chunk(rows: dict[str, list[Any]], chunk: np.ndarray) -> None:
    """Actions executed since the last chunk, the chunk itself at the first of them, and which of it ran."""
    count = len(rows["reward"]) - len(rows["action"])
    predicted, executed = np.zeros((count, *chunk.shape), chunk.dtype), np.zeros((count, len(chunk)), dtype=bool)
    predicted[0], executed[0, :count] = chunk, True
    rows["action"] += list(chunk[:count])
    rows["chunk"] += list(predicted)
    rows["executed"] += list(executed)


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
