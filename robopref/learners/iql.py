"""Implicit Q-learning on relabelled data (Kostrikov et al. 2022): values inside the data, a policy by weighted cloning.

V follows the upper expectile of Q, Q follows r + gamma V', the policy clones chunks with weight min(exp(inv_temperature A / s), 100), A = Q - V
and s its standard deviation in the batch, so that rewards of any scale and shape are followed alike (the paper has s = 1). `inv_temperature`
multiplies the advantage: larger is greedier, 0 is cloning. (Other code divides by a temperature: theirs = 1 / ours.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from robopref.arrays import InputError, Trajectory
from robopref.data.windows import ChunkTable, chunk_table
from robopref.networks.mlp import mlp
from robopref.protocols import Policy
from robopref.train import fit

LEAST = 0.05
"""Advantages that spread by less than this share of the range of the rewards are errors of the critics, and stay as small as they are."""


@dataclass(frozen=True)
class IQLSettings:
    """How values and policy are learned."""

    steps: int = 10_000
    lr: float = 3e-4
    batch: int = 256
    gamma: float = 0.99
    expectile: float = 0.7
    inv_temperature: float = 2.0
    tau: float = 0.005
    """Share of the new critic in its target per step."""
    width: int = 256
    depth: int = 2

    def __post_init__(self) -> None:
        if not (0 < self.expectile < 1 and 0 <= self.gamma < 1 and self.inv_temperature >= 0 and 0 < self.tau <= 1):
            raise InputError(
                f"iql: got expectile={self.expectile}, gamma={self.gamma}, inv_temperature={self.inv_temperature}, "
                f"tau={self.tau}, wanted expectile in (0, 1), gamma in [0, 1), inv_temperature >= 0, tau in (0, 1]."
            )


class Values(nn.Module):
    """Two critics Q(s, a) and a value V(s), on standardised states and actions in [-1, 1]."""

    def __init__(self, state: int, action: int, width: int, depth: int) -> None:
        super().__init__()
        self.critics = nn.ModuleList(mlp((state + action, *[width] * depth, 1), nn.ReLU) for _ in range(2))
        self.value = mlp((state, *[width] * depth, 1), nn.ReLU)

    def q(self, state: Tensor, action: Tensor) -> Tensor:
        """Both critics: (B, D), (B, A) -> (2, B)."""
        pair = torch.cat([state, action], dim=-1)
        return torch.stack([critic(pair).squeeze(-1) for critic in self.critics])

    def v(self, state: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        return self.value(state).squeeze(-1)


@dataclass(frozen=True)
class Transitions:
    """All steps of several trajectories, one after the other: what a step saw, did, got, and whether it has a successor."""

    state: Tensor
    """(M, D), standardised."""
    action: Tensor
    """(M, A) in [-1, 1]."""
    reward: Tensor
    """(M,)."""
    usable: Tensor
    """(m,) int64: steps whose successor was stored. An episode's last step ended by a time limit, not by the task."""
    left: Tensor
    """(M,) int64: steps of the episode from this one on."""
    span: float
    """Largest minus least reward."""


def transitions(policy: nn.Module, trajectories: Sequence[Trajectory], rewards: Sequence[np.ndarray]) -> Transitions:
    """Steps as tensors. Raises `InputError` for NaN rewards, unequal counts, or episodes of one step only."""
    if len(trajectories) != len(rewards) or any(len(t) != len(r) for t, r in zip(trajectories, rewards, strict=True)):
        raise InputError("iql: got rewards that do not match the trajectories, wanted one reward per step.")
    reward = np.concatenate([np.asarray(r, dtype=np.float32) for r in rewards])
    if not np.isfinite(reward).all():
        raise InputError("iql: got a reward of NaN or infinity, wanted numbers. Check the reward model.")
    normalizer = policy.normalizer
    state = normalizer.state(torch.from_numpy(np.concatenate([t.observation for t in trajectories])))  # type: ignore[operator, union-attr]
    action = normalizer.action(torch.from_numpy(np.concatenate([t.action for t in trajectories])))  # type: ignore[operator, union-attr]
    left = torch.from_numpy(np.concatenate([np.arange(len(t), 0, -1) for t in trajectories]))
    usable = torch.nonzero(left > 1).squeeze(-1)
    if len(usable) == 0:
        raise InputError("iql: got only episodes of one step, wanted some with at least two.")
    return Transitions(state, action.clamp(-1, 1), torch.from_numpy(reward), usable, left, float(np.ptp(reward)))


