"""The interfaces that plug-ins keep. A plug-in needs no base class, only these methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from robopref.arrays import Trajectory
from robopref.types import Chunks, Draws, Observation, PolicySpec, PreferenceBatch, Segments

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for a whole batch, or one per row (then a row's result does not depend on its neighbours)."""


class Policy(Protocol):
    """A generative policy over action chunks. `score` of policy and reference are comparable at equal draws only."""

    @property
    def spec(self) -> PolicySpec:
        """Shapes and execution of the policy."""

    def act(self, observation: Observation, generator: Generators) -> Tensor:
        """Sampled chunks (B, H, A) in environment units for a history (B, K, D)."""

    def draw(self, chunks: Chunks, generator: torch.Generator) -> Draws:
        """Noise and stratified times, M probes per chunk; what is in the chunks does not matter, only how many and how large they are."""

    def score(self, chunks: Chunks, draws: Draws) -> Tensor:
        """(Surrogate) log-likelihood of each chunk, probes averaged, executed elements summed: (B,)."""

    def loss(self, chunks: Chunks, draws: Draws) -> Tensor:
        """Cloning loss of each chunk, mean over executed elements: (B,)."""

    def reference(self) -> Policy:
        """A frozen copy of this policy as it is now."""


@runtime_checkable
class Preparing(Protocol):
    """A policy of whose scores a part depends on no weight, so that policy, reference and later steps can share it."""

    def prepared(self, chunks: Chunks, draws: Draws) -> Draws:
        """The draws with that part computed for these chunks: `score` and `loss` of the same chunks give what they give without, to the last bit."""


class RewardModel(Protocol):
    """Per-step rewards learned from comparisons."""

    def score(self, segments: Segments) -> Tensor:
        """Step rewards (B, T); padding scores 0."""

    def loss(self, batch: PreferenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Scalar training loss and what to log."""


@runtime_checkable
class Looking(Protocol):
    """A reward model or labeler that judges pictures: what it judges comes to it with those of its cameras."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras it looks through; none: it may look, and need not."""


class Labeler(Protocol):
    """Who says which trajectory is better."""

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64: P(first preferred), 0.5 a tie, nan for no answer."""


@runtime_checkable
class Prepared(Protocol):
    """A reward model that reads scales from episodes, labelled or not, before it learns from answers."""

    def prepare(self, segments: Segments) -> None:
        """See whole episodes (B, T, D); its normaliser is set before."""


@runtime_checkable
class Solved(Protocol):
    """A reward model that finds its weights at once, from all answers together, instead of by steps of `train.fit`."""

    def solve(self, batch: PreferenceBatch, share: Tensor | None = None) -> dict[str, float]:
        """Set the weights; logs as of `loss`. share (K, N): how much a pair counts for a member; its normaliser is set before."""


@runtime_checkable
class Sampled(Protocol):
    """A reward model whose members are draws from a posterior given all answers: nothing is left out, and it needs no calibration."""

    def sample(self, batch: PreferenceBatch, generator: torch.Generator) -> dict[str, float]:
        """Set the members; logs as of `loss`. Its normaliser is set before."""


@runtime_checkable
class WeighingLabeler(Protocol):
    """A labeler that also says how far its answers can be relied on."""

    def weigh(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """Weight (N,) float64 >= 0 of each answer of `label`; 1 is one rater who is always right, 0 counts nothing."""


@runtime_checkable
class Grader(Protocol):
    """A labeler that also says how good each trajectory is by itself."""

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """As a `Labeler`."""

    def scores(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """How good each is, (N,) float64; higher is better."""


class PairLoss(Protocol):
    """A preference loss on pairs of scores relative to the reference."""

    def __call__(self, rho_first: Tensor, rho_second: Tensor, prob_first: Tensor) -> Tensor:
        """Loss per pair (B,)."""


class ListLoss(Protocol):
    """A preference loss on lists of rollouts of one reset."""

    def __call__(self, rho: Tensor, grade: Tensor, mask: Tensor) -> Tensor:
        """Loss per list (B,) from (B, G) each; a higher grade is better, mask 0 is padding."""


class UnpairedLoss(Protocol):
    """A preference loss on single trajectories called good (1) or bad (0)."""

    def __call__(self, rho: Tensor, good: Tensor) -> Tensor:
        """Loss per trajectory (B,)."""


class ReferenceFreeLoss(Protocol):
    """A pair loss on scores or errors of one policy, without a reference."""

    def __call__(self, score_first: Tensor, score_second: Tensor, prob_first: Tensor) -> Tensor:
        """Loss per pair (B,)."""


class Environment(Protocol):
    """A gymnasium environment that obeys its seed, restores its full state, and reports `info["success"]`."""

    task: str
    horizon: int
    observation_space: Any
    action_space: Any

    @property
    def render_settings(self) -> Mapping[str, Any]:
        """What determines the pixels besides the state: `height`, `width`, and how it is drawn."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start the episode that belongs to `seed`: same seed, same episode, whatever came before."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """observation (D,), reward, terminated, truncated, info with `success`."""

    def get_state(self) -> np.ndarray:
        """Everything needed to continue from here, as float64 (S,)."""

    def set_state(self, state: np.ndarray) -> np.ndarray:
        """Restore a state of `get_state` (of any instance of the same task); returns the observation (D,)."""

    def expert(self, observation: np.ndarray) -> np.ndarray:
        """The scripted expert's action (A,) in [-1, 1] for this observation."""

    def goal_shift(self, observation: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The observation (D,) as it would look if object and goal stood elsewhere by `offset` (3,), in metres."""

    def render(self, camera: str | None = None) -> np.ndarray:
        """Upright picture (height, width, 3) uint8 of the current state. Raises `InputError` for a camera there is not."""

    def close(self) -> None:
        """Free the renderer, if one was made."""


StepResult: TypeAlias = tuple[np.ndarray, float, bool, bool, dict[str, Any]]


@runtime_checkable
class Simulated(Protocol):
    """An environment whose step comes in two parts: `step(action)` equals `simulate(action)`, then `outcome()`.

    Threads share the first, which lets go of Python's lock; the second is Python and runs in one.
    """

    def simulate(self, action: np.ndarray) -> None:
        """Apply an action (A,) and let the simulator run."""

    def outcome(self) -> StepResult:
        """What `step` returns, for the action simulated last."""


class Arm(Protocol):
    """Plays a policy's episodes in a world that does not wait: an arm behind its guard, entered by `arm._target_`."""

    def play(self, policy: Path, seeds: Sequence[int], folder: Path) -> dict[str, Any]:
        """Play one episode of a policy folder per reset seed (a repeated one is a further episode from there).

        Leaves `folder`/store, a trajectory store with one episode for each seed in their order, and returns how it went. Raises
        `InputError` where an episode cannot be played.
        """
