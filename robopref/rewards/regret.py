"""Preferences by regret (Knox et al. 2022): a segment is better the less it deviates from optimal decisions.

| paper | here |
|---|---|
| regret of a segment | V(s_0) - [ sum_t r_t + V(s_T) ] = - sum_t A_t for deterministic transitions |
| A_t | r_t + V(s_{t+1}) - V(s_t), the last step of a segment without the V terms (its successor was not stored) |
| P(first) | sigmoid( regret(second) - regret(first) ) |
| V* | fitted inside the data to the upper expectile of r_t + gamma V(s_{t+1}) (Kostrikov et al. 2022), so that A_t <= 0 for most steps |

`output` says what `score` gives: `advantage` A_t (act greedily on it, or weigh cloning by it) or `reward` r_t (for learners that plan).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared, both, reduce_steps, step_networks
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, PreferenceBatch, Segments


class Regret(Compared):
    """K pairs of networks: step reward r(s, a) in [-1, 1] and value V(s)."""

    centre: Tensor

    def __init__(
        self,
        dims: Dims,
        members: int = 4,
        width: int = 64,
        reduce: Literal["sum", "mean"] = "mean",
        temperature: float = 0.1,
        output: Literal["advantage", "reward"] = "advantage",
        gamma: float = 0.8,
        expectile: float = 0.9,
        value_weight: float = 1.0,
    ) -> None:
        """gamma: per step of a segment (every 4th of a long episode). value_weight: how much the fit of V counts beside the preferences.

        A short horizon keeps V small beside r: the ends of a segment, two noisy states, weigh V(s_T) - V(s_0) with its slope.
        """
        super().__init__()
        if reduce not in ("sum", "mean") or temperature <= 0 or members < 1:
            raise InputError(
                f"Regret: got reduce={reduce!r}, temperature={temperature}, members={members}, "
                "wanted reduce sum or mean, temperature > 0, members >= 1."
            )
        if output not in ("advantage", "reward") or not 0 < gamma <= 1 or not 0 < expectile < 1:
            raise InputError(
                f"Regret: got output={output!r}, gamma={gamma}, expectile={expectile}, wanted output advantage or "
                "reward, gamma in (0, 1], expectile in (0, 1)."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "reduce": reduce, "temperature": temperature,
            "output": output, "gamma": gamma, "expectile": expectile, "value_weight": value_weight,
        }  # fmt: skip
        self.reduce, self.temperature, self.output = reduce, temperature, output
        self.gamma, self.expectile, self.value_weight = gamma, expectile, value_weight
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration()
        self.register_buffer("centre", torch.zeros(()))
        rewards = step_networks(dims.observation + dims.action, width, members)
        values = step_networks(dims.observation, width, members)
        self.nets = nn.ModuleList(
            nn.ModuleDict({"reward": r, "value": v}) for r, v in zip(rewards, values, strict=True)
        )

    def parts(self, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
        """Reward, value and advantage of every step and member, each (K, B, T); padding is 0."""
        state = self.normalizer.state(segments.observation)
        pair = torch.cat([state, self.normalizer.action(segments.action)], dim=-1)
        reward = torch.stack([net["reward"](pair).squeeze(-1).tanh() for net in self.nets])  # type: ignore[index]
        value = torch.stack([net["value"](state).squeeze(-1) for net in self.nets])  # type: ignore[index]
        followed = _shifted(segments.mask)  # (B, T), 1 where the next step is real
        # V follows from r; were it free to fit the preferences, two end states would explain every segment.
        gain = ((_shifted(value) - value) * followed).detach()
        return reward * segments.mask, value * segments.mask, (reward + gain) * segments.mask

    def members(self, segments: Segments) -> Tensor:
        """What `score` averages, for every member: advantage or reward, (K, B, T)."""
        reward, _, advantage = self.parts(segments)
        return advantage if self.output == "advantage" else reward

    def score(self, segments: Segments) -> Tensor:
        """Mean advantage or reward of the ensemble, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' scores, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Minus the regret of segments for every member, (K, B), in units of the temperature."""
        return reduce_steps(self.parts(segments)[2], segments.mask, self.reduce) / self.temperature

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of the preferences plus the expectile fit of V, and what to log (`reward/loss` without the latter)."""
        joined = both(batch.first, batch.second)
        reward, value, advantage = self.parts(joined)
        one, other = (reduce_steps(advantage, joined.mask, self.reduce) / self.temperature).chunk(2, dim=1)
        loss, logs = preference_loss(one - other, batch, share)
        followed = _shifted(joined.mask)
        # The target does not follow the gradient: V chases what the reward says, not the other way round.
        error = (reward + self.gamma * _shifted(value)).detach() - value  # (K, 2B, T)
        slope = torch.where(error > 0, self.expectile, 1 - self.expectile)
        fit = (slope * error.square() * followed).sum() / (followed.sum() * len(self.nets)).clamp(min=1)
        return loss + self.value_weight * fit, {**logs, "reward/value_loss": float(fit.detach())}


def _shifted(values: Tensor) -> Tensor:
    """Each step's successor along the last axis, 0 after the last."""
    return nn.functional.pad(values[..., 1:], (0, 1))
