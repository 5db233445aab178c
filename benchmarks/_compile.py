"""What `torch.compile` gives on this machine: seconds to compile, milliseconds before and after, and how far the numbers move.

Run: python -m robopref.benchmarks._compile [NAME ...], of `CASES`; one JSON line each, one core. Needs a C++ compiler where there is no GPU.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

CASES = {
    "clone vla_small": ("vla_small", 64, True, True), "clone vla_flow": ("vla_flow", 64, True, True),
    "clone diffusion": ("diffusion", 64, True, False), "act vla_small, 32 rows": ("vla_small", 32, False, False),
    "act vla_flow, 1 row": ("vla_flow", 1, False, False), "act diffusion, 32 rows": ("diffusion", 32, False, False),
    "act diffusion, 1 row": ("diffusion", 1, False, False),
}  # fmt: skip
"""Name -> preset of a policy, rows, whether a training step is taken (else a chunk is sampled), whether in bfloat16."""
_STATE, _ACTION, _REPEATS = 39, 4, 15


def run(name: str) -> dict[str, Any]:
    """One case: `eager_ms`, `compiled_ms` (median processor time), `first_s` (two first calls together), `apart` (largest relative change)."""
    import torch
    from hydra.utils import instantiate

    from robopref.plan_memory import made_up
    from robopref.run import compose
    from robopref.types import Dims

    torch.set_num_threads(1)
    preset, rows, training, autocast = CASES[name]
    torch.manual_seed(0)
    policy = instantiate(compose([f"policy={preset}"])["policy"], _partial_=True)(dims=Dims(_STATE, _ACTION))
    policy.train(training)
    chunks, other = made_up(policy, rows), copy.deepcopy(policy)
    compiled(other)
    work = (_step if training else _act)(policy, chunks, autocast)
    faster = (_step if training else _act)(other, chunks, autocast)
    begin = time.perf_counter()
    apart = _apart(faster(), work())
    faster()
    first = time.perf_counter() - begin
    return {
        "case": name, "eager_ms": _median(work), "compiled_ms": _median(faster), "first_s": round(first, 1), "apart": apart,
    }  # fmt: skip


def compiled(policy: Any) -> None:
    """Compile what a head computes with, in place: its network and its eyes; what it does around them stays Python."""
    import torch

    from robopref.networks.cnn import SmallCNN
    from robopref.networks.guidance import network_name

    name = network_name(policy)
    assert name is not None  # every policy of `CASES` has one
    network = getattr(policy, name)
    for part in (network, *(m for m in policy.modules() if isinstance(m, SmallCNN))):
        part.forward = torch.compile(part.forward)
    if hasattr(network, "read"):
        network.read = torch.compile(network.read)


def _step(policy: Any, chunks: Any, autocast: bool) -> Callable[[], Any]:
    """A training step but for the optimiser's; returns the loss."""
    import torch

    def step() -> Any:
        generator = torch.Generator().manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = policy.loss(chunks, policy.draw(chunks, generator)).mean()
        policy.zero_grad()
        loss.backward()
        return loss.detach()

    return step


def _act(policy: Any, chunks: Any, autocast: bool) -> Callable[[], Any]:
    import torch

    rows = len(chunks.action)
    return lambda: policy.act(chunks.observation, [torch.Generator().manual_seed(i) for i in range(rows)])


def _apart(one: Any, two: Any) -> float:
    """Largest difference in units of the largest value."""
    return float(f"{float((one - two).abs().max() / two.abs().max()):.2g}")


def _median(work: Callable[[], Any]) -> float:
    took = []
    for _ in range(_REPEATS):
        begin = time.process_time()
        work()
        took.append(1000 * (time.process_time() - begin))
    return round(statistics.median(took), 2)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        print(json.dumps(run(wanted)), flush=True)
