"""Best of 8 in one batch against the usual way, one candidate after the other, and its latency beside the plain policy's.

Run: robopref bench best_of
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

CANDIDATES = 8
SPEEDUP = 2.0
"""Times one candidate at a time."""
BUDGET_MS = 50.0
"""A chunk of 8 steps at 20 Hz lasts 400 ms; choosing it should take an eighth of that at most."""


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `batched`: speed of one observation's choice; `latency`: processor milliseconds of a choice (ours) and of the plain policy (peer)."""
    import torch

    from robopref.policies.best_of import BestOf, ImplicitReward
    from robopref.policies.flow import Flow
    from robopref.types import Chunks, Dims, Observation

    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Flow(Dims(39, 4)).eval()
    judge = ImplicitReward(policy.reference(), policy)
    best = BestOf(policy, judge, CANDIDATES)
    seen = Observation(torch.randn(1, 1, 39))
    mask = torch.ones(1, 8, 4)

    def together() -> None:
        best.act(seen, [torch.Generator().manual_seed(0)])

    def one_by_one() -> None:
        generator = torch.Generator().manual_seed(0)
        made = [policy.act(seen, generator) for _ in range(CANDIDATES)]
        max(float(judge(Chunks(seen, chunk, mask))) for chunk in made)

    def plain() -> None:
        policy.act(seen, torch.Generator().manual_seed(0))

    repeats = 10 if quick else 50
    ours, peer, single = (_milliseconds(call, repeats) for call in (together, one_by_one, plain))
    ratio = peer / ours
    return {
        "batched": {"measured": round(ratio, 2), "target": SPEEDUP, "ok": ratio >= SPEEDUP, "ours": round(ours, 2), "peer": round(peer, 2)},
        "latency": {"measured": round(ours, 2), "target": BUDGET_MS, "ok": ours <= BUDGET_MS, "ours": round(ours, 2), "peer": round(single, 2)},
    }  # fmt: skip


def _milliseconds(call: Callable[[], None], repeats: int) -> float:
    """Median processor time of a call; other programs on the machine do not count."""
    call()
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        taken.append(1000 * (time.process_time() - begin))
    return sorted(taken)[repeats // 2]
