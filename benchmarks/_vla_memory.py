"""Peak memory of two training steps of a mid-size random policy, in a process of its own: python -m robopref.benchmarks._vla_memory KIND [device].

Prints JSON: bytes above what the process held before the policy was made, and what `plan_memory` says of the same policy and batch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

KINDS = ("clone_all", "align_copy", "align_recomputed", "clone_lora", "align_lora")
ROWS = 16
"""Chunks scored in one step, whatever the kind."""


def measured(kind: str, device: str = "cpu") -> dict[str, float]:
    """{"peak", "planned"} of a kind in bytes, from a child process whose allocator gives memory back at once."""
    threads = {} if device != "cpu" else {"OMP_NUM_THREADS": "1"}
    settings = os.environ | threads | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, "-m", "robopref.benchmarks._vla_memory", kind, device]
    child = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if child.returncode:
        raise RuntimeError(f"{kind}: {child.stderr.strip()[-800:]}")
    found: dict[str, float] = json.loads(child.stdout.strip().splitlines()[-1])
    return found


def build() -> Any:
    """About 50 million weights that look and read."""
    from robopref.policies.vla import FlowVLA
    from robopref.types import Dims

    eyes = {"cameras": ["top"], "size": 32, "encoder": "small", "width": 64}
    return FlowVLA(Dims(8, 4), eyes, horizon=8, execute=8, words=8, width=1024, depth=4, heads=8, probes=2)


def _child(kind: str, device: str) -> dict[str, float]:
    """Two steps in this process."""
    import torch

    from robopref.data.windows import ChunkTable
    from robopref.learners.align import AlignSettings, PairTable, align
    from robopref.learners.clone import clone
    from robopref.losses.pairwise import sigmoid
    from robopref.networks.recompute import recompute
    from robopref.plan_memory import Choice, made_up, measure, need
    from robopref.policies.lora import LoRA

    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    choice = Choice(
        kind, kind.endswith("lora"), kind in ("align_copy", "align_recomputed"), recompute=kind == "align_recomputed"
    )
    planned = need(choice, measure(build, ROWS, 32 if choice.adapters else 0))
    warm = build()  # what libraries allocate once is no part of the policy
    warm.loss(rows := made_up(warm, 1), warm.draw(rows, torch.Generator())).sum().backward()
    del warm
    before = _start(device)
    policy = build().to(device)
    if choice.adapters:
        policy = LoRA(policy)
    if choice.recompute:
        recompute(policy)
    table = ChunkTable(made_up(policy, ROWS), torch.arange(ROWS + 1))
    generator = torch.Generator().manual_seed(0)
    if kind.startswith("clone"):
        logs = clone(policy, table, steps=2, lr=1e-4, batch=ROWS, generator=generator)
    else:
        half, quarter = ROWS // 2, ROWS // 4
        pairs = PairTable(torch.arange(half), torch.arange(half, ROWS), torch.ones(half), torch.ones(half))
        settings = AlignSettings(steps=2, lr=1e-4, pairs_per_step=quarter, chunks_per_trajectory=1, anchor_chunks=half)
        logs = align(policy, policy.reference(), table, pairs, pairs.first, sigmoid, settings, generator)
    for _ in logs:
        pass
    assert planned is not None
    return {"peak": _peak(device) - before, "planned": planned["total"]}


def _start(device: str) -> float:
    """Bytes held now; the peak counts from here."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _peak(device: str) -> float:
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(name: str) -> float:
    (line,) = [
        one for one in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if one.startswith(name)
    ]
    return 1024.0 * int(line.split()[1])


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "cpu")))