def iql(
    policy: Policy, trajectories: Sequence[Trajectory], rewards: Sequence[np.ndarray], settings: IQLSettings,
    generator: torch.Generator,
) -> Iterator[dict[str, float]]:  # fmt: skip
    """Train `policy` in place on trajectories with the given step rewards; yields logs. Its normaliser must be fitted.

    One optimiser step updates critics, value and policy from losses taken at the same weights; the target critic follows.
    """
    assert isinstance(policy, nn.Module)
    bare = [replace(t, chunk=None, executed=None) for t in trajectories]  # a chunk row for every step
    table, data = chunk_table(bare, policy.spec), transitions(policy, bare, rewards)
    values = Values(data.state.shape[1], data.action.shape[1], settings.width, settings.depth)
    target = copy.deepcopy(values.critics).requires_grad_(False)

    def step(gen: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rows = data.usable[torch.randint(len(data.usable), (settings.batch,), generator=gen)]
        follow(target, values.critics, settings.tau)
        critic, advantage = value_losses(values, target, data, rows, settings)
        actor = actor_loss(policy, values, target, data, table, rows, advantage, settings, gen)
        return critic + actor, {"iql/critic": float(critic.detach()), "iql/actor": float(actor.detach())}

    policy.train()
    yield from fit([policy, values], step, steps=settings.steps, lr=settings.lr, generator=generator, clip=100.0)
    policy.eval()


def value_losses(
    values: Values, target: nn.ModuleList, data: Transitions, rows: Tensor, settings: IQLSettings
) -> tuple[Tensor, Tensor]:
    """Loss of critics and value at some steps, and the advantage there (B,), without gradient."""
    state, action, reward = data.state[rows], data.action[rows], data.reward[rows]
    with torch.no_grad():
        pair = torch.cat([state, action], dim=-1)
        best = torch.minimum(*(critic(pair).squeeze(-1) for critic in target))
        goal = reward + settings.gamma * values.v(data.state[rows + 1])
    error = best - values.v(state)
    slope = torch.where(error > 0, settings.expectile, 1 - settings.expectile)
    q = values.q(state, action)
    return (slope * error.square()).mean() + (q - goal).square().mean(dim=1).sum(), error.detach()


def actor_loss(
    policy: Policy, values: Values, target: nn.ModuleList, data: Transitions, table: ChunkTable, rows: Tensor,
    advantage: Tensor, settings: IQLSettings, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Cloning of the chunks that begin at `rows`, weighted by the exponential of their advantage.

    A chunk's advantage is the sum of its steps' (a telescoping sum: what the chunk gains over acting as V expects).
    """
    horizon = policy.spec.execute
    if horizon > 1:
        with torch.no_grad():
            for ahead in range(1, horizon):
                inside = data.left[rows] > ahead
                at = torch.where(inside, rows + ahead, rows)
                pair = torch.cat([data.state[at], data.action[at]], dim=-1)
                best = torch.minimum(*(critic(pair).squeeze(-1) for critic in target))
                advantage = advantage + (best - values.v(data.state[at])) * inside * settings.gamma**ahead
    weight = weights(advantage, data.span, settings.inv_temperature)
    chunks = table.chunks[rows]
    return (weight * policy.loss(chunks, policy.draw(chunks, generator))).mean()


def weights(advantage: Tensor, span: float, inv_temperature: float) -> Tensor:
    """How much each chunk is cloned, (B,): all alike where every reward was the same (`span` 0)."""
    if span == 0 or len(advantage) < 2:
        return torch.ones_like(advantage)
    return (inv_temperature * advantage / advantage.std().clamp(min=LEAST * span)).exp().clamp(max=100.0)


@torch.no_grad()
def follow(target: nn.ModuleList, source: nn.ModuleList, tau: float) -> None:
    """Move the target's weights a share `tau` towards the source's."""
    ours: list[Tensor] = list(target.parameters())
    torch._foreach_lerp_(ours, list(source.parameters()), tau)
