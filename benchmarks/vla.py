"""Policies that look and read: milliseconds a chunk, memory of alignment against cloning, and on a GPU what bfloat16 and checkpointing give.

Without a GPU everything is measured on one core and in the process's own memory. Run: robopref bench vla out=DIR
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from ._vla_memory import ROWS, build, measured

CHUNK_MS, MEMORY, PLAN = 60.0, 1.2, 1.3
"""Targets: milliseconds of one chunk, alignment over cloning under LoRA, and how far the memory plan may be off either way."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `chunk_ms/*`, `memory/*`, `plan/*`, and `step/*` where there is a GPU."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = _latencies(5 if quick else 40)
    kinds = (
        ("clone_lora", "align_lora")
        if quick
        else ("clone_all", "align_copy", "align_recomputed", "clone_lora", "align_lora")
    )
    found = {kind: measured(kind, device) for kind in kinds}
    ours, peer = found["align_lora"]["peak"], found["clone_lora"]["peak"]
    rows["memory/align_lora_over_clone_lora"] = {
        "measured": round(ours / peer, 3), "target": MEMORY, "ok": ours / peer <= MEMORY, "ours": round(ours), "peer": round(peer),
    }  # fmt: skip
    for kind, one in found.items():
        ratio = one["peak"] / one["planned"]
        rows[f"plan/{kind}"] = {
            "measured": round(ratio, 3), "target": PLAN, "ok": 1 / PLAN <= ratio <= PLAN,
            "ours": round(one["planned"]), "peer": round(one["peak"]),
        }  # fmt: skip
    return rows | (_steps(10 if quick else 50) if device == "cuda" else {})


def _latencies(repeats: int) -> dict[str, dict[str, Any]]:
    """Processor time of one chunk on one core, presets of the package at 84 pixels; the median."""
    import torch
    from hydra.utils import instantiate

    from robopref.plan_memory import made_up
    from robopref.run import compose
    from robopref.types import Dims

    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    for name in ("vla_tokens", "vla_flow"):
        policy = instantiate(compose([f"policy={name}"])["policy"], _partial_=True)(dims=Dims(39, 4)).eval()
        seen, took = made_up(policy, 1).observation, []
        for _ in range(repeats + 2):
            begin = time.process_time()
            policy.act(seen, torch.Generator().manual_seed(0))
            took.append(1000 * (time.process_time() - begin))
        middle = statistics.median(took[2:])
        rows[f"chunk_ms/{name}"] = {"measured": round(middle, 1), "target": CHUNK_MS, "ok": middle <= CHUNK_MS}
    return rows


def _steps(repeats: int) -> dict[str, dict[str, Any]]:
    """Cloning steps per second on the GPU: bfloat16 over float32, checkpointing over none."""
    from robopref.networks.recompute import recompute

    policy = build().to("cuda")
    plain, half = (_rate(policy, repeats, autocast) for autocast in (False, True))
    recompute(policy)
    again = _rate(policy, repeats, True)
    return {
        "step/bfloat16": {"measured": round(half / plain, 2), "target": None, "ok": True, "ours": round(half, 2), "peer": round(plain, 2)},
        "step/checkpointing": {"measured": round(again / half, 2), "target": None, "ok": True, "ours": round(again, 2), "peer": round(half, 2)},
    }  # fmt: skip


def _rate(policy: Any, repeats: int, autocast: bool) -> float:
    import torch

    from robopref.plan_memory import made_up
    from robopref.train import fit

    chunks = made_up(policy, 4 * ROWS)

    def step(generator: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        return policy.loss(chunks, policy.draw(chunks, generator)).mean(), {}

    logs = fit(policy, step, steps=repeats + 3, lr=1e-4, generator=torch.Generator().manual_seed(0), autocast=autocast)
    for _ in range(3):
        next(logs)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in logs:
        pass
    torch.cuda.synchronize()
    return repeats / (time.perf_counter() - begin)
