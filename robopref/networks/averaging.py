"""Averages of weights of models that were trained from one start (model soups: Wortsman et al. 2022; WARP: Ramé et al. 2024)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from robopref.arrays import InputError


@torch.no_grad()
def averaged(models: Sequence[nn.Module]) -> nn.Module:
    """A new model whose weights are the mean of theirs; counters and other whole numbers are the last one's.

    Raises `InputError` for none, and for models whose weights have other names or shapes.
    """
    if not models:
        raise InputError("averaged: got no model, wanted at least one.")
    states = [model.state_dict() for model in models]
    shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
    if any(shape != shapes[0] for shape in shapes):
        raise InputError("averaged: got models of other shapes, wanted models that were trained from one start.")
    mean = {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if value.is_floating_point() else value
        for name, value in states[-1].items()
    }
    made = copy.deepcopy(models[-1])
    made.load_state_dict(mean)
    return made
