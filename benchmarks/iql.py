"""IQL against d3rlpy: same networks, batch, data shape and machine, in one run.

Run: robopref bench iql
"""

from __future__ import annotations

import time
from typing import Any

from ._peers import ask

SHAPE = {"episodes": 20, "steps": 200, "observation": 39, "action": 4, "width": 256, "batch": 256}

PEER = """
import json, sys, time, tempfile
import numpy as np
import torch
import d3rlpy
from d3rlpy.models.encoders import VectorEncoderFactory
s = json.loads(sys.argv[1])
torch.set_num_threads(1)
d3rlpy.seed(0)
rng = np.random.default_rng(0)
rows = s["episodes"] * s["steps"]
timeouts = (np.arange(rows) % s["steps"] == s["steps"] - 1).astype(np.float32)
data = d3rlpy.dataset.MDPDataset(
    observations=rng.normal(size=(rows, s["observation"])).astype(np.float32),
    actions=rng.uniform(-1, 1, (rows, s["action"])).astype(np.float32),
    rewards=rng.random(rows).astype(np.float32), terminals=np.zeros(rows, np.float32), timeouts=timeouts)
encoder = VectorEncoderFactory([s["width"], s["width"]])
algo = d3rlpy.algos.IQLConfig(
    batch_size=s["batch"], actor_encoder_factory=encoder, critic_encoder_factory=encoder, value_encoder_factory=encoder,
).create(device="cpu:0")
algo.build_with_dataset(data)
for _ in range(5):
    algo.update(data.sample_transition_batch(s["batch"]))
begin = time.perf_counter()
for _ in range(s["updates"]):
    algo.update(data.sample_transition_batch(s["batch"]))
print(json.dumps({"steps_per_second": s["updates"] / (time.perf_counter() - begin)}))
"""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `iql_step`: gradient steps per second (two critics, value and policy) over the peer's, sampling included."""
    updates = 100 if quick else 500
    ours = _ours(updates)
    peer = ask("d3rlpy", ["d3rlpy==2.8.1"], PEER, {**SHAPE, "updates": updates})["steps_per_second"]
    row = {"measured": round(ours / peer, 2), "target": 1.0, "ok": ours >= peer}
    return {"iql_step": {**row, "ours": round(ours, 1), "peer": round(peer, 1)}}


def _ours(updates: int) -> float:
    import numpy as np
    import torch

    from robopref.arrays import Trajectory
    from robopref.data.windows import chunk_table
    from robopref.learners.clone import fit_normalizer
    from robopref.learners.iql import IQLSettings, iql
    from robopref.policies.gaussian import Gaussian
    from robopref.types import Dims

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    steps, zeros = SHAPE["steps"], np.zeros(SHAPE["steps"], np.float32)
    trajectories = [
        Trajectory(
            rng.normal(size=(steps, SHAPE["observation"])).astype(np.float32),
            rng.uniform(-1, 1, (steps, SHAPE["action"])).astype(np.float32), zeros, zeros > 0,
        )
        for _ in range(SHAPE["episodes"])
    ]  # fmt: skip
    policy = Gaussian(Dims(SHAPE["observation"], SHAPE["action"]), width=SHAPE["width"])
    fit_normalizer(policy, chunk_table(trajectories, policy.spec))
    rewards = [rng.random(steps).astype(np.float32) for _ in trajectories]
    settings = IQLSettings(steps=updates + 5, batch=SHAPE["batch"], width=SHAPE["width"])
    logs = iql(policy, trajectories, rewards, settings, torch.Generator().manual_seed(0))
    for _ in range(5):
        next(logs)  # warm up
    begin = time.perf_counter()
    for _ in logs:
        pass
    return updates / (time.perf_counter() - begin)
