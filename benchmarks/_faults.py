"""Faults that are put into one round of the loop from outside: the product has no switch for any of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from robopref.arrays import Trajectory
from robopref.checkpoint import load
from robopref.data.content import behaviour_hash
from robopref.data.windows import chunk_table
from robopref.policies.diffusion import Diffusion
from robopref.protocols import Labeler

FIRST, SEEDS = 6, 20
"""First seed of a run, and how many the full one has: on seeds before the first the reward was chosen."""
STEPS = 200
"""Gradient steps of the round."""
SECOND = "second"
"""Folder of a seed's second policy: the same network cloned on other demonstrations, for a reference that is not the policy."""


@dataclass(frozen=True)
class Swapped:
    """A rater whose answers are all turned round."""

    labeler: Labeler

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """1 - prob_first (N,)."""
        return 1 - self.labeler.label(first, second)


@dataclass(frozen=True)
class Misfiled:
    """A rater whose answers land on other questions: each on the next one, the last on the first."""

    labeler: Labeler

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) of other questions."""
        return np.roll(self.labeler.label(first, second), 1)


@dataclass(frozen=True)
class NeverEqual:
    """A rater who always takes a side: where the other one says equal, a coin does."""

    labeler: Labeler

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,), nowhere 0.5."""
        found = self.labeler.label(first, second)
        return np.where(found == 0.5, _coins(first, second, "side") < 0.5, found)


@dataclass(frozen=True)
class Blurred:
    """A rater of whose answers a share changes its kind: a side becomes equal, equal becomes a side by a coin."""

    labeler: Labeler
    share: float = 0.3

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,)."""
        found = self.labeler.label(first, second)
        side = np.where(_coins(first, second, "side") < 0.5, 1.0, 0.0)
        return np.where(_coins(first, second, "kind") < self.share, np.where(found == 0.5, side, 0.5), found)


def _coins(first: Sequence[Trajectory], second: Sequence[Trajectory], what: str) -> np.ndarray:
    """Uniform numbers (N,) that belong to the pairs: neither order nor company of the questions moves them."""
    texts = [f"{what} {behaviour_hash(a)} {behaviour_hash(b)}" for a, b in zip(first, second, strict=True)]
    words = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return np.array([int.from_bytes(word, "little") / 2**64 for word in words])


@dataclass(frozen=True)
class Fault:
    """What goes wrong, the rater it has (a class of this file, by name), settings, and what it does while a round runs.

    inject: folder of the seed (with `SECOND` in it) -> context in which the round runs.
    """

    what: str
    rater: str = ""
    overrides: Sequence[str] = ()
    inject: Callable[[Path], Any] = field(default=lambda _: patch.dict({}))


def _reference(change: Callable[[Any, Path], None]) -> Callable[[Path], Any]:
    """Every frozen copy that a policy makes of itself is changed."""

    def inject(place: Path) -> Any:
        copied = Diffusion.reference

        def reference(policy: Diffusion) -> Diffusion:
            frozen = copied(policy)
            change(frozen, place)
            return frozen

        return patch.object(Diffusion, "reference", reference)

    return inject


def _own_noise(frozen: Any, _: Path) -> None:
    generator, score = torch.Generator().manual_seed(7), frozen.score
    frozen.score = lambda chunks, draws: score(chunks, frozen.draw(chunks, generator))


def _spoil(normalizer: Any) -> None:
    """Statistics as of another data set: shifted by a deviation, and half as wide."""
    normalizer.mean.add_(normalizer.std)
    normalizer.std.mul_(0.5)


def _other_normaliser(frozen: Any, _: Path) -> None:
    _spoil(frozen.normalizer)


def _other_weights(frozen: Any, place: Path) -> None:
    state = load(place / SECOND / "policy").state_dict()
    frozen.load_state_dict({k: v for k, v in state.items() if not k.startswith("normalizer.")}, strict=False)


def _both_normalisers(_: Path) -> Any:
    """Policy and reference read their input with the same wrong statistics, so that no comparison of the two shows it."""

    def spoilt(folder: Path | str) -> Any:
        policy = load(folder)
        _spoil(policy.normalizer)
        return policy

    return patch("robopref.stages.align.load", spoilt)


def _same_object(_: Path) -> Any:
    """The reference is the policy itself and moves with it."""
    return patch.object(Diffusion, "reference", lambda policy: policy)


def _episodes_shifted(_: Path) -> Any:
    """Pairs and winners point to other episodes than those that were compared: each to its neighbour, of another reset."""

    def shifted(trajectories: Sequence[Trajectory], spec: Any) -> Any:
        return chunk_table([*trajectories[5:], *trajectories[:5]], spec)

    return patch("robopref.stages.align.chunk_table", shifted)


@contextmanager
def _slow(_: Path) -> Iterator[None]:
    """The learned reward pays for acting little, as likelihoods of cloned policies do, in ranking and in choosing."""

    def rest(_: Any, trajectories: Sequence[Trajectory]) -> np.ndarray:
        return np.array([-float(np.square(one.action).sum()) for one in trajectories])

    with (
        patch("robopref.stages.evidence.predicted_returns", rest),
        patch("robopref.stages.choosing.predicted_returns", rest),
    ):
        yield


NONE = "no_fault"
FAULTS = {
    NONE: Fault("nothing: the round as it is"),
    "noise_not_shared": Fault("the reference scores at noise of its own", inject=_reference(_own_noise)),
    "wrong_normaliser": Fault("the reference normalises otherwise", inject=_reference(_other_normaliser)),
    "wrong_normaliser_of_both": Fault("policy and reference share wrong statistics", inject=_both_normalisers),
    "wrong_reference": Fault("the reference is another policy of the same normaliser", inject=_reference(_other_weights)),
    "reference_is_the_policy": Fault("the reference is not frozen", inject=_same_object),
    "swapped_labels": Fault("every answer is turned round", rater="Swapped"),
    "shuffled_answers": Fault("every answer lands on the next question", rater="Misfiled"),
    "shuffled_pairs": Fault("pairs and winners point to other episodes", inject=_episodes_shifted),
    "slow_actions": Fault("the reward pays for acting little", inject=_slow),
}  # fmt: skip
"""The six faults that were named beforehand, three of them in two forms, and the round without any."""
STRESSES = {
    "flipped_30": Fault("30% of the answers are turned round", overrides=("+labeler.noise={mistake: 0.3}",)),
    "flipped_30_network": Fault(
        "30% of the answers are turned round, reward=partial_return",
        overrides=("+labeler.noise={mistake: 0.3}", "reward=partial_return"),
    ),
    "never_equal": Fault("the rater never says equal, a coin decides", rater="NeverEqual"),
    "never_equal_flipped_30": Fault(
        "the same, and 30% of all other answers are turned round",
        rater="NeverEqual",
        overrides=("+labeler.noise={mistake: 0.3}",),
    ),
    "blurred_flipped_30": Fault(
        "30% are turned round, and 30% change between a side and equal",
        rater="Blurred",
        overrides=("+labeler.noise={mistake: 0.3}",),
    ),
    "network": Fault("nothing, reward=partial_return", overrides=("reward=partial_return",)),
    "steps_x10": Fault("ten times the steps", overrides=(f"align.steps={10 * STEPS}",)),
}
