"""What a report shows of episodes: short films of policies on the first evaluation resets, and strips of the compared pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.store import TrajectoryStore
from robopref.data.video import VideoWriter
from robopref.stages.environments import roll
from robopref.stages.units import unit

EVERY = 3
"""Every third simulator step is shown."""
FPS = 25
STRIP = (0.05, 0.5, 1.0)
"""Moments of an episode that its strip shows, as shares of its length."""


def film(config: dict[str, Any], policies: dict[str, str], folder: Path) -> dict[str, Any]:
    """`NAME_SEED.mp4` for each policy on the same resets; without a way to render, says so and films nothing."""
    settings = config["evaluation"]
    begin = settings["first_reset"] + 1000 * config["seed"]
    seeds = list(range(begin, begin + settings["videos"]))

    def make(partial: Path) -> dict[str, Any]:
        shown = [
            (n, t)
            for n, p in policies.items()
            for t in roll(Path(p), config["env"], seeds, config["seed"], 0, sim_state=True)
        ]
        try:
            for name, one in shown:
                _write(partial / f"{name}_{one.seed}.mp4", frames(config["env"], one))
        except InputError as error:  # no GL on this machine: the report is worth having without films
            return {"films": 0, "why": str(error)}
        return {"films": len(policies) * len(seeds)}

    return unit(folder, make)


def frames(config: dict[str, Any], trajectory: Trajectory) -> np.ndarray:
    """Pictures (F, height, width, 3) uint8 of every third step of an episode that holds `sim_state`."""
    from hydra.utils import instantiate

    if trajectory.sim_state is None:
        raise InputError("frames: got a trajectory without sim_state, wanted one rolled out with sim_state=True.")
    env = instantiate(config)  # its own, so that its GL context is freed here and not at the end of the process
    try:
        env.reset(seed=trajectory.seed)
        pictures = []
        for state in trajectory.sim_state[::EVERY]:
            env.set_state(state)
            pictures.append(env.render())
        return np.stack(pictures)
    finally:
        env.close()


def strips(config: dict[str, Any], pairs: list[dict[str, Any]], stores: list[Path], count: int, folder: Path) -> None:
    """`INDEX_SIDE.png` for the first `count` pairs: three moments of each side, replayed from its reset and its actions.

    pairs: rows with `round` and, for each side, `episode`; stores: one per round. Without a way to render, makes none.
    """
    from hydra.utils import instantiate
    from matplotlib.image import imsave

    def make(partial: Path) -> dict[str, Any]:
        env = instantiate(config)
        opened = [TrajectoryStore(root) for root in stores]
        try:
            for index, pair in enumerate(pairs[:count]):
                for side in ("first", "second"):
                    one = opened[pair["round"]].read(pair[side]["episode"], sim_state=False)
                    imsave(partial / f"{index}_{side}.png", _strip(env, one))
        except InputError as error:  # no GL on this machine
            return {"strips": 0, "why": str(error)}
        finally:
            env.close()
        return {"strips": 2 * min(count, len(pairs))}

    unit(folder, make)


def _strip(env: Any, trajectory: Trajectory) -> np.ndarray:
    """Pictures (height / 2, 3 width / 2, 3) uint8 of an episode, side by side."""
    moments = {max(1, round(share * len(trajectory))) for share in STRIP}
    env.reset(seed=trajectory.seed)
    pictures = []
    for step, action in enumerate(trajectory.action, start=1):
        env.step(action)
        if step in moments:
            pictures.append(env.render()[::2, ::2])
    return np.concatenate(pictures, axis=1)


def _write(path: Path, pictures: np.ndarray) -> None:
    with VideoWriter(path, FPS, *pictures.shape[1:3]) as writer:
        writer.add(pictures)
