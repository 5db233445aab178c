"""The policy server with a real diffusion policy over loopback: inference, what the wire adds, and robots that share a batch.

Run: robopref bench serve [quick=true]; on a GPU machine it uses the GPU, with float32 and bf16.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

OVERHEAD_MS = 15.0
"""Largest p99 of what is not inference."""
DEADLINE_MS, LATE = 300.0, 0.01
"""The agent's deadline for a chunk, and the largest share of answers with candidates that may miss it."""
CANDIDATES = 8


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows per device and precision: `inference_ms`, `overhead_p99_ms`, `shared` (time for 4 robots over 4 times one), `best_of_N_late`.

    The last for 1, 4 and 16 robots that continue their chunks: the share of answers later than the agent's deadline, with how many candidates
    there was time for.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: dict[str, dict[str, Any]] = {}
    for precision in ("float32", "bf16") if device == "cuda" else ("float32",):
        rows |= asyncio.run(_measure(device, precision, 60 if quick else 600))
        rows |= asyncio.run(_best_of(device, precision, 60 if quick else 600))
    return rows


async def _measure(device: str, precision: Any, requests: int) -> dict[str, dict[str, Any]]:
    from robopref.hardware.inference import Inference
    from robopref.hardware.policy_server import PolicyServer

    policy = _policy(0)
    async with PolicyServer(Inference(policy, "bench", device, precision)) as server:
        while not server.ready:
            await asyncio.sleep(0.05)
        alone, inference, overhead = await _robot(server.url, requests)
        begin = time.perf_counter()
        await asyncio.gather(*(_robot(server.url, requests // 4) for _ in range(4)))
        shared = (time.perf_counter() - begin) / (requests // 4)
    name, p99 = f"{device}_{precision}", float(np.percentile(overhead, 99))
    return {
        f"{name}_inference_ms": {"measured": round(float(np.median(inference)), 2), "target": None, "ok": True},
        f"{name}_overhead_p99_ms": {"measured": round(p99, 2), "target": OVERHEAD_MS, "ok": p99 <= OVERHEAD_MS},
        f"{name}_shared": {
            "measured": round(shared / (4 * alone), 3), "target": 1.0, "ok": shared <= 4 * alone,
            "ours": round(1000 * shared, 2), "peer": round(4000 * alone, 2),
        },
    }  # fmt: skip


def _policy(seed: int) -> Any:
    import torch

    from robopref.policies.diffusion import Diffusion
    from robopref.types import Dims

    torch.manual_seed(seed)
    policy = Diffusion(Dims(39, 7), horizon=16, execute=8)
    policy.normalizer.fit(torch.randn(64, 39), torch.rand(64, 7) * 2 - 1)
    return policy


async def _best_of(device: str, precision: Any, requests: int) -> dict[str, dict[str, Any]]:
    """Answers that are the best of as many candidates as there is time for, from one robot to more than there is time for."""
    from robopref.hardware.inference import Inference
    from robopref.hardware.pace import Pace
    from robopref.hardware.policy_server import PolicyServer

    from robopref.policies.best_of import ImplicitReward

    policy, reference = _policy(0), _policy(1)
    reference.normalizer.load_state_dict(policy.normalizer.state_dict())
    inference = Inference(
        policy, "bench", device, precision, judge=ImplicitReward(policy, reference), pace=Pace(CANDIDATES)
    )
    rows: dict[str, dict[str, Any]] = {}
    async with PolicyServer(inference) as server:
        while not server.ready:
            await asyncio.sleep(0.05)
        for robots in (1, 4, 16):
            drawn: list[int] = []
            made = await asyncio.gather(*(_robot(server.url, requests // robots, drawn) for _ in range(robots)))
            latency = np.concatenate([np.add(inferring, overhead) for _, inferring, overhead in made])
            late = float((latency > DEADLINE_MS).mean())
            rows[f"{device}_{precision}_best_of_{robots}_late"] = {
                "measured": round(late, 4), "target": LATE, "ok": late <= LATE, "candidates": round(float(np.mean(drawn)), 2),
                "p99_ms": round(float(np.percentile(latency, 99)), 1), "answers": len(latency),
            }  # fmt: skip
    return rows


async def _robot(url: str, requests: int, drawn: list[int] | None = None) -> tuple[float, list[float], list[float]]:
    """One robot that continues its chunks: (seconds per request, inference in ms, everything else in ms).

    drawn: gets of how many candidates each answer was the best, and the requests carry the agent's deadline.
    """
    from robopref.hardware.packing import pack, unpack
    from websockets.asyncio.client import connect

    inference, overhead, begin = [], [], time.perf_counter()
    rest = np.zeros((8, 7), np.float32)
    async with connect(url, compression=None) as socket:
        await socket.recv()
        for number in range(requests):
            sent = time.perf_counter()
            state = np.full(39, 0.01 * number, np.float32)
            more = {} if drawn is None else {"robopref/deadline_ms": DEADLINE_MS}
            await socket.send(pack({"state": state, "robopref/previous": rest, "robopref/delay": 2, **more}))
            try:
                reply = unpack(await asyncio.wait_for(socket.recv(), 10.0))
            except TimeoutError:  # its deadline passed before it was begun: nobody answers
                overhead.append(10_000.0)
                inference.append(0.0)
                continue
            if drawn is not None:
                drawn.append(reply["robopref/candidates"])
            inference.append(float(reply["server_timing"]["infer_ms"]))
            overhead.append(1000 * (time.perf_counter() - sent) - inference[-1])
            rest = np.array(reply["actions"][8:])
    return (time.perf_counter() - begin) / requests, inference, overhead
