"""Best of N at inference: draw N candidate chunks, run the one a judge likes best (DeformPAM's reward-guided action selection, Chen et al. 2024).

A tuned policy may forget how to act while its likelihood ratio still knows what is better: so the base acts and the ratio judges.
Wrappers offer `act` alone, which is all that `rollout` and `evaluate` ask for. Everything is computed in one batch of B x N chunks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.multi_objective import weighed
from robopref.networks.guidance import described
from robopref.networks.normalizer import check_shared
from robopref.protocols import Generators
from robopref.types import Chunks, Draws, Observation, PolicySpec, Segments


class ImplicitReward(nn.Module):
    """log pi(chunk) - log pi_reference(chunk) at draws that all candidates and observations share (Rafailov et al. 2023, eq. 5).

    probes: how many draws are averaged. lowest: share of the shortest noise times to keep; DeformPAM takes 0.1 with a policy that predicts
    the sample, with one that predicts the noise that was worse than all times. Exact heads ignore both.
    """

    def __init__(
        self, policy: nn.Module, reference: nn.Module, probes: int = 10, lowest: float = 1.0, seed: int = 0
    ) -> None:
        super().__init__()
        if probes < 1 or not 0 < lowest <= 1:
            raise InputError(
                f"ImplicitReward: got probes={probes}, lowest={lowest}, wanted probes >= 1, 0 < lowest <= 1."
            )
        check_shared("ImplicitReward", policy, reference)
        self.config: dict[str, Any] = {
            "policy": described(policy), "reference": described(reference), "probes": probes, "lowest": lowest, "seed": seed,
        }  # fmt: skip
        self.policy: Any = policy
        self.reference: Any = reference
        self.probes, self.lowest, self.seed = probes, lowest, seed

    @torch.no_grad()
    def forward(self, chunks: Chunks) -> Tensor:
        """Log-likelihood ratio of each chunk, (B,)."""
        one = self._draws(chunks[:1])  # (1, M): the same for every row, so that a row's judgement is its own
        rows = len(chunks)
        draws = Draws(one.time.expand(rows, -1), one.noise.expand(rows, -1, -1, -1))
        return self.policy.score(chunks, draws) - self.reference.score(chunks, draws)

    def _draws(self, chunk: Chunks) -> Draws:
        """`probes` draws of the `lowest` share of times, (1, probes)."""
        generator = torch.Generator().manual_seed(self.seed)
        wanted = int(self.probes / self.lowest) + 1
        found: list[Draws] = []
        while sum(d.time.shape[1] for d in found) < wanted:
            found.append(self.policy.draw(chunk, generator))
        time, noise = torch.cat([d.time for d in found], 1), torch.cat([d.noise for d in found], 1)
        count = max(self.probes, round(self.lowest * time.shape[1]))
        spread = torch.linspace(0, count - 1, self.probes).round().long()  # evenly over the kept times, both ends too
        kept = time[0].argsort()[spread]
        return Draws(time[:, kept], noise[:, kept])


class RewardJudge(nn.Module):
    """Summed reward of a chunk's actions at the observation where it starts, by any reward learner that looks at actions."""

    def __init__(self, reward: Any, execute: int) -> None:
        super().__init__()
        self.config: dict[str, Any] = {"reward": described(reward), "execute": execute}
        self.reward: Any = reward
        self.execute = execute
        spec = self.reward.config["dims"]
        state, action = torch.zeros(2, 1, spec["observation"]), torch.zeros(2, 1, spec["action"])
        action[1] = 0.5
        first, second = self.reward.score(Segments(state, action, torch.ones(2, 1)))[:, 0]
        if torch.isclose(first, second, rtol=0, atol=1e-6):
            raise InputError(
                "RewardJudge: got a reward model that does not look at actions, so all candidates are equal.\n"
                "Train one that does, for example reward.use_action=true."
            )

    @torch.no_grad()
    def forward(self, chunks: Chunks) -> Tensor:
        """Summed reward of the first E actions, (B,)."""
        action = chunks.action[:, : self.execute]
        state = chunks.observation.state[:, -1:].expand(-1, action.shape[1], -1)
        return self.reward.score(Segments(state, action, torch.ones_like(action[..., 0]))).sum(dim=1)


