"""How often Meta-World's scripted experts succeed, and how soon: writes the table in docs/tasks.md.

Run: python -m robopref.benchmarks.experts --out docs/tasks.md
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

HORIZON = 500
SHORT = 200
"""The default horizon of `MetaWorld`."""


def measure(task: str, seeds: int = 20) -> list[int | None]:
    """First successful step of each seed's episode, None without success within 500 steps."""
    from robopref.envs.metaworld import MetaWorld

    env = MetaWorld(task, horizon=HORIZON, terminate_on_success=True)
    first: list[int | None] = []
    for seed in range(seeds):
        observation, _ = env.reset(seed=seed)
        reached = None
        for step in range(1, HORIZON + 1):
            observation, _, success, _, _ = env.step(env.expert(observation))
            if success:
                reached = step
                break
        first.append(reached)
    return first


def line(task: str, first: list[int | None]) -> str:
    """One row of the table."""
    done = [step for step in first if step is not None]
    by_short = sum(step <= SHORT for step in done)
    slow = f"{np.percentile(done, 90):.0f}" if done else "-"
    rates = f"{len(done) / len(first):.2f} | {by_short / len(first):.2f}"
    return f"| {task.removesuffix('-v3')} | {rates} | {slow} |"


def main() -> None:
    """Measure all tasks and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/tasks.md"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()

    from robopref.envs.metaworld_tasks import TASKS

    with ProcessPoolExecutor(asked.workers) as pool:
        results = list(pool.map(measure, TASKS, [asked.seeds] * len(TASKS)))
    rows = [line(task, first) for task, first in zip(TASKS, results, strict=True)]
    head = [
        "# Meta-World's tasks and their scripted experts",
        "",
        f"Reset seeds 0 to {asked.seeds - 1} of each task, the expert without noise. Success means that any step reports it.",
        f"The last column is the 90th percentile of the first successful step among episodes that succeed in {HORIZON} steps.",
        "Made by `python -m robopref.benchmarks.experts --out docs/tasks.md`.",
        "",
        f"| task | success in {HORIZON} steps | success in {SHORT} steps | steps to success (90 %) |",
        "|---|---|---|---|",
    ]
    asked.out.write_text("\n".join(head + rows) + "\n")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
