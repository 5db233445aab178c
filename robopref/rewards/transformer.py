"""Preference Transformer (Kim et al. 2023): non-Markovian step rewards, and weights that say which steps decided.

P(first) = sigmoid( (sum_t w_t r_t)_first - (sum_t w_t r_t)_second ), in units of the temperature. The published commands leave the
attention off (`use_weighted_sum=False`), so that a segment's score is a plain mean; here it is on, and `attention=False` is theirs.
`score` gives r_t of the causal part, which knows nothing of later steps: that is what policies are trained on.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.losses.members import preference_loss
from robopref.networks.ensemble import Calibration, Compared
from robopref.networks.normalizer import Normalizer
from robopref.networks.preference_transformer import PreferenceTransformer
from robopref.types import Dims, PreferenceBatch, Segments


class Transformer(Compared):
    """K small transformers. Published size: width 256, 1 layer, 4 heads, for thousands of answers; with dozens, 32 ranks better."""

    centre: Tensor

    def __init__(
        self,
        dims: Dims,
        members: int = 2,
        width: int = 32,
        heads: int = 4,
        layers: int = 1,
        longest: int = 200,
        temperature: float = 0.1,
        attention: bool = True,
    ) -> None:
        """longest: most steps of a segment."""
        super().__init__()
        if members < 1 or layers < 1 or width % heads or temperature <= 0:
            raise InputError(
                f"Transformer: got members={members}, layers={layers}, width={width}, heads={heads}, "
                f"temperature={temperature}, wanted a width that heads divide, the others > 0."
            )
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "members": members, "width": width, "heads": heads, "layers": layers,
            "longest": longest, "temperature": temperature, "attention": attention,
        }  # fmt: skip
        self.temperature, self.attention, self.longest = temperature, attention, longest
        self.normalizer = Normalizer(dims.observation, dims.action)
        self.calibration = Calibration()
        self.register_buffer("centre", torch.zeros(()))
        self.nets = nn.ModuleList(
            PreferenceTransformer(dims.observation, dims.action, width, heads, layers, longest) for _ in range(members)
        )

    def parts(self, segments: Segments) -> tuple[Tensor, Tensor]:
        """Step rewards and step weights of every member, both (K, B, T); padding is 0."""
        if segments.mask.shape[1] > self.longest:
            raise InputError(
                f"Transformer: got segments of {segments.mask.shape[1]} steps, wanted at most {self.longest}. "
                "Set reward.longest or use shorter segments."
            )
        state, action = self.normalizer.state(segments.observation), self.normalizer.action(segments.action)
        made = [net(state, action, segments.mask) for net in self.nets]
        return torch.stack([r for r, _ in made]), torch.stack([w for _, w in made])

    def members(self, segments: Segments) -> Tensor:
        """Step rewards of every member, (K, B, T); padding scores 0."""
        return self.parts(segments)[0]

    def score(self, segments: Segments) -> Tensor:
        """Mean step reward of the ensemble, centred, (B, T); padding scores 0."""
        return (self.members(segments).mean(dim=0) - self.centre) * segments.mask

    def uncertainty(self, segments: Segments) -> Tensor:
        """Standard deviation of the members' step rewards, (B, T)."""
        return self.members(segments).std(dim=0, correction=0)

    def returns(self, segments: Segments) -> Tensor:
        """Attention-weighted (or plain) mean reward of segments for every member, (K, B), in units of the temperature."""
        reward, weight = self.parts(segments)
        if not self.attention:
            weight = (segments.mask / segments.mask.sum(dim=1, keepdim=True).clamp(min=1)).expand_as(reward)
        return (weight * reward).sum(dim=-1) / self.temperature

    def loss(self, batch: PreferenceBatch, share: Tensor | None = None) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy, averaged over members, and what to log."""
        return preference_loss(self.logits(batch.first, batch.second), batch, share)
