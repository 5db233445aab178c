"""A toy alignment: episodes that act near a level, a small policy cloned from them, and pairs of them."""

import numpy as np
import torch

from robopref.arrays import Trajectory
from robopref.data.windows import chunk_table
from robopref.learners.align import AlignSettings, PairTable
from robopref.learners.clone import clone, fit_normalizer
from robopref.policies.diffusion import Diffusion
from robopref.types import Dims

DIMS = Dims(3, 2)
LOOP = {
    "learner": "align", "objectives": {"weights": [1.0], "others": []}, "best_of": {"candidates": 1}, "lora": {"rank": 0},
}  # fmt: skip


def trajectory(level, seed, steps=24):
    """Actions near `level`; higher is 'better'."""
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(steps, 3)).astype(np.float32)
    action = np.clip(level + 0.1 * rng.normal(size=(steps, 2)), -1, 1).astype(np.float32)
    return Trajectory(observation, action, np.full(steps, level, np.float32), np.full(steps, level > 0))


def taught():
    """(policy, table, pairs): a small policy cloned from 20 episodes, and ten pairs whose first is better."""
    torch.manual_seed(0)
    trajectories = [trajectory(0.6 if i % 2 else -0.6, i) for i in range(20)]
    policy = Diffusion(DIMS, horizon=4, execute=4, width=48, depth=1, diffusion_steps=20, sample_steps=4)
    table = chunk_table(trajectories, policy.spec)
    fit_normalizer(policy, table)
    generator = torch.Generator().manual_seed(0)
    for _ in clone(policy, table, steps=150, lr=2e-3, batch=32, generator=generator):
        pass
    first, second = torch.arange(1, 20, 2), torch.arange(0, 20, 2)
    return policy, table, PairTable(first, second, torch.ones(10), torch.ones(10))


def settings(**changes):
    return AlignSettings(
        **{"steps": 40, "lr": 1e-3, "pairs_per_step": 6, "chunks_per_trajectory": 4, "anchor_chunks": 16, **changes}
    )


def generator():
    return torch.Generator().manual_seed(1)
