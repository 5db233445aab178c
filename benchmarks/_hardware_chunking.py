"""Chunking with delays: a real diffusion policy on the reach task, in steps of the control loop, and the gradient of its guidance."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch

H, EXECUTE, SCALE = 16, 8, 0.05


def _expert(q: np.ndarray, goal: np.ndarray) -> np.ndarray:
    from robopref.hardware.kinematics import grasp_point, solve_twist

    way = goal - grasp_point(q)[:3, 3]
    step = way * min(1.0, 0.04 / (np.linalg.norm(way) + 1e-9))
    return np.clip(solve_twist(q, np.concatenate([step, np.zeros(3)]), damping=0.1) / SCALE, -1, 1)


@lru_cache(maxsize=1)
def policy() -> Any:
    """A small diffusion policy cloned from the reach task's expert, with noise in what it saw; the same on every call."""
    from robopref.hardware.arm_reach import HOME, goal_of, observe

    from robopref.arrays import Trajectory
    from robopref.data.windows import chunk_table
    from robopref.learners.clone import clone, fit_normalizer
    from robopref.policies.diffusion import Diffusion
    from robopref.types import Dims

    rng, made = np.random.default_rng(0), []
    for seed in range(60):
        q, goal, rows, actions = HOME + rng.uniform(-0.2, 0.2, 7), goal_of(seed), [], []
        for _ in range(50):
            rows.append(observe(q, goal))
            actions.append(_expert(q, goal))
            q = q + SCALE * np.clip(actions[-1] + rng.normal(0, 0.1, 7), -1, 1)
        observation = np.stack(rows)
        made.append(
            Trajectory(observation, np.stack(actions).astype(np.float32), np.zeros(50, np.float32), np.zeros(50, bool))
        )
    torch.manual_seed(0)
    made_policy = Diffusion(Dims(13, 7), horizon=H, execute=EXECUTE, width=128, depth=2)
    table = chunk_table(made, made_policy.spec, every=1)
    fit_normalizer(made_policy, table)
    for _ in clone(made_policy, table, steps=800, lr=1e-3, batch=128, generator=torch.Generator().manual_seed(0)):
        pass
    return made_policy.eval()


class _Reaching:
    """An episode of the reach task in which the joints go where they are told."""

    done = False

    def __init__(self, seed: int) -> None:
        from robopref.hardware.arm_reach import HOME, goal_of, observe

        self._observe, self._goal, self._q = observe, goal_of(seed), HOME.copy()
        self.observation = observe(self._q, self._goal)

    def step(self, action: np.ndarray | None) -> None:
        """One control period; without an action the arm stands still."""
        if action is not None:
            self._q = self._q + SCALE * action
        self.observation = self._observe(self._q, self._goal)


def seams(mode: Any, delay: int, episodes: int = 4, steps: int = 60, **chunking: Any) -> Any:
    """What `play` finds on the reach task at a constant delay; `chunking`: other settings of `RealTimeChunking`."""
    import dataclasses

    from robopref.hardware.inference import Inference

    from ._delayed import play

    inference = Inference(policy())
    if chunking and inference.chunking is not None:
        inference.chunking = dataclasses.replace(inference.chunking, **chunking)
    return play(inference, [_Reaching(seed) for seed in range(100, 100 + episodes)], mode, delay, steps)


def gradient_error() -> float:
    """Largest relative difference of the guidance's vector-Jacobian product from central differences, in float64."""
    import copy

    from robopref.hardware.arm_reach import HOME, goal_of, observe

    from robopref.policies.real_time_chunking import RealTimeChunking, prefix_weights, pulled
    from robopref.types import Observation

    exact = copy.deepcopy(policy()).double()
    condition = exact.encode(Observation(torch.from_numpy(observe(HOME, goal_of(5)))[None, None].double()))
    weights = prefix_weights(H, 4, 8)[:, None].double()
    generator = torch.Generator().manual_seed(0)
    x, wanted = torch.randn(2, 1, H, 7, generator=generator, dtype=torch.float64)
    chunking, worst = RealTimeChunking(exact), 0.0
    for when in (5, 20, 40):
        alpha = exact.scheduler.alphas_cumprod[when].double()

        def estimate(x: torch.Tensor, when: int = when, alpha: torch.Tensor = alpha) -> torch.Tensor:
            return chunking._estimate(x, torch.tensor(when), alpha, condition)

        x0, pull = pulled(estimate, x, wanted, weights)
        error = weights * (wanted - x0)
        with torch.no_grad():
            steps = 1e-5 * torch.eye(x.numel(), dtype=torch.float64).view(-1, H, 7)
            sides = [torch.cat([estimate(x + sign * one[None]) for one in steps]) for sign in (1, -1)]
        numeric = (error * (sides[0] - sides[1]) / 2e-5).sum((1, 2)).view_as(pull)
        worst = max(worst, float((pull - numeric).abs().max() / pull.abs().max().clamp(min=1.0)))
    return worst
