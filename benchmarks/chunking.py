"""Chunks that arrive late, on Meta-World: success, idle periods and seams at delays of 0 to 6 of 16 steps, real-time chunking beside others.

A small policy is cloned from scripted demonstrations (some with a misjudged goal, so that it is not of one mind), and played on the same
resets with every chunk some control periods late. `real_time` continues the running chunk, `asynchronous` switches when a chunk comes, `ensemble`
averages, `synchronous` stands still until it comes. A delay of d means that the world went on for d periods while the chunk was computed.

Drawer-open forgives nearly everything; door-open punishes a policy that hardly looks; on button-press-topdown nothing was ever chosen.
Settings of the guidance were chosen on resets from `TRIAL` on; the rows are of resets from `RESET` on.

Run: robopref bench chunking [quick=true] [out=DIR resume=true]; one task, cell by cell, each kept when it is done, also the policy:
python -m robopref.benchmarks.chunking TASK HEAD RESETS OUT [MODE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

TASK, HORIZON = "drawer-open", 200
TASKS = (TASK, "door-open", "button-press-topdown")
H, EXECUTE = 16, 8
MODES = ("real_time", "asynchronous", "ensemble", "synchronous")
DROP, SEAM = 5.0, 1.2
"""Most percentage points that a delay of 4 may cost; most times that a seam may exceed steps inside chunks."""
TRIAL, RESET = 8_100_000, 8_200_000
"""First seeds of the resets to choose settings on, and of those to report; no run of an experiment uses them."""
_DEMONSTRATION, _SIDE_BY_SIDE = 8_000_000, 25
Head = Literal["diffusion", "flow"]
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


@lru_cache(maxsize=6)
def policy(head: Head = "diffusion", task: str = TASK, steps: int = 1500, faulty: int = 12) -> Any:
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


@lru_cache(maxsize=2)
def _environments(task: str) -> tuple[Any, ...]:
    """As many as play side by side; building them takes longer than some episodes."""
    from robopref.envs.metaworld import MetaWorld

    return tuple(MetaWorld(task, horizon=HORIZON) for _ in range(_SIDE_BY_SIDE))


def outcomes(
    cloned: Any, mode: Any, delay: int, resets: int, task: str = TASK, first: int = RESET, /, **chunking: Any
) -> tuple[np.ndarray, Any]:
    """(success of each reset (resets,) bool, what `play` found); `chunking`: other settings of `RealTimeChunking`."""
    import dataclasses

    from robopref.hardware.inference import Inference

    from ._delayed import Played, play

    inference, found, success = Inference(cloned, seed=0), Played(), list[bool]()
    if chunking and inference.chunking is not None:
        inference.chunking = dataclasses.replace(inference.chunking, **chunking)
    for begin in range(0, resets, _SIDE_BY_SIDE):
        seeds = range(first + begin, first + min(begin + _SIDE_BY_SIDE, resets))
        arms = [_Arm(env, seed) for env, seed in zip(_environments(task), seeds, strict=False)]
        one = play(inference, arms, mode, delay, HORIZON)
        found.idle += one.idle
        found.across += one.across
        found.within += one.within
        success += [arm.success for arm in arms]
    return np.array(success), found


def cell(task: str, head: Head, mode: str, delay: int, resets: int, kept: Path | None = None) -> dict[str, Any]:
    """One mode at one delay: successes of the resets, seam ratio, roughness, idle periods; read from `kept` if it was made before."""
    from robopref.checkpoint import load, save
    from robopref.data.files import read_json, write_json

    path = None if kept is None else kept / f"{mode}_{delay}.json"
    if path is not None and path.exists():
        return dict(read_json(path))
    if kept is None:
        cloned = policy(head, task)
    else:
        if not (kept / "policy").exists():
            save(policy(head, task), kept / "policy")
        cloned = load(kept / "policy")
    success, found = outcomes(cloned, mode, delay, resets, task)
    one = {
        "success": success.astype(int).tolist(), "seam_ratio": round(found.seam, 3), "roughness": round(found.roughness, 3),
        "idle": found.idle,
    }  # fmt: skip
    if path is not None:
        write_json(path, one)
    print(f"{task} {head} {mode} {delay}: {success.sum()} of {resets}", file=sys.stderr, flush=True)
    return one


def measure(
    task: str,
    head: Head,
    resets: int,
    delays: Sequence[int],
    modes: Sequence[str] = MODES,
    kept: Path | None = None,
) -> dict[str, Row]:
    """The rows of one head on one task; real-time chunking at all `delays`, 0 and 4 among them, the others at these two."""
    import torch

    torch.set_num_threads(1)
    made, name = {}, f"{task}_{head}"
    for mode in modes:
        for delay in delays if mode == "real_time" else (0, 4):
            made[mode, delay] = cell(task, head, mode, delay, resets, kept)
    rows = {f"{name}_{mode}_success_{delay}": _success(one) for (mode, delay), one in made.items()}
    for mode in modes:
        rows[f"{name}_{mode}_drop_points"] = _drop(made[mode, 0], made[mode, 4], judged=mode == "real_time")
    ours = {delay: one for (mode, delay), one in made.items() if mode == "real_time"}
    if ours:
        seams = {str(delay): one["seam_ratio"] for delay, one in ours.items()}
        worst, idle = max(seams.values()), sum(one["idle"] for one in ours.values())
        rows[f"{name}_seam_ratio"] = {"measured": worst, "target": SEAM, "ok": worst <= SEAM, "delays": seams}
        rows[f"{name}_idle"] = {"measured": idle, "target": 0, "ok": idle == 0}
    return rows


def _success(one: dict[str, Any]) -> Row:
    """Success in percent with its Wilson interval."""
    from robopref.statistics import wilson

    wins, resets = sum(one["success"]), len(one["success"])
    told = {name: one[name] for name in ("seam_ratio", "roughness", "idle")}
    ci95 = [round(100 * bound, 1) for bound in wilson(wins, resets)]
    return {"measured": round(100 * wins / resets, 1), "target": None, "ok": True, "ci95": ci95, "resets": resets, **told}  # fmt: skip


def _drop(prompt: dict[str, Any], late: dict[str, Any], judged: bool) -> Row:
    """Points that a delay costs, on the same resets; only real-time chunking is `judged`."""
    from robopref.statistics import paired_bootstrap

    before, after = (np.array(one["success"], dtype=float) for one in (prompt, late))
    drop, low, high = (round(100 * float(number), 2) for number in paired_bootstrap(before, after))
    target = DROP if judged else None
    return {"measured": drop, "target": target, "ok": target is None or drop <= target, "ci95": [low, high], "resets": len(before)}  # fmt: skip


def _part(task: str, head: Head, quick: bool) -> dict[str, Row]:
    return measure(task, head, 50 if quick else 400, (0, 4) if quick else tuple(range(7)))


PARTS = {f"{task}_{head}": partial(_part, task, head) for task in TASKS for head in ("diffusion", "flow")}
"""Name -> what measures its rows; `robopref bench` keeps each when it is done."""


def run(quick: bool = False) -> dict[str, Row]:
    """Rows `TASK_HEAD_real_time_drop_points`, `..._seam_ratio` and `..._idle`, and what the others give."""
    from robopref.bench import in_parts

    return in_parts(PARTS, quick)


if __name__ == "__main__":
    from robopref.data.files import write_json

    words = sys.argv[1:]
    kind: Head = "flow" if words[1] == "flow" else "diffusion"
    folder = Path(words[3])
    found = measure(words[0], kind, int(words[2]), (0, 2, 4, 6), words[4:] or MODES, folder)
    write_json(folder / "summary.json", found)
