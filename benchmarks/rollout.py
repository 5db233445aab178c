"""Policy evaluation with 32 environments in one process against one environment at a time (the same code, the same policy).

Ours: 32 environments, predictions in one batch, resets and steps shared by the process's threads. Peer: what one writes with a single
environment; it predicts for that one alone (batch 1, not padded to 32, which would flatter us). The two run in turn, on resets that
neither has seen, and the median of the ratios counts: what other processes take from one, they take from its neighbour too.

Run: robopref bench rollout
"""

from __future__ import annotations

import os
import time
from itertools import count
from statistics import median
from typing import Any

TASK = "drawer-open"
SPEEDUP = 5.0
"""Times one environment at a time."""
MOST_THREADS = 4
"""More do not help: what Python does between calls of the simulator runs one thread at a time."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `batched_evaluation`: environment steps per second side by side over one at a time, in one process."""
    import torch
    from robopref.envs.metaworld import MetaWorld

    from robopref.policies.diffusion import Diffusion
    from robopref.rollout import rollout
    from robopref.types import Dims

    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Diffusion(Dims(39, 4))
    environments = [MetaWorld(TASK) for _ in range(32)]
    resets = count()

    def speed(side_by_side: int, episodes: int, threads: int) -> float:
        seeds = [next(resets) for _ in range(episodes)]
        begin = time.perf_counter()
        made = rollout(policy, environments[:side_by_side], seeds, batch_size=side_by_side, threads=threads)
        steps = sum(len(t) for t in made)
        return steps / (time.perf_counter() - begin)

    threads = min(len(os.sched_getaffinity(0)), MOST_THREADS)
    speed(32, 32, threads), speed(1, 1, 1)  # warm up
    pairs = [(speed(32, 32, threads), speed(1, 3, 1)) for _ in range(5 if quick else 15)]
    ours, peer = (median(one) for one in zip(*pairs, strict=True))
    ratio = median(one / other for one, other in pairs)
    row = {"measured": round(ratio, 2), "target": SPEEDUP, "ok": ratio >= SPEEDUP, "threads": threads}
    return {"batched_evaluation": {**row, "ours": round(ours, 1), "peer": round(peer, 1)}}
