"""Short films of policies on the first evaluation resets, re-rendered from the simulator's states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.video import VideoWriter
from robopref.stages.environments import roll
from robopref.stages.units import unit

EVERY = 3
"""Every third simulator step is shown."""
FPS = 25


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


def _write(path: Path, pictures: np.ndarray) -> None:
    with VideoWriter(path, FPS, *pictures.shape[1:3]) as writer:
        writer.add(pictures)
