"""IQL against d3rlpy: same networks, batch, data shape and machine, in one run.

Run: robopref bench iql

Both run on one thread and are timed by processor time, by turns, so that other work on the machine slows neither more than the other.
"""

from __future__ import annotations

import time
from typing import Any

from ._peers import ask

TURNS = 3
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
begin = time.process_time()
for _ in range(s["updates"]):
    algo.update(data.sample_transition_batch(s["batch"]))
print(json.dumps({"steps_per_second": s["updates"] / (time.process_time() - begin)}))
"""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Gradient steps (two critics, value and policy) per second of processor time over the peer's, sampling included.

    Row `iql_step`: the peer's networks, two hidden layers each. Row `iql_step_residual_head`: the policy head of the experiments
    (`experiment=pearl`), two residual blocks, about twice the peer's policy; it has no target.
    """
    from statistics import median

    updates, turns = (100, 1) if quick else (300, TURNS)
    peer, plain, residual = [], [], []
    for _ in range(turns):
        plain.append(_ours(updates, residual=False))
        peer.append(ask("d3rlpy", ["d3rlpy==2.8.1"], PEER, {**SHAPE, "updates": updates})["steps_per_second"])
        residual.append(_ours(updates, residual=True))
    ratio = median(a / b for a, b in zip(plain, peer, strict=True))
    other = median(a / b for a, b in zip(residual, peer, strict=True))
    same = {"measured": round(ratio, 2), "target": 1.0, "ok": ratio >= 1}
    own = {"measured": round(other, 2), "target": None, "ok": True}
    against = {"peer": round(median(peer), 1)}
    return {
        "iql_step": {**same, "ours": round(median(plain), 1), **against},
        "iql_step_residual_head": {**own, "ours": round(median(residual), 1), **against},
    }


def _ours(updates: int, residual: bool) -> float:
    import numpy as np
    import torch

    from robopref.arrays import Trajectory
    from robopref.data.windows import chunk_table
    from robopref.learners.clone import fit_normalizer
    from robopref.learners.iql import IQLSettings, iql
    from robopref.networks.mlp import mlp
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
    policy = Gaussian(Dims(SHAPE["observation"], SHAPE["action"]), horizon=1, execute=1, width=SHAPE["width"], depth=2)
    if not residual:  # the peer's policy: 39 -> 256 -> 256 -> 4
        policy.network = mlp((SHAPE["observation"], SHAPE["width"], SHAPE["width"], SHAPE["action"]), torch.nn.ReLU)  # type: ignore[assignment]
    fit_normalizer(policy, chunk_table(trajectories, policy.spec))
    rewards = [rng.random(steps).astype(np.float32) for _ in trajectories]
    settings = IQLSettings(steps=updates + 5, batch=SHAPE["batch"], width=SHAPE["width"])
    logs = iql(policy, trajectories, rewards, settings, torch.Generator().manual_seed(0))
    for _ in range(5):
        next(logs)  # warm up
    begin = time.process_time()
    for _ in logs:
        pass
    return updates / (time.process_time() - begin)
