"""What a policy sees besides its state: pictures of several cameras over its history, as one row of features.

Augmentation is not done here: a policy looks the same in training and in scoring, and learners change the pictures they clone from
(`networks/augment.py`). So a policy's and its reference's scores of one chunk are of the same pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robopref.arrays import InputError
from robopref.networks.cnn import Pool
from robopref.networks.encoders import EncoderName, as_floats, build_encoder
from robopref.pictures import PictureSpec
from robopref.types import Observation


class Eyes(nn.Module):
    """Encodes every camera's pictures, each camera with weights of its own.

    cameras, size (pixels, or height and width), shift, colour, render: see `PictureSpec`. encoder, width, pool: see `encoders`.
    folder: a local folder with weights (resnet18, backbone). frozen: a backbone does not learn. state: which numbers of the state
    vector the policy may read beside the pictures (None: all): what a camera must find is then not read off the simulator.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        size: int | Sequence[int] = 84,
        encoder: EncoderName = "small",
        width: int = 64,
        pool: Pool = "softmax",
        folder: str | None = None,
        frozen: bool = False,
        state: Sequence[int] | None = None,
        shift: int = 4,
        colour: float = 0.0,
        render: Mapping[str, Any] | None = None,
        backbone: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not cameras:
            raise InputError("eyes.cameras: got none, wanted at least one camera, for example eyes.cameras=[corner2].")
        height, width_px = (size, size) if isinstance(size, int) else size
        drawn = _plain(render or {})
        self.spec = PictureSpec(tuple(cameras), (int(height), int(width_px)), shift, colour, drawn)
        encoders, described = {}, backbone
        for camera in self.spec.cameras:
            encoders[_key(camera)], described = build_encoder(encoder, width, pool, folder, frozen, described)
        self.encoders = nn.ModuleDict(encoders)
        self.width = width
        self.config: dict[str, Any] = {
            "cameras": list(cameras), "size": [int(height), int(width_px)], "encoder": encoder, "width": width, "pool": pool,
            "frozen": frozen, "state": None if state is None else [int(i) for i in state], "shift": shift, "colour": colour,
            "render": drawn, "backbone": _plain(described),
        }  # fmt: skip

    def read(self, state: Tensor) -> Tensor:
        """The numbers of a state (B, K, D) that the policy may read: (B, K, R)."""
        chosen = self.config["state"]
        return state if chosen is None else state[..., chosen]

    def numbers(self, observation: int) -> int:
        """R, how many numbers of a state of width D the policy reads. Raises `InputError` for one that is not there."""
        chosen = self.config["state"]
        if chosen is None:
            return observation
        if any(not 0 <= i < observation for i in chosen):
            raise InputError(f"eyes.state: got {chosen}, wanted places in a state of {observation} numbers.")
        return len(chosen)

    def features(self, history: int) -> int:
        """Length of a row of `forward` for K observations."""
        return history * len(self.spec.cameras) * self.width

    def forward(self, observation: Observation) -> Tensor:
        """Pictures (B, K, height, width, 3) of every camera -> (B, K cameras width)."""
        rows = []
        for camera in self.spec.cameras:
            pictures = observation.picture(camera, self.spec.size)
            batch, history = pictures.shape[:2]
            seen = self.encoders[_key(camera)](as_floats(pictures.flatten(0, 1), observation.state))  # (B K, width)
            rows.append(seen.view(batch, history * self.width))
        return torch.cat(rows, dim=-1)


def _plain(value: Any) -> Any:
    """A configuration as JSON takes it: a configuration library's own dictionaries and lists become plain ones."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(v) for v in value]
    return value


def _key(camera: str) -> str:
    """A camera's name as a module's name, which may hold no dot."""
    return camera.replace(".", "_")
