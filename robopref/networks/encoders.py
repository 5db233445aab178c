"""Encoders of pictures by name: (B, 3, height, width) in [0, 1] -> features (B, width).

`small` is a few convolutions for two cores; `resnet18` is ResNet-18 with group norm (He et al. 2016; Wu and He 2018; as in Chi et
al. 2023), which keeps a row's result its own; `backbone` is any vision model from a local folder (see `backbones`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.backbones import Backbone, describe, extra, fit_weights, read_weights
from robopref.networks.cnn import Pool, SmallCNN, pooling

EncoderName = Literal["small", "resnet18", "backbone"]


class ResNet18(nn.Module):
    """torchvision's ResNet-18 with every batch norm replaced by group norm of 16 channels a group. Needs the extra `vision`."""

    def __init__(self, width: int = 64, pool: Pool = "softmax", folder: str | None = None) -> None:
        super().__init__()
        models = extra("torchvision.models", "torchvision")
        body = models.resnet18(weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
        if folder is not None:
            # A checkpoint's batch norms bring their weight and bias; running statistics have no place here.
            weights = {k: v for k, v in read_weights(Path(folder)).items() if not k.endswith(_BATCH_STATISTICS)}
            fit_weights(body, weights, Path(folder), spare=("fc.",))
        self.body = nn.Sequential(*list(body.children())[:-2])
        self.pool, features = pooling(pool, 512)
        self.leave = nn.Linear(features, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, height, width) float in [0, 1] -> (B, width)."""
        return self.leave(self.pool(self.body(2 * pictures - 1)))


_BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class BackboneEncoder(nn.Module):
    """A vision model from a local folder and a linear layer on its features. frozen: only the linear layer learns."""

    def __init__(
        self, described: Mapping[str, Any], width: int = 64, frozen: bool = False, folder: str | None = None
    ) -> None:
        super().__init__()
        self.body = Backbone(described, None if folder is None else Path(folder))
        self.body.requires_grad_(not frozen)
        self.leave = nn.Linear(self.body.features, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, height, width) float in [0, 1] -> (B, width)."""
        return self.leave(self.body(pictures))


def build_encoder(
    name: EncoderName, width: int, pool: Pool, folder: str | None, frozen: bool, described: Mapping[str, Any] | None
) -> tuple[nn.Module, dict[str, Any] | None]:
    """An encoder, and what a backbone's folder said, by which it is built again without the folder.

    folder: where weights come from (None: random, or a policy's own that are loaded afterwards). Raises `InputError` for an unknown
    name, a folder that is missing or does not fit, and a backbone without one.
    """
    if name == "small":
        return SmallCNN(width, pool), None
    if name == "resnet18":
        return ResNet18(width, pool, folder), None
    if name != "backbone":
        raise InputError(f"eyes.encoder: got {name!r}, wanted small, resnet18 or backbone.")
    if folder is not None:
        described = describe(Path(folder))
    if described is None:
        raise InputError(
            "eyes.encoder=backbone: got no folder, wanted eyes.folder=DIR with a vision model (config.json, model.safetensors)."
        )
    return BackboneEncoder(described, width, frozen, folder), dict(described)


def as_floats(pictures: Tensor, like: Tensor) -> Tensor:
    """uint8 pictures (B, height, width, 3) -> (B, 3, height, width) in [0, 1], dtype and device of `like`."""
    return pictures.to(like.device).permute(0, 3, 1, 2).to(like.dtype).contiguous() / torch.tensor(
        255, dtype=like.dtype
    )