class Weighed(nn.Module):
    """Several judges under weights that are chosen when the policy runs: a dial between task, safety and speed."""

    def __init__(self, judges: Sequence[nn.Module], weights: Sequence[float], candidates: int) -> None:
        super().__init__()
        self.judges, self.candidates = nn.ModuleList(judges), candidates
        self.set_weights(weights)

    def set_weights(self, weights: Sequence[float]) -> None:
        """Turn the dial. Raises `InputError` unless there is one weight >= 0 per judge and they sum to one."""
        weighed(torch.zeros(len(self.judges), 2), weights)
        self.weights = [float(w) for w in weights]

    @property
    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON."""
        judges = [described(judge) for judge in self.judges]
        return {"judges": judges, "weights": self.weights, "candidates": self.candidates}

    def forward(self, chunks: Chunks) -> Tensor:
        """Weighed judgement of each chunk (B N,): every judge is scaled to unit deviation among the N candidates of an observation."""
        each = torch.stack([judge(chunks) for judge in self.judges])  # (J, B N)
        return weighed(each.unflatten(1, (-1, self.candidates)), self.weights).flatten()


@torch.no_grad()
def best_rows(judge: nn.Module, chunks: Chunks, candidates: int) -> Tensor:
    """Row (B,) of the chunk that a judge scores highest among each `candidates` neighbours of chunks (B N,), and the first of equals."""
    if isinstance(judge, Weighed):
        judge.candidates = candidates  # it scales its judges among as many
    value = judge(chunks).view(-1, candidates)
    first = torch.arange(len(value), device=value.device) * candidates
    return first + value.argmax(dim=1)


class BestOf(nn.Module):
    """A policy that draws `candidates` chunks and runs the one its judge scores highest; with one candidate it is the policy itself."""

    def __init__(self, policy: nn.Module, judge: nn.Module, candidates: int = 8) -> None:
        super().__init__()
        if candidates < 1:
            raise InputError(f"BestOf.candidates: got {candidates}, wanted at least 1.")
        if isinstance(judge, Weighed) and judge.candidates != candidates:
            raise InputError(f"BestOf: got {candidates} candidates and a judge of {judge.candidates}, wanted as many.")
        self.config: dict[str, Any] = {
            "policy": described(policy), "judge": described(judge), "candidates": candidates,
        }  # fmt: skip
        self.policy: Any = policy
        self.judge, self.candidates = judge, candidates
        self.calls, self.seconds = 0, 0.0

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""
        return self.policy.spec

    @property
    def latency_ms(self) -> float:
        """Milliseconds per call of `act` so far (a call serves a whole batch); 0 before the first."""
        return 1000 * self.seconds / self.calls if self.calls else 0.0

    @torch.no_grad()
    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """The best of N sampled chunks for each row, (B, H, A) in environment units."""
        begin = time.perf_counter()
        rows = torch.arange(len(observation)).repeat_interleave(self.candidates)
        many = observation[rows]
        # A row's candidates come from its own generator, one after the other.
        given = generator if isinstance(generator, torch.Generator) else [generator[int(row)] for row in rows]
        action = self.policy.act(many, given)  # (B N, H, A)
        best = torch.arange(len(observation), device=action.device)
        if self.candidates > 1:
            mask = torch.zeros_like(action)
            mask[:, : self.spec.execute] = 1
            best = best_rows(self.judge, Chunks(many, action, mask), self.candidates)
        self.calls, self.seconds = self.calls + 1, self.seconds + time.perf_counter() - begin
        return action[best]
