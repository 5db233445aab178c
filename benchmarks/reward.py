"""Reward training against the `imitation` package's preference comparisons: same network, batch, segments and machine, in one run.

Run: robopref bench reward
"""

from __future__ import annotations

import time
from typing import Any

from ._peers import ask

SPEEDUP = 3.0
"""Times the pairs per second of the peer."""
SHAPE = {"pairs": 256, "steps": 50, "observation": 39, "action": 4, "width": 64, "batch": 32}

PEER = """
import json, sys, time
import gymnasium as gym
import numpy as np
import torch
from imitation.algorithms import preference_comparisons as pc
from imitation.data.types import TrajectoryWithRew
from imitation.rewards.reward_nets import BasicRewardNet
s = json.loads(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
box = lambda n: gym.spaces.Box(-10.0, 10.0, (n,), np.float32)
net = BasicRewardNet(box(s["observation"]), box(s["action"]), use_action=False, hid_sizes=(s["width"], s["width"]))
def fragment():
    return TrajectoryWithRew(
        obs=rng.normal(size=(s["steps"] + 1, s["observation"])).astype(np.float32),
        acts=rng.normal(size=(s["steps"], s["action"])).astype(np.float32),
        infos=None, terminal=False, rews=np.zeros(s["steps"], np.float32))
data = pc.PreferenceDataset()
data.push([(fragment(), fragment()) for _ in range(s["pairs"])], (rng.random(s["pairs"]) < 0.5).astype(np.float32))
loss = pc.CrossEntropyRewardLoss()
model = pc.PreferenceModel(net)
trainer = pc.BasicRewardTrainer(model, loss, rng, batch_size=s["batch"], epochs=s["epochs"], lr=2e-3)
begin = time.perf_counter()
trainer.train(data)
print(json.dumps({"pairs_per_second": s["pairs"] * s["epochs"] / (time.perf_counter() - begin)}))
"""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `reward_training`: pairs per second over the peer's, one network each; `ensemble_of_4` for what the default trains."""
    ours = {members: _ours(members, 60 if quick else 300) for members in (1, 4)}
    peer = ask("imitation", ["imitation==1.0.1", "setuptools<81"], PEER, {**SHAPE, "epochs": 1 if quick else 4})[
        "pairs_per_second"
    ]
    row = {"measured": round(ours[1] / peer, 2), "target": SPEEDUP, "ok": ours[1] / peer >= SPEEDUP}
    return {
        "reward_training": {**row, "ours": round(ours[1], 1), "peer": round(peer, 1)},
        "ensemble_of_4": {"measured": round(ours[4] / peer, 2), "target": None, "ok": True, "ours": round(ours[4], 1), "peer": round(peer, 1)},
    }  # fmt: skip


def _ours(members: int, steps: int) -> float:
    """Pairs per second of `fit_reward`, looks at left-out pairs switched off as the peer has none."""
    import numpy as np
    import torch

    from robopref.learners.reward import FitSettings, fit_reward
    from robopref.rewards.partial_return import PartialReturn
    from robopref.types import Dims, PreferenceBatch, Segments

    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)

    def side() -> Segments:
        shape = (SHAPE["pairs"], SHAPE["steps"])
        observation = torch.from_numpy(rng.normal(size=(*shape, SHAPE["observation"])).astype(np.float32))
        action = torch.from_numpy(rng.normal(size=(*shape, SHAPE["action"])).astype(np.float32))
        return Segments(observation, action, torch.ones(shape))

    labels = torch.from_numpy((rng.random(SHAPE["pairs"]) < 0.5).astype(np.float32))
    pairs = PreferenceBatch(side(), side(), labels, torch.ones(SHAPE["pairs"]))
    model = PartialReturn(Dims(SHAPE["observation"], SHAPE["action"]), members=members, width=SHAPE["width"])
    settings = FitSettings(steps=steps + 5, batch=SHAPE["batch"], least=SHAPE["pairs"] + 1)
    logs = fit_reward(model, pairs, settings, torch.Generator().manual_seed(0))
    for _ in range(5):
        next(logs)  # warm up
    begin = time.perf_counter()
    for _ in logs:
        pass
    return SHAPE["batch"] * steps / (time.perf_counter() - begin)
