"""robomimic's HDF5 (0.3): write a store as one file, and read such files back as trajectories.

A foreign reader finds `actions`, `rewards`, `dones`, `states`, `obs/*`, `next_obs/*` and the filter keys train and
valid. A store does not hold the observation after the last action, so the last row of `next_obs` repeats the one
before. What robomimic has no place for (success, chunks, further features) goes into a group `robopref` of each demo,
so that the way back is exact.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.files import atomic_file

STATE = "state"
_GYM = 2  # robomimic's EnvType.GYM_TYPE
_VALID_EVERY = 10


def write_hdf5(trajectories: Iterable[Trajectory], path: Path) -> int:
    """Write trajectories, one in memory at a time; every tenth is for validation. Returns how many.

    Raises `InputError` when an action lies outside [-1, 1] (robomimic refuses it), when there is no trajectory, when
    one has an observation of another width, and when the disk is full.
    """
    with atomic_file(path) as temporary:
        count = total = 0
        widths: tuple[int, ...] | None = None
        with _Patient(temporary, "w+b") as disk, h5py.File(disk, "w") as file:
            data = file.create_group("data")
            for trajectory in trajectories:
                shape = (trajectory.observation.shape[1], trajectory.action.shape[1])
                widths = widths or shape
                if shape != widths:
                    raise InputError(
                        f"{path}: got an episode of widths {shape}, wanted {widths} as before. Split the store."
                    )
                if count == 0:
                    data.attrs["env_args"] = json.dumps(_env_args(trajectory))
                _write_demo(data.create_group(f"demo_{count}"), trajectory, count)
                disk.check()
                count, total = count + 1, total + len(trajectory)
            if count == 0:
                raise InputError(f"{path}: got no episode to write, wanted at least one.")
            data.attrs["total"] = total
            valid = [i for i in range(count) if i % _VALID_EVERY == _VALID_EVERY - 1] or [count - 1]
            train = [i for i in range(count) if i not in set(valid)] or [0]
            for name, demos in (("train", train), ("valid", valid)):
                file.create_dataset(f"mask/{name}", data=np.array([f"demo_{i}".encode() for i in demos]))
            file.close()
            disk.check()
    return count


def read_hdf5(path: Path) -> Iterator[Trajectory]:
    """The demos of a robomimic file in the order of their numbers.

    Files that robopref did not write: the observation joins all low-dimensional `obs/*` in alphabetical order,
    pictures become cameras, success is a reward of 1 (so rewards must be 0 or 1). Raises `InputError` when the file
    is torn or lacks something.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: got no such file, wanted a robomimic HDF5 file. Check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path}: got a torn file or no HDF5 at all, wanted robomimic's HDF5. Restore it from a copy."
        ) from error
    with file:
        if "data" not in file or not len(file["data"]):
            raise InputError(f"{path}: got no group `data` with demos, wanted robomimic's layout.")
        data = file["data"]
        names = sorted(data, key=lambda name: _number(path, name))
        env = _read_env(path, data)
        for name in names:
            try:
                yield _read_demo(data[name], env)
            except KeyError as error:
                raise InputError(
                    f"{path}: {name} lacks something ({error.args[0]}), wanted robomimic's layout."
                ) from error
            except OSError as error:
                raise InputError(f"{path}: {name} cannot be read ({error}). Restore the file from a copy.") from error


class _Patient(io.FileIO):
    """A file that swallows a failed write and tells of it in `check`: HDF5 (1.14) crashes when closing on a full disk."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """As `FileIO.write`, but whole, and without raising."""
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.failure is None:
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """As `FileIO.truncate`, without raising."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0

    def check(self) -> None:
        """Raise what went wrong while writing, if anything did."""
        if self.failure is not None:
            raise self.failure


def _env_args(trajectory: Trajectory) -> dict[str, Any]:
    return {"env_name": trajectory.task or "unknown", "env_type": _GYM, "env_kwargs": {}}


