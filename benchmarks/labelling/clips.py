"""Stored states to clips in both codecs, end to end, on Meta-World at 256 x 256, in the way the background worker does it."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from robopref.labelling.encode import CODECS
from robopref.labelling.render import DEFAULT, ClipJob, environments_of, make, prepare

from .rows import at_least, at_most

SIZE = 256


def _store(folder: Path, episodes: int, steps: int) -> Path:
    from robopref.envs.metaworld import MetaWorld

    from robopref.arrays import Trajectory
    from robopref.data.store import StoreWriter

    env = MetaWorld("drawer-open", horizon=steps)
    with StoreWriter(folder / "store") as writer:
        for seed in range(episodes):
            seen, done, state = [], [], []
            observation, _ = env.reset(seed=seed)
            for _ in range(steps):
                seen.append(observation)
                state.append(env.get_state())
                done.append(env.expert(observation))
                observation = env.step(done[-1])[0]
            writer.add(Trajectory(np.stack(seen), np.stack(done), np.zeros(steps, np.float32), np.zeros(steps, bool), env.task, seed, "expert", "metaworld", np.stack(state)))  # fmt: skip
    return folder / "store"


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `states_to_clips_fps` (H.264 alone, which is what is waited for; both codecs beside it) and `rerender_differs`."""
    worker = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=prepare, initargs=(os.getpid(),)
    )
    with tempfile.TemporaryDirectory() as name, worker:
        folder = Path(name)
        root = _store(folder, 1 if quick else 3, 64 if quick else 200)
        envs = environments_of("metaworld", "drawer-open-v3")
        speeds: dict[str, float] = {}
        busy: dict[str, float] = {}  # what a processor of its own would give, all threads together
        hashes: list[set[str]] = []
        for label, codecs in (
            ("warm", ("h264",)),
            ("h264", ("h264",)),
            ("both", tuple(CODECS)),
            ("again", tuple(CODECS)),
        ):
            begin, frames, found = time.perf_counter(), 0, set()
            worked = worker.submit(time.process_time).result()
            for episode in range(1 if quick else 3):
                outputs = tuple((DEFAULT, c, str(folder / f"{label}{episode}{CODECS[c].suffix}")) for c in codecs)
                job = ClipJob(
                    str(root), episode, 0, 64 if quick else 200, (DEFAULT,), "states", SIZE, 1, 20, envs, outputs
                )
                frames += worker.submit(make, job).result()
                found |= {hashlib.sha256(Path(p).read_bytes()).hexdigest() for _, _, p in outputs}
            speeds[label] = frames / (time.perf_counter() - begin)
            busy[label] = frames / (worker.submit(time.process_time).result() - worked)
            hashes.append(found)
        return {
            "states_to_clips_fps": at_least(
                speeds["h264"], 50, both_codecs=round(speeds["both"], 1), per_processor_second=round(busy["h264"], 1)
            ),
            "rerender_differs": at_most(len(hashes[2] ^ hashes[3]), 0),
        }
