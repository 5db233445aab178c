"""The nouns that everything is made of: frozen, and refused with "got / wanted / do" where their shapes do not fit."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from robopref.arrays import InputError, Trajectory
from robopref.types import Chunks, Dims, Draws, Observation, PolicySpec, PreferenceBatch, Segments

B, T, D, A, H, K, M = 3, 5, 4, 2, 6, 1, 2


def segments(**changes):
    return Segments(
        **{"observation": torch.zeros(B, T, D), "action": torch.zeros(B, T, A), "mask": torch.ones(B, T), **changes}
    )


def observation(**changes):
    return Observation(**{"state": torch.zeros(B, K, D), **changes})


RIGHT = {
    Trajectory: lambda: {
        "observation": np.zeros((T, D), np.float32), "action": np.zeros((T, A), np.float32),
        "reward": np.zeros(T, np.float32), "success": np.zeros(T, bool), "sim_state": np.zeros((T, 7)),
        "chunk": np.zeros((T, H, A), np.float32), "executed": np.zeros((T, H), bool),
        "images": {"top": np.zeros((T, 8, 8, 3), np.uint8)}, "extra": {"expert_action": np.zeros((T, A), np.float32)},
    },
    Segments: lambda: {
        "observation": torch.zeros(B, T, D), "action": torch.zeros(B, T, A), "mask": torch.ones(B, T),
        "images": {"top": torch.zeros(B, T, 8, 8, 3, dtype=torch.uint8)},
    },
    PreferenceBatch: lambda: {
        "first": segments(), "second": segments(), "prob_first": torch.full((B,), 0.5), "weight": torch.ones(B),
    },
    Observation: lambda: {"state": torch.zeros(B, K, D), "sentence": ("go",) * B},
    Chunks: lambda: {"observation": observation(), "action": torch.zeros(B, H, A), "mask": torch.ones(B, H, A)},
    Draws: lambda: {"time": torch.zeros(B, M), "noise": torch.zeros(B, M, H, A)},
    Dims: lambda: {"observation": D, "action": A},
    PolicySpec: lambda: {"dims": Dims(D, A), "horizon": 8, "execute": 4, "history": 1},
}  # fmt: skip
nan = float("nan")
WRONG = [
    (Trajectory, "observation", np.zeros(T, np.float32)),
    (Trajectory, "observation", np.full((T, D), nan, np.float32)),
    (Trajectory, "action", np.zeros((T + 1, A), np.float32)),
    (Trajectory, "action", np.full((T, A), np.inf, np.float32)),
    (Trajectory, "reward", np.zeros((T, 1), np.float32)),
    (Trajectory, "success", np.zeros(T - 1, bool)),
    (Trajectory, "sim_state", np.zeros((T - 1, 7))),
    (Trajectory, "chunk", None),
    (Trajectory, "chunk", np.zeros((T, H, A + 1), np.float32)),
    (Trajectory, "executed", None),
    (Trajectory, "executed", np.zeros((T, H + 1), bool)),
    (Trajectory, "images", {"top": np.zeros((T, 8, 8), np.uint8)}),
    (Trajectory, "extra", {"expert_action": np.zeros(T, np.float32)}),
    (Segments, "observation", torch.zeros(B, T + 1, D)),
    (Segments, "action", torch.zeros(B + 1, T, A)),
    (Segments, "mask", torch.ones(B, T, 1)),
    (Segments, "images", {"top": torch.zeros(B, 8, 8, 3)}),
    (PreferenceBatch, "second", segments()[:2]),
    (PreferenceBatch, "prob_first", torch.zeros(B, 1)),
    (PreferenceBatch, "prob_first", torch.tensor([0.5, 0.5, 1.01])),
    (PreferenceBatch, "prob_first", torch.tensor([0.5, nan, 0.5])),
    (PreferenceBatch, "weight", torch.ones(B - 1)),
    (PreferenceBatch, "weight", torch.tensor([1.0, -0.1, 1.0])),
    (PreferenceBatch, "weight", torch.tensor([1.0, nan, 1.0])),
    (Observation, "state", torch.zeros(B, D)),
    (Observation, "sentence", ("go",) * (B + 1)),
    (Observation, "images", {"top": torch.zeros(B, K + 1, 8, 8, 3)}),
    (Chunks, "observation", observation(state=torch.zeros(B + 1, K, D))),
    (Chunks, "action", torch.zeros(B, A)),
    (Chunks, "mask", torch.ones(B, H)),
    (Draws, "time", torch.zeros(B)),
    (Draws, "noise", torch.zeros(B, M + 1, H, A)),
    (Draws, "noise", torch.zeros(B, M, A)),
    (Dims, "observation", 0),
    (Dims, "action", -1),
    (PolicySpec, "execute", 9),
    (PolicySpec, "execute", 0),
    (PolicySpec, "history", 0),
]


@pytest.mark.parametrize(
    ("noun", "name", "value"), WRONG, ids=[f"{noun.__name__}.{name}-{i}" for i, (noun, name, _) in enumerate(WRONG)]
)
def test_a_wrong_noun_is_refused_in_words_that_say_what_to_do(noun, name, value):
    noun(**RIGHT[noun]())
    with pytest.raises(InputError) as refused:
        noun(**{**RIGHT[noun](), name: value})
    said = str(refused.value)
    assert re.fullmatch(rf"{noun.__name__}\b.*: got .+, wanted .+\. [A-Z].+\.", said, re.DOTALL), said
    assert len(said.splitlines()) <= 5


def test_an_episode_without_steps_is_refused():
    empty = {name: value[:0] for name, value in RIGHT[Trajectory]().items() if isinstance(value, np.ndarray)}
    with pytest.raises(InputError, match="got 0 steps, wanted at least 1"):
        Trajectory(**empty)


@pytest.mark.parametrize("noun", RIGHT, ids=lambda noun: noun.__name__)
def test_a_noun_cannot_be_changed(noun):
    made = noun(**RIGHT[noun]())
    for field in dataclasses.fields(noun):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, field.name, getattr(made, field.name))
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.more = 1
