"""Where the time of a trajectory-DPO step goes: forward, backward and optimiser against everything else.

Run: robopref bench dpo_step
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

OVERHEAD = 0.10
"""Largest share of a step outside forward, backward and optimiser."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `overhead`: share of a DPO step spent outside forward, backward and optimiser; `step_ms`: what a step takes."""
    import torch

    torch.set_num_threads(1)
    calls: dict[str, float] = {}
    steps = 40 if quick else 150
    total = _train(calls, steps)
    inside = sum(calls.values())
    share = 1 - inside / total
    return {
        "overhead": {"measured": round(share, 4), "target": OVERHEAD, "ok": share <= OVERHEAD},
        "step_ms": {"measured": round(1000 * total / steps, 2), "target": None, "ok": True, **{k: round(1000 * v / steps, 2) for k, v in calls.items()}},
    }  # fmt: skip


def _train(calls: dict[str, float], steps: int) -> float:
    """Seconds of `steps` alignment steps; adds the seconds inside the network, backward and the optimiser to `calls`."""
    import torch

    from robopref.arrays import Trajectory
    from robopref.data.windows import chunk_table
    from robopref.learners.align import AlignSettings, PairTable, align
    from robopref.losses.pairwise import ipo
    from robopref.policies.diffusion import Diffusion
    from robopref.types import Dims

    rng = np.random.default_rng(0)

    def trajectory() -> Trajectory:
        observation = rng.normal(size=(200, 39)).astype(np.float32)
        return Trajectory(
            observation, rng.uniform(-1, 1, (200, 4)).astype(np.float32), np.zeros(200, np.float32), np.zeros(200, bool)
        )

    policy = Diffusion(Dims(39, 4))
    reference = policy.reference()
    table = chunk_table([trajectory() for _ in range(40)], policy.spec, every=8)
    pairs = PairTable(torch.arange(20), torch.arange(20, 40), torch.ones(20), torch.ones(20))
    settings = AlignSettings(steps=steps, pairs_per_step=8, chunks_per_trajectory=6)
    _time(policy.denoiser, "forward", calls)
    _time(reference.denoiser, "forward", calls)
    before = torch.Tensor.backward, torch.optim.AdamW.step, torch.nn.utils.clip_grad_norm_
    torch.Tensor.backward = _timed(before[0], "backward", calls)  # type: ignore[method-assign]
    torch.optim.AdamW.step = _timed(before[1], "optimiser", calls)  # type: ignore[method-assign]
    torch.nn.utils.clip_grad_norm_ = _timed(before[2], "optimiser", calls)
    try:
        logs = align(policy, reference, table, pairs, pairs.first, ipo, settings, torch.Generator().manual_seed(0))
        next(logs)  # calibration and warm-up
        calls.clear()
        begin = time.perf_counter()
        for _ in logs:
            pass
        return time.perf_counter() - begin
    finally:
        torch.Tensor.backward, torch.optim.AdamW.step, torch.nn.utils.clip_grad_norm_ = before  # type: ignore[method-assign]


def _time(module: Any, name: str, calls: dict[str, float]) -> None:
    module.forward = _timed(module.forward, name, calls)


def _timed(function: Any, name: str, calls: dict[str, float]) -> Any:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments, **options)
        calls[name] = calls.get(name, 0.0) + time.perf_counter() - begin
        return result

    return wrapped
