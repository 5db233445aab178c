"""Pictures for training: windows from the decoded cache, and decoding against a lerobot dataset of the same frames read at random.

Rates are per second of processor time on one thread, so that a busy machine changes them little. Run: robopref bench images
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ._peers import ask

WINDOWS, SPEEDUP = 300.0, 3.0
SIZE, HISTORY, BATCH, STEPS = 84, 2, 64, 100

PEER = """
import json, sys, time
import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
s = json.loads(sys.argv[1])
torch.set_num_threads(1)
data = LeRobotDataset("bench/images", root=s["root"], video_backend="pyav")
order = np.random.default_rng(0).permutation(data.num_frames)[: s["reads"]].tolist()
for i in order[:5]:
    data[i]
begin = time.process_time()
for i in order:
    data[i]["observation.images.top"]
print(json.dumps({"frames_per_second": len(order) / (time.process_time() - begin)}))
"""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows: windows per second from the cache; decoding (all frames once) and random frames from the cache over the peer's."""
    with tempfile.TemporaryDirectory() as folder:
        root, episodes = Path(folder) / "store", 8 if quick else 40
        _write(root, episodes)
        ours = _ours(root, 20 if quick else 200)
        constraints = Path(__file__).parents[1] / "constraints-lerobot.txt"
        settings = {"root": str(root), "reads": 100 if quick else 1000}
        peer = ask("lerobot", ["lerobot[dataset]>=0.6,<0.7"], PEER, settings, "3.12", constraints)["frames_per_second"]
    rows: dict[str, dict[str, Any]] = {
        "windows_per_second": {"measured": round(ours["windows"]), "target": WINDOWS, "ok": ours["windows"] >= WINDOWS},
        "trained_windows_per_second": {"measured": round(ours["trained"]), "target": None, "ok": True},
    }
    for name, rate, target in (("decoding", ours["decoded"], SPEEDUP), ("random_frame", ours["read"], None)):
        ratio = rate / peer
        rows[name] = {
            "measured": round(ratio, 2), "target": target, "ok": target is None or ratio >= target,
            "ours": round(rate), "peer": round(peer),
        }  # fmt: skip
    return rows


def _write(root: Path, episodes: int) -> None:
    """A store of point-mass episodes with pictures of 84 pixels."""
    import numpy as np
    from robopref.envs.point_mass import PointMass

    from robopref.arrays import Trajectory
    from robopref.data.store import StoreWriter

    env = PointMass(horizon=STEPS, image_size=SIZE)
    with StoreWriter(root, fps=20) as writer:
        for seed in range(episodes):
            seen, rows = env.reset(seed=seed)[0], []
            for _ in range(STEPS):
                action = env.expert(seen)
                rows.append((seen, action, env.render()))
                seen = env.step(action)[0]
            state, action, pictures = (np.stack(column) for column in zip(*rows, strict=True))
            nothing = np.zeros(STEPS, np.float32)
            writer.add(Trajectory(state, action, nothing, nothing > 0, "point-mass", seed, images={"top": pictures}))


def _ours(root: Path, batches: int) -> dict[str, float]:
    """Decoded frames, random frames, windows (drawn, augmented, as floats) and trained windows, each per second."""
    import torch

    from robopref.data.picture_cache import build, cached
    from robopref.data.store import TrajectoryStore
    from robopref.data.windows import chunk_table
    from robopref.learners.clone import clone
    from robopref.networks.augment import augmented
    from robopref.networks.encoders import as_floats
    from robopref.policies.diffusion import Diffusion
    from robopref.types import Dims

    torch.set_num_threads(1)
    torch.manual_seed(0)
    store, generator = TrajectoryStore(root), torch.Generator().manual_seed(0)
    frames = STEPS * len(store)
    rates = {"decoded": frames / _seconds(lambda: build(store, ["top"]))}
    eyes = {"cameras": ["top"], "size": SIZE, "shift": 4, "colour": 0.1}
    policy = Diffusion(Dims(8, 2), history=HISTORY, eyes=eyes)
    table = chunk_table(cached(store, ["top"]), policy.spec)
    single = table.chunks.observation.images["top"]

    def read() -> None:
        for row in torch.randint(frames, (batches * BATCH,), generator=generator):
            single[row[None]]

    def windows() -> None:
        for _ in range(batches):
            chunks = table.chunks[torch.randint(frames, (BATCH,), generator=generator)]
            seen = augmented(chunks, policy.spec.pictures, generator).observation.picture("top", (SIZE, SIZE))
            as_floats(seen.flatten(0, 1), chunks.action)

    def trained() -> None:
        for _ in clone(policy, table, steps=steps, lr=1e-4, batch=BATCH, generator=generator):
            pass

    steps = max(3, batches // 10)
    rates["read"] = batches * BATCH * HISTORY / _seconds(read)
    rates["windows"] = batches * BATCH / _seconds(windows)
    rates["trained"] = steps * BATCH / _seconds(trained)
    return rates


def _seconds(work: Callable[[], object]) -> float:
    """Processor time of a piece of work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin
