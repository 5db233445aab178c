"""Policy evaluation with 32 environments in one process against one environment at a time (the same code, the same policy).

Run: robopref bench rollout
"""

from __future__ import annotations

import time
from typing import Any

TASK = "drawer-open"
SPEEDUP = 5.0
"""Times one environment at a time."""


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

    def speed(side_by_side: int, episodes: int, batch: int) -> float:
        begin = time.perf_counter()
        made = rollout(policy, environments[:side_by_side], list(range(episodes)), batch_size=batch)
        steps = sum(len(t) for t in made)
        return steps / (time.perf_counter() - begin)

    for side_by_side in (32, 1):
        speed(side_by_side, side_by_side, 32)  # warm up
    repeats = 1 if quick else 3
    ours = max(speed(32, 64, 32) for _ in range(repeats))
    # The peer predicts for its one environment alone: batch 1, not padded to 32, which would flatter us.
    peer = max(speed(1, 4, 1) for _ in range(repeats))
    row = {"measured": round(ours / peer, 2), "target": SPEEDUP, "ok": ours / peer >= SPEEDUP}
    return {"batched_evaluation": {**row, "ours": round(ours, 1), "peer": round(peer, 1)}}
