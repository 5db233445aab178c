"""Representation-aligned preference-based learning (RAPL): answers train the encoder only, optimal transport gives the reward.

A rater sees a film o and says which of two films a, b is more like it: P(a) = sigmoid((d(o, b) - d(o, a)) / temperature), where d is the
entropic transport cost between the embedded pictures, with costs C_tt' = 1 - cos and uniform marginals. The reward of a picture is
r_t = -sum_t' C_tt' mu*_tt', mu* the plan to the nearest preferred film. No action is read, so films of another robot do as well.
Tian, Xu, Tomizuka, Malik, Bajcsy, "What Matters to You? Towards Visual Representation Alignment for Robot Learning" (ICLR 2024), sections
4.1 and 4.2, from memory; the transport reward is that of Haldar et al. 2022 (`transport/sinkhorn`).

    paper            here
    phi              embed
    mu*              plan
    D_+ (preferred)  preferred, preferred_mask
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.cnn import Pool
from robopref.networks.encoders import EncoderName
from robopref.networks.ensemble import Calibration
from robopref.networks.films import FilmEncoder
from robopref.transport.sinkhorn import plans
from robopref.types import PreferenceBatch, Segments


class Aligned(nn.Module):
    """An encoder of pictures, and the embedded films that were preferred."""

    preferred: Tensor
    """(P, T', F) embedded preferred films."""
    preferred_mask: Tensor
    """(P, T'), 1 at their pictures, 0 at padding."""

    def __init__(
        self,
        camera: str,
        size: int = 84,
        encoder: EncoderName = "small",
        width: int = 64,
        pool: Pool = "softmax",
        hidden: int = 64,
        embedding: int = 32,
        epsilon: float = 0.05,
        iterations: int = 50,
        temperature: float = 0.1,
        films: int = 0,
        steps: int = 0,
        folder: str | None = None,
        described: dict[str, Any] | None = None,
    ) -> None:
        """epsilon: entropy relative to the mean cost. films, steps: how many preferred films are kept and their length; set by `prefer`."""
        super().__init__()
        if epsilon <= 0 or temperature <= 0 or iterations < 1 or embedding < 2:
            raise InputError(
                f"Aligned: got epsilon={epsilon}, temperature={temperature}, iterations={iterations}, embedding={embedding}, "
                "wanted epsilon and temperature > 0, iterations >= 1, embedding >= 2."
            )
        self.eyes = FilmEncoder(camera, size, encoder, width, pool, hidden, embedding, folder, described)
        self.config: dict[str, Any] = {
            "camera": camera, "size": size, "encoder": encoder, "width": width, "pool": pool, "hidden": hidden, "embedding": embedding,
            "epsilon": epsilon, "iterations": iterations, "temperature": temperature, "films": films, "steps": steps,
            "described": self.eyes.described,
        }  # fmt: skip
        self.epsilon, self.iterations, self.temperature = epsilon, iterations, temperature
        self.cameras = (camera,)
        self.calibration = Calibration()
        self.register_buffer("preferred", torch.zeros(films, steps, embedding))
        self.register_buffer("preferred_mask", torch.ones(films, steps))

    def embed(self, features: Tensor) -> Tensor:
        """Features of the encoder (..., width) -> embeddings of length 1, (..., F)."""
        return F.normalize(self.eyes(features), dim=-1)

    def plan(self, one: Tensor, other: Tensor, one_mask: Tensor, other_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Plan and cost (B, T, T') between embedded films (B, T, F) and (B, T', F) with masks (B, T), (B, T')."""
        cost = 1 - one @ other.transpose(1, 2)
        return plans(cost, torch.cat([one_mask, other_mask], dim=1), self.epsilon, self.iterations), cost

    def distance(self, one: Tensor, other: Tensor, one_mask: Tensor, other_mask: Tensor) -> Tensor:
        """Transport cost between embedded films, (B,)."""
        plan, cost = self.plan(one, other, one_mask, other_mask)
        return (plan * cost).sum(dim=(1, 2))

    def closer(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Logit of P(first is closer to the anchor), (B,), of embedded triplets (anchor, first, second): (3, B, T, F), masks (3, B, T)."""
        anchor, first, second = embedded
        twice = torch.cat([anchor, anchor]), torch.cat([first, second])
        masks = torch.cat([mask[0], mask[0]]), torch.cat([mask[1], mask[2]])
        near, far = self.distance(*twice, *masks).chunk(2)
        return (far - near) / self.temperature

    def triplet_loss(self, embedded: Tensor, mask: Tensor, prob_first: Tensor) -> Tensor:
        """Cross-entropy of the answers about triplets, per triplet (B,). Tian et al. 2024, eq. 4."""
        return F.binary_cross_entropy_with_logits(self.closer(embedded, mask), prob_first, reduction="none")

    @torch.no_grad()
    def prefer(self, segments: Segments) -> None:
        """Take films as the preferred ones, embedded by the encoder as it is now."""
        if len(segments) == 0:
            raise InputError("Aligned.prefer: got no film, wanted at least one that was preferred.")
        self.preferred = self.embed(self.eyes.features(segments))
        self.preferred_mask = segments.mask.clone()
        self.config |= {"films": len(segments), "steps": segments.mask.shape[1]}

    def nearest(self, segments: Segments) -> tuple[Tensor, Tensor, Tensor]:
        """Plan and cost (B, T, T') of each film against the preferred one that is nearest, and which that is, (B,)."""
        if len(self.preferred) == 0:
            raise InputError("Aligned: got no preferred film, wanted some. Call prefer(films) once it is trained.")
        embedded = self.embed(self.eyes.features(segments))
        found = []
        for film, live in zip(self.preferred, self.preferred_mask, strict=True):
            batch = len(segments)
            found.append(
                self.plan(embedded, film.expand(batch, -1, -1), segments.mask, live.expand(batch, -1))
            )  # (B, T, T') each
        plan, cost = (torch.stack(part) for part in zip(*found, strict=True))  # (P, B, T, T')
        which = (plan * cost).sum(dim=(2, 3)).argmin(dim=0)  # (B,)
        rows = torch.arange(len(segments))
        return plan[which, rows], cost[which, rows], which

    def score(self, segments: Segments) -> Tensor:
        """Reward of every picture, (B, T), <= 0; padding scores 0."""
        plan, cost, _ = self.nearest(segments)
        return -(plan * cost).sum(dim=2) * segments.mask

    def returns(self, segments: Segments) -> Tensor:
        """Minus the transport cost to the nearest preferred film, in units of the temperature, (1, B)."""
        return self.score(segments).sum(dim=1)[None] / self.temperature

    def logits(self, first: Segments, second: Segments) -> Tensor:
        """Logit of P(first preferred), (1, B)."""
        return self.returns(first) - self.returns(second)

    def prob_first(self, first: Segments, second: Segments) -> Tensor:
        """P(first preferred), (B,)."""
        return self.calibration(self.logits(first, second))

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Weighted cross-entropy of pairs, the nearest preferred films as anchors (they stay as they were embedded); logs."""
        logit = self.logits(batch.first, batch.second)[0]
        each = F.binary_cross_entropy_with_logits(logit, batch.prob_first, reduction="none")
        loss = (each * batch.weight).sum() / batch.weight.sum().clamp(min=1e-8)
        return loss, {"reward/loss": float(loss.detach())}
