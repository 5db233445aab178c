"""Random shift and change of colour of the pictures that a policy is cloned from (Yarats et al. 2021, DrQ; Laskin et al. 2020).

One change per row and camera, the same for its whole history: what moves between two pictures of a row has really moved.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from robopref.pictures import PictureSpec
from robopref.types import Chunks


def augmented(chunks: Chunks, pictures: PictureSpec, generator: torch.Generator) -> Chunks:
    """The chunks with changed pictures; the same object, and nothing drawn, where a policy sees none or wants no change."""
    if not pictures.cameras or (pictures.shift == 0 and pictures.colour == 0):
        return chunks
    images = {}
    for camera in pictures.cameras:
        seen = random_shift(chunks.observation.picture(camera, pictures.size), pictures.shift, generator)
        images[camera] = random_colour(seen, pictures.colour, generator)
    return replace(chunks, observation=replace(chunks.observation, images=images))


def random_shift(pictures: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """(B, K, height, width, 3) moved by -most to most whole pixels each way, the border repeated."""
    if most == 0:
        return pictures
    batch, _, height, width, _ = pictures.shape
    move = torch.randint(-most, most + 1, (2, batch, 1), generator=generator)
    rows = (torch.arange(height) + move[0]).clamp(0, height - 1)  # (B, height)
    columns = (torch.arange(width) + move[1]).clamp(0, width - 1)  # (B, width)
    index = torch.arange(batch)[:, None, None]
    # Both indexed axes beside the batch: (B, height, width, K, 3), then K to its place again.
    return pictures.permute(0, 2, 3, 1, 4)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2, 4)


def random_colour(pictures: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """(B, K, height, width, 3) uint8 with contrast, brightness and each colour changed by at most the share `most`."""
    if most == 0:
        return pictures
    batch = len(pictures)
    drawn = (2 * torch.rand(5, batch, generator=generator) - 1) * most  # contrast, brightness, three colours
    contrast, brightness, colours = 1 + drawn[0], 255 * drawn[1], 1 + drawn[2:].T  # (B,), (B,), (B, 3)
    middle = 127.5
    scaled = (
        (pictures.float() - middle) * contrast.view(batch, 1, 1, 1, 1) + middle + brightness.view(batch, 1, 1, 1, 1)
    )
    return (scaled * colours.view(batch, 1, 1, 1, 3)).round().clamp(0, 255).to(torch.uint8)
