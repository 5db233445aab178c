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
    """Rows `overhead`: share of a DPO step spent outside the networks' forward passes, backward and optimiser; `step_ms`: what a step takes.

    First 8 pairs a step with the squared loss, then (`shipped_*`) the 4 pairs and the loss that experiments ship with.
    """
    import torch

    from robopref.losses.pairwise import ipo, sigmoid
    from robopref.run import compose

    torch.set_num_threads(1)
    steps = 40 if quick else 150
    shipped = {**compose([])["align"], "steps": steps}
    ours = {"steps": steps, "pairs_per_step": 8, "chunks_per_trajectory": 6}
    return {**_rows("", ours, ipo), **_rows("shipped_", shipped, sigmoid)}


def _rows(prefix: str, settings: dict[str, Any], loss: Any) -> dict[str, dict[str, Any]]:
    calls: dict[str, float] = {}
    steps, total = settings["steps"], _train(calls, settings, loss)
    share = 1 - sum(calls.values()) / total
    return {
        f"{prefix}overhead": {"measured": round(share, 4), "target": OVERHEAD, "ok": share <= OVERHEAD},
        f"{prefix}step_ms": {"measured": round(1000 * total / steps, 2), "target": None, "ok": True, **{k: round(1000 * v / steps, 2) for k, v in calls.items()}},
    }  # fmt: skip


def _train(calls: dict[str, float], settings: dict[str, Any], loss: Any) -> float:
    """Seconds of some alignment steps; adds the seconds inside the network, backward and the optimiser to `calls`."""
    import torch

    from robopref.arrays import Trajectory
    from robopref.data.windows import chunk_table
    from robopref.learners.align import AlignSettings, PairTable, align
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
    _time(policy.denoiser, "forward", calls)
    _time(reference.denoiser, "forward", calls)
    before = torch.Tensor.backward, torch.optim.AdamW.step, torch.nn.utils.clip_grad_norm_
    torch.Tensor.backward = _timed(before[0], "backward", calls)  # type: ignore[method-assign]
    torch.optim.AdamW.step = _timed(before[1], "optimiser", calls)  # type: ignore[method-assign]
    torch.nn.utils.clip_grad_norm_ = _timed(before[2], "optimiser", calls)
    try:
        logs = align(
            policy,
            reference,
            table,
            pairs,
            pairs.first,
            loss,
            AlignSettings(**settings),
            torch.Generator().manual_seed(0),
        )
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