def _write_demo(demo: h5py.Group, trajectory: Trajectory, number: int) -> None:
    steps = len(trajectory)
    if np.abs(trajectory.action).max() > 1:
        raise InputError(
            f"episode {number}: got actions up to {np.abs(trajectory.action).max():.3g}, wanted them in [-1, 1] "
            "(robomimic refuses others).\nCollect again with clipped actions."
        )
    demo.attrs["num_samples"] = steps
    demo.attrs.update(
        {"task": trajectory.task, "seed": trajectory.seed, "policy": trajectory.policy, "env": trajectory.env}
    )
    demo["actions"], demo["rewards"] = trajectory.action, trajectory.reward
    demo["dones"] = (np.arange(steps) == steps - 1).astype(np.int64)
    has_state = trajectory.sim_state is not None
    demo["states"] = trajectory.sim_state if has_state else np.zeros((steps, 1))
    following = np.minimum(np.arange(steps) + 1, steps - 1)
    demo[f"obs/{STATE}"] = trajectory.observation
    demo[f"next_obs/{STATE}"] = trajectory.observation[following]
    for camera, pictures in trajectory.images.items():
        options = {"chunks": (1, *pictures.shape[1:]), "compression": "gzip", "compression_opts": 1}
        demo.create_dataset(f"obs/{camera}", data=pictures, **options)
        demo.create_dataset(f"next_obs/{camera}", data=pictures[following], **options)
    ours = demo.create_group("robopref")
    ours.attrs["has_state"] = has_state
    ours["success"] = trajectory.success
    if trajectory.chunk is not None and trajectory.executed is not None:
        ours["chunk"], ours["executed"] = trajectory.chunk, trajectory.executed
    for name, value in trajectory.extra.items():
        ours[f"extra/{name}"] = value


def _read_env(path: Path, data: h5py.Group) -> Mapping[str, Any]:
    try:
        args = json.loads(data.attrs.get("env_args", "{}"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: got `env_args` that are not JSON ({error}). Restore the file from a copy."
        ) from error
    return args if isinstance(args, dict) else {}


def _number(path: Path, name: str) -> int:
    digits = name.removeprefix("demo_")
    if not name.startswith("demo_") or not digits.isdecimal():
        raise InputError(f"{path}: got a demo named {name!r}, wanted demo_0, demo_1, ... Rename the group.")
    return int(digits)


def _read_demo(demo: h5py.Group, env: Mapping[str, Any]) -> Trajectory:
    ours = demo.get("robopref", {})
    observations = {name: values[()] for name, values in sorted(demo["obs"].items())}
    pictures = {k: v for k, v in observations.items() if v.dtype == np.uint8 and v.ndim == 4}
    vectors = [v.reshape(len(v), -1).astype(np.float32) for k, v in observations.items() if k not in pictures]
    if not vectors:
        raise KeyError("a low-dimensional observation")
    reward = demo["rewards"][()].astype(np.float32)
    states = demo["states"][()] if "states" in demo else None
    has_state = bool(ours.attrs["has_state"]) if ours else states is not None and states.any()
    return Trajectory(
        observation=np.concatenate(vectors, axis=1),
        action=demo["actions"][()].astype(np.float32),
        reward=reward,
        success=ours["success"][()].astype(bool) if ours else _success(demo.name, reward),
        task=str(demo.attrs.get("task", env.get("env_name", ""))),
        seed=int(demo.attrs.get("seed", -1)),
        policy=str(demo.attrs.get("policy", "")),
        env=str(demo.attrs.get("env", "robomimic")),
        sim_state=states.astype(np.float64) if has_state and states is not None else None,
        chunk=ours["chunk"][()] if "chunk" in ours else None,
        executed=ours["executed"][()] if "executed" in ours else None,
        images=pictures,
        extra={name: value[()] for name, value in ours["extra"].items()} if "extra" in ours else {},
    )


def _success(name: str, reward: np.ndarray) -> np.ndarray:
    if not np.isin(reward, (0.0, 1.0)).all():
        raise InputError(
            f"{name}: got rewards other than 0 and 1 and no record of success, wanted one of them.\n"
            "Add a data set `robopref/success` (T,) of booleans to each demo."
        )
    return reward == 1
