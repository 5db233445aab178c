"""A small policy of every head, and what it does in four states."""

import torch
from hydra.utils import instantiate

from robopref.run import compose
from robopref.types import Dims, Observation

DIMS = Dims(observation=3, action=2)
HEADS = ["diffusion", "flow", "gaussian", "tokens"]
STATE = Observation(torch.linspace(-1, 1, 12).view(4, 1, 3))


def head(name, seed=0):
    """An untrained policy of a preset, by its seed."""
    torch.manual_seed(seed)
    small = {"width": 32, "depth": 1}
    return instantiate(compose([f"policy={name}"])["policy"], _partial_=True)(dims=DIMS, **small).eval()


def acted(policy):
    """Its chunks in STATE, at noise of one seed."""
    return policy.act(STATE, torch.Generator().manual_seed(5))
