"""How bad a moment is, learned from marks on whole episodes: nobody says what is good, or when it went wrong (multiple-instance learning).

Small networks read how the named things stand to each other (differences and distances of every two), or the whole state where
nothing is named; an episode is as bad as its worst moments (`sharpness` > 0) or as its average (0). See `losses.marks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from robopref.arrays import InputError
from robopref.losses.marks import marked_loss, pooled
from robopref.networks.ensemble import step_networks
from robopref.networks.normalizer import Normalizer
from robopref.types import Dims, Segments

Place = Sequence[int] | Mapping[str, Sequence[float]]
"""Where a named thing is: [first column, past the last] of the state, or `{at: [x, y, ...]}` for what stands still."""


class Marked(torch.nn.Module):
    """K networks of danger per step; `score` is minus its mean. quantities: name -> `Place`.

    Raises `InputError` for columns outside the state, named things of unequal width, and a single one.
    """

    def __init__(
        self, dims: Dims, quantities: Mapping[str, Place] | None = None, sharpness: float = 1.0, members: int = 8, width: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        self.quantities = {name: _place(name, where, dims.observation) for name, where in (quantities or {}).items()}
        widths = {len(one["at"]) if isinstance(one, dict) else one[1] - one[0] for one in self.quantities.values()}
        if len(widths) > 1 or len(self.quantities) == 1:
            raise InputError(f"Marked.quantities: got {self.quantities}, wanted two or more of one width.")
        if members < 1 or sharpness < 0:
            raise InputError(f"Marked: got members={members}, sharpness={sharpness}, wanted >= 1 and >= 0.")
        self.config: dict[str, Any] = {
            "dims": asdict(dims), "quantities": self.quantities, "sharpness": sharpness, "members": members, "width": width,
        }  # fmt: skip
        self.sharpness = sharpness
        pairs = len(list(combinations(self.quantities, 2)))
        inputs = pairs * (max(widths) + 1) if self.quantities else dims.observation
        self.normalizer = Normalizer(inputs, dims.action)
        self.nets = step_networks(inputs, width, members)

    def features(self, observation: Tensor) -> Tensor:
        """What is looked at, any leading shape: (..., D) -> (..., F)."""
        if not self.quantities:
            return observation
        parts = [
            observation.new_tensor(one["at"]).expand(*observation.shape[:-1], -1)
            if isinstance(one, dict)
            else observation[..., one[0] : one[1]]
            for one in self.quantities.values()
        ]
        apart = [one - other for one, other in combinations(parts, 2)]
        return torch.cat([*apart, *(each.norm(dim=-1, keepdim=True) for each in apart)], dim=-1)

    def fit_normalizer(self, segments: Segments) -> None:
        """Freeze the scale of the features on episodes nobody has to judge."""
        live = segments.mask.bool()
        self.normalizer.fit(self.features(segments.observation)[live], segments.action[live])

    def danger(self, segments: Segments) -> Tensor:
        """How bad each moment is for every member, in logits: (K, B, T)."""
        inputs = self.normalizer.state(self.features(segments.observation))  # (B, T, F)
        return torch.stack([net(inputs).squeeze(-1) for net in self.nets])

    def score(self, segments: Segments) -> Tensor:
        """Minus the danger of each step, (B, T); padding scores 0."""
        return -self.danger(segments).mean(dim=0) * segments.mask

    def badness(self, segments: Segments) -> Tensor:
        """Logit of "would be marked" for every member, (K, B)."""
        return pooled(self.danger(segments), segments.mask, self.sharpness)

    def returns(self, segments: Segments) -> Tensor:
        """Minus the badness of whole episodes, (K, B): higher is better, as for other rewards."""
        return -self.badness(segments)

    def loss(self, segments: Segments, marked: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of episodes and their marks (B,), 1 marked, 0 shown and let pass; averaged over members, and what to log."""
        badness = self.badness(segments)
        loss = marked_loss(badness, marked).mean()
        right = ((badness.detach().mean(dim=0) > 0) == (marked > 0.5)).float().mean()
        return loss, {"marks/loss": float(loss.detach()), "marks/accuracy": float(right)}


def _place(name: str, where: Place, width: int) -> dict[str, list[float]] | list[int]:
    """A place as plain data. Raises `InputError` for another form and for columns outside the state."""
    if isinstance(where, Mapping) and where.keys() == {"at"} and len(where["at"]):
        return {"at": [float(x) for x in where["at"]]}
    if not isinstance(where, Mapping) and len(where) == 2 and 0 <= where[0] < where[1] <= width:
        return [int(where[0]), int(where[1])]
    raise InputError(
        f"Marked.quantities.{name}: got {where}, wanted [first column, past the last] of {width}, or {{at: [x, y, ...]}}."
    )
