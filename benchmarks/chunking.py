"""Chunks that arrive late, on Meta-World: success, idle periods and seams at delays of 0 to 6 of 16 steps, real-time chunking beside others.

A small policy is cloned from scripted demonstrations (some with a misjudged goal, so that it is not of one mind), and played on the same
resets with every chunk some control periods late. `real_time` continues the running chunk, `asynchronous` switches when a chunk comes, `ensemble`
averages, `synchronous` stands still until it comes. A delay of d means that the world went on for d periods while the chunk was computed.

Run: robopref bench chunking [quick=true]; another task, cell by cell, each kept when it is done:
python -m robopref.benchmarks.chunking TASK HEAD RESETS OUT [MODE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

TASK, HORIZON = "drawer-open", 200
H, EXECUTE = 16, 8
MODES = ("real_time", "asynchronous", "ensemble", "synchronous")
DROP, SEAM = 5.0, 1.2
"""Most percentage points that a delay of 4 may cost; most times that a seam may exceed steps inside chunks."""
_DEMONSTRATION, _RESET = 8_000_000, 8_100_000
"""First reset seeds; no run of an experiment uses them."""
Row = dict[str, Any]


class _Arm:
    """A Meta-World episode; where no action is due the hand stays and the fingers keep their force."""

    def __init__(self, env: Any, seed: int) -> None:
        self._env, self.success, self.done = env, False, False
        self.observation, _ = env.reset(seed=seed)
        self._hold = np.zeros(4, dtype=np.float32)

    def step(self, action: np.ndarray | None) -> None:
        """One control period."""
        if action is not None:
            self._hold[3] = action[3]
        self.observation, _, over, truncated, info = self._env.step(self._hold if action is None else action)
        self.success |= bool(info["success"])
        self.done = self.success or over or truncated


def policy(
    head: Literal["diffusion", "flow"] = "diffusion", task: str = TASK, steps: int = 1500, faulty: int = 12
) -> Any:
    """A small policy cloned from 36 noisy demonstrations and `faulty` whose expert misjudged the goal; the same on every call."""
    import torch
    from robopref.envs.metaworld import MetaWorld

    from robopref.data.windows import chunk_table
    from robopref.episodes import Episode
    from robopref.learners.clone import clone, fit_normalizer
    from robopref.policies.diffusion import Diffusion
    from robopref.policies.flow import Flow
    from robopref.policies.scripted import Imperfection
    from robopref.stages.collect import scripted_episode
    from robopref.types import Dims

    env, made = MetaWorld(task, horizon=HORIZON), []
    for number in range(36 + faulty):
        how = Imperfection(action_noise=0.1, wrong_goal=0.1 if number >= 36 else 0.0)
        made.append(scripted_episode(env, Episode(_DEMONSTRATION + number), how, "", 0))
    torch.manual_seed(0)
    head_class = Diffusion if head == "diffusion" else Flow
    cloned = head_class(Dims(39, 4), horizon=H, execute=EXECUTE, width=256, depth=3)
    table = chunk_table(made, cloned.spec, every=1)
    fit_normalizer(cloned, table)
    generator = torch.Generator().manual_seed(0)
    for _ in clone(cloned, table, steps=steps, lr=1e-3, batch=128, generator=generator, ema=0.99):
        pass
    return cloned.eval()


def outcomes(
    cloned: Any, mode: Any, delay: int, resets: int, task: str = TASK, **chunking: Any
) -> tuple[np.ndarray, Any]:
    """(success of each reset (resets,) bool, what `play` found); `chunking`: other settings of `RealTimeChunking`."""
    import dataclasses

    from robopref.envs.metaworld import MetaWorld
    from robopref.hardware.inference import Inference

    from ._delayed import Played, play

    inference, found, success = Inference(cloned, seed=0), Played(), list[bool]()
    if chunking and inference.chunking is not None:
        inference.chunking = dataclasses.replace(inference.chunking, **chunking)
    side_by_side = min(resets, 25)
    environments = [MetaWorld(task, horizon=HORIZON) for _ in range(side_by_side)]
    for begin in range(0, resets, side_by_side):
        arms = [_Arm(env, _RESET + begin + row) for row, env in enumerate(environments)]
        one = play(inference, arms, mode, delay, HORIZON)
        found.idle += one.idle
        found.across += one.across
        found.within += one.within
        success += [arm.success for arm in arms]
    return np.array(success), found


def run(quick: bool = False) -> dict[str, Row]:
    """Rows `HEAD_success_drop_points`, `HEAD_seam_ratio` and `HEAD_idle` of real-time chunking, and what the others give."""
    rows: dict[str, Row] = {}
    for head in ("diffusion",) if quick else ("diffusion", "flow"):
        rows |= measure(head, 100 if quick else 400, (0, 4) if quick else tuple(range(7)))
    return rows


def measure(head: Any, resets: int, delays: tuple[int, ...]) -> dict[str, Row]:
    """The rows of one head."""
    import torch

    from robopref.statistics import paired_bootstrap

    torch.set_num_threads(1)
    cloned, rows = policy(head), dict[str, Row]()
    ours: dict[int, tuple[np.ndarray, Any]] = {}
    for mode in MODES:
        for delay in delays if mode == "real_time" else (0, 4):
            success, found = outcomes(cloned, mode, delay, resets)
            if mode == "real_time":
                ours[delay] = success, found
            told = {"seam_ratio": round(found.seam, 3), "roughness": round(found.roughness, 3), "idle": found.idle}
            rows[f"{head}_{mode}_success_{delay}"] = {
                "measured": round(100 * float(success.mean()), 1), "target": None, "ok": True, "resets": resets, **told,
            }  # fmt: skip
    drop, low, high = paired_bootstrap(ours[0][0].astype(float), ours[4][0].astype(float))
    worst = max(found.seam for _, found in ours.values())
    idle = sum(found.idle for _, found in ours.values())
    rows[f"{head}_success_drop_points"] = {
        "measured": round(100 * drop, 2), "target": DROP, "ok": 100 * drop <= DROP,
        "ci95": [round(100 * low, 2), round(100 * high, 2)], "resets": resets,
    }  # fmt: skip
    rows[f"{head}_seam_ratio"] = {
        "measured": round(worst, 3),
        "target": SEAM,
        "ok": worst <= SEAM,
        "delays": list(delays),
    }
    rows[f"{head}_idle"] = {"measured": idle, "target": 0, "ok": idle == 0}
    return rows


def cells(
    task: str, head: Any, resets: int, out: Path, modes: Sequence[str] = MODES, delays: Sequence[int] = (0, 4)
) -> dict[str, Any]:
    """Every mode at every delay on one task, each cell a file in `out` that is not made again; returns the summary it also writes there."""
    import torch

    from robopref.data.files import read_json, write_json
    from robopref.statistics import paired_bootstrap, wilson

    torch.set_num_threads(1)
    cloned, made = None, {}
    for mode in modes:
        for delay in delays:
            path = out / f"{mode}_{delay}.json"
            if not path.exists():
                cloned = cloned or policy(head, task)
                success, found = outcomes(cloned, mode, delay, resets, task)
                seam, idle = round(found.seam, 3), found.idle
                write_json(path, {"success": success.astype(int).tolist(), "seam_ratio": seam, "idle": idle})
            made[mode, delay] = read_json(path)
            print(mode, delay, sum(made[mode, delay]["success"]), "of", resets, flush=True)
    rows: dict[str, Any] = {"task": task, "head": head, "resets": resets}
    for (mode, delay), one in made.items():
        low, high = wilson(sum(one["success"]), resets)
        rows[f"{mode}_{delay}"] = {
            "success": sum(one["success"]) / resets, "ci95": [low, high], "seam_ratio": one["seam_ratio"], "idle": one["idle"],
        }  # fmt: skip
    for mode in modes:
        first, last = (np.array(made[mode, delay]["success"], dtype=float) for delay in (delays[0], delays[-1]))
        drop, low, high = paired_bootstrap(first, last)
        rows[f"{mode}_drop_points"] = {"measured": 100 * drop, "ci95": [100 * low, 100 * high]}
    write_json(out / "summary.json", rows)
    return rows


if __name__ == "__main__":
    words = sys.argv[1:]
    print(cells(words[0], words[1], int(words[2]), Path(words[3]), words[4:] or MODES))
