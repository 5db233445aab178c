"""Clones and aligns a small policy, alone or as one of several processes, and writes its weights and scores: python trained_together.py FILE [HEAD]."""

import sys

import numpy as np
import torch
from safetensors.torch import save_file

from robopref import processes
from robopref.arrays import Trajectory
from robopref.data.windows import chunk_table
from robopref.learners.align import AlignSettings, PairTable, align
from robopref.learners.clone import clone, fit_normalizer
from robopref.losses.pairwise import sigmoid
from robopref.policies.flow import Flow
from robopref.policies.vla import FlowVLA
from robopref.types import Dims


def trajectory(seed, steps=12):
    """An episode of noise, with pictures and a sentence."""
    draw = np.random.default_rng(seed)
    state, action = (draw.normal(size=(steps, width)).astype(np.float32) for width in (3, 2))
    picture = draw.integers(256, size=(steps, 16, 16, 3), dtype=np.uint8)
    reward = np.zeros(steps, np.float32)
    action = np.clip(action, -1, 1)
    return Trajectory(state, action, reward, reward > 0, seed=seed, images={"top": picture}, sentence="go there")


def main(file, head):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if head == "flow":
        policy = Flow(Dims(3, 2), horizon=4, execute=4, width=32, depth=1)
    else:
        eyes = {"cameras": ["top"], "size": 16, "width": 8, "shift": 2, "colour": 0.1}
        policy = FlowVLA(Dims(3, 2), eyes, horizon=4, execute=4, words=4, buckets=32, width=16, depth=1, heads=2)
    table = chunk_table([trajectory(seed) for seed in range(12)], policy.spec)
    fit_normalizer(policy, table)
    generator = torch.Generator().manual_seed(0)
    for _ in clone(policy, table, steps=10, lr=1e-3, batch=16, generator=generator, ema=0.9):
        pass
    pairs = PairTable(torch.arange(6), torch.arange(6, 12), torch.linspace(0, 1, 6), torch.linspace(0.5, 1, 6))
    settings = AlignSettings(
        steps=10, lr=1e-3, pairs_per_step=4, chunks_per_trajectory=3, anchor_chunks=8, trust=0.1, early=1.0
    )
    for _ in align(policy, policy.reference(), table, pairs, torch.arange(4), sigmoid, settings, generator):
        pass
    if processes.rank() == 0:
        with torch.no_grad():
            score = policy.score(table.chunks, policy.draw(table.chunks, torch.Generator().manual_seed(1)))
        save_file({"score": score, **policy.state_dict()}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
