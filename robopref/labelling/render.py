"""Frames of a window, in a process of their own: drawn from stored simulator states, replayed, or cut from recorded video.

One process per model: several environments in one process can deform each other's meshes (Metaworld issue 448).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.store import TrajectoryStore
from robopref.labelling.encode import encode

DEFAULT = "default"
"""The camera that the environment itself chooses."""
_CLOSE = 1e-4
"""Largest difference of a replayed observation; beyond it the episode is not the one that was stored."""


@dataclass(frozen=True)
class ClipJob:
    """Everything that decides the bytes of the clips of one window."""

    dataset: str
    episode: int
    start: int
    end: int
    cameras: tuple[str, ...]
    source: str
    """`video` or `states`."""
    size: int
    stride: int
    fps: int
    envs: tuple[dict[str, Any], ...]
    """Presets that may have made the episode, the likeliest first; one with stored states is drawn by the first."""
    outputs: tuple[tuple[str, str, str], ...]
    """(camera, codec, path)."""


def prepare(parent: int, nice: int = 10) -> None:
    """Make a fresh worker process polite (labelling comes first), and let it end when the server was killed."""
    _give_way(nice)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _give_way(nice: int) -> None:
    """Lower this process behind the server, and its session behind others: Linux weighs `nice` within a session only (autogroups), and
    the browser, on the same machine, is in another. A session of its own also spares it the terminal's Ctrl-C; the server ends it.
    """
    os.nice(nice)
    for thread in Path("/proc/self/task").glob("*"):  # numpy's were started by its import, before this
        os.setpriority(os.PRIO_PROCESS, int(thread.name), os.getpriority(os.PRIO_PROCESS, 0))
    with suppress(PermissionError):  # it leads a session already
        os.setsid()
    for _ in range(5):
        try:
            Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # one session in a tenth of a second
            time.sleep(0.15)
        except OSError:  # another system, or one without
            return
        else:
            return


def make(job: ClipJob) -> int:
    """Write all clips of a job; returns the number of frames of each. Raises `InputError` when they cannot be made."""
    pictures = _recorded(job) if job.source == "video" else _drawn(job)
    for camera, codec, path in job.outputs:
        encode(Path(path), pictures[camera], job.fps, codec)
    return len(next(iter(pictures.values())))


def _steps(job: ClipJob) -> range:
    """Steps that are shown: every stride-th one, and the last one, where the outcome shows."""
    return range(job.end - 1 - (job.end - 1 - job.start) // job.stride * job.stride, job.end, job.stride)


def _recorded(job: ClipJob) -> dict[str, np.ndarray]:
    images = _store(job.dataset).read(job.episode, sim_state=False, images=True).images
    return {camera: images[camera][_steps(job)] for camera in job.cameras}


class _Otherwise(InputError):
    """An episode went on otherwise when it was replayed."""


def _drawn(job: ClipJob) -> dict[str, np.ndarray]:
    trajectory = _store(job.dataset).read(job.episode)
    if not job.envs:
        raise InputError(
            f"clips: got episodes of the environment {trajectory.env!r}, which no preset of conf/env makes."
        )
    fitting = _fitting.get((job.dataset, trajectory.task), 0) % len(job.envs)
    for index in sorted(range(len(job.envs)), key=lambda one: one != fitting):  # building an environment takes a second
        try:
            pictures = _pictures(job, trajectory, _built(job.envs[index], job.size))
        except _Otherwise as error:
            other = error
        else:
            _fitting[job.dataset, trajectory.task] = index
            return pictures
    raise other


_fitting: dict[tuple[str, str], int] = {}
"""Which preset replayed the last episode of a dataset and task in this process."""


def _pictures(job: ClipJob, trajectory: Trajectory, env: Any) -> dict[str, np.ndarray]:
    wanted = set(_steps(job))
    pictures: dict[str, list[np.ndarray]] = {camera: [] for camera in job.cameras}
    for step in _visit(env, trajectory, wanted):
        if step in wanted:
            for camera in job.cameras:
                pictures[camera].append(env.render() if camera == DEFAULT else env.render(camera))
    return {camera: np.stack(frames) for camera, frames in pictures.items()}


def _visit(env: Any, trajectory: Trajectory, wanted: set[int]) -> Any:
    """Bring the environment to every wanted step in turn: by its stored state, else by replaying the episode."""
    observation, _ = env.reset(seed=max(trajectory.seed, 0))
    if trajectory.sim_state is not None:
        for step in sorted(wanted):
            env.set_state(trajectory.sim_state[step])
            yield step
        return
    for step in range(max(wanted) + 1):
        if np.abs(observation - trajectory.observation[step]).max() > _CLOSE:
            raise _Otherwise(
                f"clips: got another observation at step {step} when replaying episode seed {trajectory.seed}, wanted the stored one.\n"
                "Collect with record_sim_state=true where the environment had settings of its own."
            )
        yield step
        observation, *_ = env.step(trajectory.action[step])


@lru_cache(maxsize=2)
def _store(dataset: str) -> TrajectoryStore:
    return TrajectoryStore(dataset)


@lru_cache(maxsize=1)
def _environment(config: tuple[tuple[str, Any], ...], size: int) -> Any:
    from hydra.utils import instantiate

    return instantiate(dict(config) | {"image_size": size})


def _built(config: dict[str, Any], size: int) -> Any:
    from hydra.errors import InstantiationException

    try:
        return _environment(tuple(sorted(config.items())), size)
    except InstantiationException as error:
        if isinstance(error.__cause__, InputError):
            raise error.__cause__ from None
        raise


def environments_of(episode_env: str, task: str) -> tuple[dict[str, Any], ...]:
    """The presets of conf/env that make the environment with this stored name: the one called like it first, the rest by name."""
    made = [(name, preset) for name, preset in _presets().items() if _made_by(preset) == episode_env]
    made.sort(key=lambda one: (one[0].replace("_", "") != episode_env, one[0]))
    return tuple(preset | {"task": task} for _, preset in made)


def _made_by(preset: dict[str, Any]) -> str:
    return str(preset["_target_"]).rpartition(".")[2].lower()


@lru_cache(maxsize=1)
def _presets() -> dict[str, dict[str, Any]]:
    """Name -> content of every preset of conf/env."""
    from importlib.resources import files

    import yaml

    entries = [e for e in files("robopref.conf").joinpath("env").iterdir() if e.name.endswith(".yaml")]
    return {e.name.removesuffix(".yaml"): dict(yaml.safe_load(e.read_text(encoding="utf-8"))) for e in entries}


def job_key(job: ClipJob, content: str) -> list[Any]:
    """What a clip's name is made of: the episode's content and every setting, but no path."""
    told = asdict(job)
    for name in ("dataset", "episode", "outputs", "cameras"):
        told.pop(name)
    return [content, told]


def versions() -> Sequence[str]:
    """Versions that decide pixels and bytes."""
    import av

    from robopref import __version__

    return [__version__, av.__version__]
