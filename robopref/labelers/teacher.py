"""Scripted teachers: raters with a criterion and the noise models of B-Pref (Lee et al. 2021), named and seeded.

An answer depends on the two contents, the seed and the reference only: asked again it is the same, asked the other
way round it is 1 - prob_first, and neither order nor company of the questions matters once a reference is fitted.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.content import behaviour_hash

CRITERIA = ("return", "regret", "success")
DEFAULTS = {"skip": 0.1, "equal": 0.1, "myopic": 0.9, "boltzmann": 1.0, "mistake": 0.1}
"""Noise model -> strength in B-Pref. Skip, equal: eps of the threshold; myopic: gamma; mistake: flip probability."""
EXPERT = "expert_action"
_MOST = 512  # trajectories of which a reference compares all pairs


@dataclass(frozen=True, eq=False)
class Reference:
    """What thresholds and scales are relative to: statistics of a set of trajectories."""

    per_step: float
    """Mean score of a step."""
    std: float
    """Standard deviation of the score difference of two trajectories."""
    scores: np.ndarray
    """(R,) sorted scores."""


@dataclass(frozen=True)
class Teacher:
    """`label(first, second)` -> prob_first. Raises `InputError` for unknown names and strengths out of range.

    `noise` is a name of `DEFAULTS` or a mapping name -> strength, applied in B-Pref's order: skip, tie margin, myopic
    discount, rational or Boltzmann choice, mistake, ties overwrite. Empty means oracle.
    """

    criterion: str = "return"
    """`return`: summed reward. `regret`: minus the summed squared distance to `extra["expert_action"]`.
    `success`: who succeeds; of two who do, the one who does so earlier; two failures tie."""
    noise: Mapping[str, float] | str | None = None
    seed: int = 0
    sample: bool = True
    """Draw hard answers 1 or 0. Otherwise answer with the probability itself (ties stay 0.5)."""
    beta_over_std: bool = False
    """Divide Boltzmann's beta by the std of score differences, so that it means the same for any reward scale."""
    reference: Reference | None = None
    """Set by `fit`. Without it, the trajectories of a call are its reference: then ask all pairs in one call."""
    strengths: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        _known("criterion", self.criterion, CRITERIA)
        named = {self.noise: DEFAULTS.get(self.noise, 0.0)} if isinstance(self.noise, str) else dict(self.noise or {})
        named.pop("oracle", None)
        for name, value in named.items():
            _known("noise", name, ("oracle", *DEFAULTS))
            most = math.inf if name == "boltzmann" else 1.0
            if not 0 <= value <= most or math.isinf(value):
                raise InputError(f"Teacher.noise[{name}]: got {value}, wanted a finite number from 0 to {most}.")
        if "myopic" in named and self.criterion == "success":
            raise InputError("Teacher: got myopic noise with criterion success, wanted one summed over steps.")
        object.__setattr__(self, "strengths", {name: float(named[name]) for name in DEFAULTS if name in named})

    @property
    def name(self) -> str:
        """What the sidecar's `teacher` column says, for example `return+mistake=0.1`."""
        return self.criterion if not self.strengths else f"{self.criterion}+{self.noise_model}"

    @property
    def noise_model(self) -> str:
        """The noise alone, for example `skip=0.1+mistake=0.1`; `oracle` where there is none."""
        return "+".join(f"{k}={v:g}" for k, v in self.strengths.items()) or "oracle"

    def fit(self, trajectories: Sequence[Trajectory]) -> Teacher:
        """This teacher with thresholds and scale taken from `trajectories`, once and for all."""
        return replace(self, reference=self._reference(trajectories))

    def scores(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """Undiscounted score of each trajectory, (N,) float64; higher is better."""
        if self.criterion == "success":
            return np.array([_success_score(t) for t in trajectories])
        return np.array([self._steps(t).sum() for t in trajectories])

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64: P(first preferred), 0.5 a tie, nan where the teacher skips."""
        if len(first) != len(second):
            raise InputError(f"Teacher.label: got {len(first)} first and {len(second)} second, wanted as many of each.")
        reference = self.reference
        if reference is None and first and self._needs_reference():
            reference = self._reference([*first, *second])
        score = self.scores([*first, *second]).reshape(2, -1)  # (2, N)
        choice = self._choice_scores([*first, *second], score.ravel()).reshape(2, -1)  # (2, N)
        keys = [[behaviour_hash(t) for t in side] for side in (first, second)]
        answers = [
            self._answer(first[n], second[n], score[:, n], choice[:, n], (keys[0][n], keys[1][n]), reference)
            for n in range(len(first))
        ]
        return np.array(answers, dtype=np.float64)

    def _answer(
        self,
        first: Trajectory,
        second: Trajectory,
        score: np.ndarray,
        choice: np.ndarray,
        keys: tuple[str, str],
        reference: Reference | None,
    ) -> float:
        """One pair in B-Pref's order; `score` and `choice` (2,) are undiscounted and what the choice is made by."""
        if keys[0] == keys[1]:
            return 0.5
        steps = (len(first) + len(second)) / 2
        if "skip" in self.strengths:
            assert reference is not None
            if score.max() <= self._threshold("skip", steps, reference):
                return math.nan
        if "equal" in self.strengths:
            assert reference is not None
            if abs(score[0] - score[1]) < self._threshold("equal", steps, reference):
                return 0.5
        # Noise is drawn for the pair in one fixed order, so that the swapped question gets the swapped answer.
        swapped = keys[0] > keys[1]
        difference = float(choice[1] - choice[0] if swapped else choice[0] - choice[1])
        prob = self._noisy(difference, (min(keys), max(keys)), reference)
        return 1 - prob if swapped else prob

    def _noisy(self, difference: float, keys: tuple[str, str], reference: Reference | None) -> float:
        """Choice, then mistake, for a score difference."""
        choose, flip = _uniforms(self.seed, keys)
        if "boltzmann" in self.strengths:
            beta = self.strengths["boltzmann"]
            if self.beta_over_std:
                assert reference is not None
                beta /= max(reference.std, 1e-12)
            prob = 0.5 * (1 + math.tanh(beta * difference / 2))  # the sigmoid, without overflow
            if self.sample:
                prob = float(choose < prob)
        else:
            prob = 0.5 + 0.5 * float(np.sign(difference))
        mistake = self.strengths.get("mistake", 0.0)
        if not self.sample:
            return (1 - mistake) * prob + mistake * (1 - prob)
        return 1 - prob if flip < mistake else prob

    def _threshold(self, name: str, steps: float, reference: Reference) -> float:
        """eps * mean score * T / horizon as in B-Pref. Where scores are not sums of rewards above zero that means
        nothing, so there it is the eps-quantile: of scores (skip) or of score differences (equal)."""
        eps = self.strengths[name]
        if self.criterion == "return" and reference.per_step > 0:
            return eps * reference.per_step * steps
        if name == "skip":
            return float(np.quantile(reference.scores, eps)) if eps else -math.inf
        return float(np.quantile(_differences(reference.scores), eps)) if eps else 0.0

    def _choice_scores(self, trajectories: Sequence[Trajectory], score: np.ndarray) -> np.ndarray:
        """What the choice is made by: for a myopic teacher, step t counts gamma^(T - 1 - t)."""
        if "myopic" not in self.strengths:
            return score
        gamma = self.strengths["myopic"]
        return np.array([(self._steps(t) * gamma ** np.arange(len(t) - 1, -1, -1)).sum() for t in trajectories])

    def _steps(self, trajectory: Trajectory) -> np.ndarray:
        """Score of each step, (T,) float64."""
        if self.criterion == "return":
            if not np.isfinite(trajectory.reward).all():
                raise InputError(
                    "Teacher: got a reward of NaN or infinity, wanted numbers. Judge by regret or success."
                )
            return trajectory.reward.astype(np.float64)
        expert = trajectory.extra.get(EXPERT)
        if expert is None or expert.shape != trajectory.action.shape:
            got = "no" if expert is None else f"the shape {expert.shape} for"
            raise InputError(
                f"Teacher(criterion=regret): got {got} extra[{EXPERT!r}] in a trajectory, wanted "
                f"{trajectory.action.shape}.\nCollect with the expert's actions, or judge by return or success."
            )
        return -((trajectory.action.astype(np.float64) - np.clip(expert, -1.0, 1.0)) ** 2).sum(axis=1)

    def _needs_reference(self) -> bool:
        return self.beta_over_std or "skip" in self.strengths or "equal" in self.strengths

    def _reference(self, trajectories: Sequence[Trajectory]) -> Reference:
        if not trajectories:
            raise InputError("Teacher.fit: got no trajectory, wanted at least 1.")
        # Each content once and in one order: neither repeats nor the order of questions may move a threshold.
        distinct = {behaviour_hash(t): t for t in trajectories}
        ordered = [distinct[key] for key in sorted(distinct)]
        scores = self.scores(ordered)
        steps = sum(len(t) for t in ordered)
        return Reference(float(scores.sum() / steps), float(scores.std() * math.sqrt(2)), np.sort(scores))


def _success_score(trajectory: Trajectory) -> float:
    """0 for a failure, else in (1, 2], falling with the step of the first success."""
    steps = np.flatnonzero(trajectory.success)
    return 1 + 1 / (1 + float(steps[0])) if len(steps) else 0.0


def _differences(scores: np.ndarray) -> np.ndarray:
    """|score_i - score_j| of all pairs of (at most 512 evenly spaced) sorted scores."""
    if len(scores) > _MOST:
        scores = scores[np.linspace(0, len(scores) - 1, _MOST).round().astype(int)]
    i, j = np.triu_indices(len(scores), 1)
    return scores[j] - scores[i] if len(i) else np.zeros(1)


def _uniforms(seed: int, keys: tuple[str, str]) -> np.ndarray:
    """Two uniform numbers that belong to a seed and an unordered pair: (2,)."""
    digest = hashlib.sha256(f"{seed} {keys[0]} {keys[1]}".encode()).digest()
    words = np.frombuffer(digest, dtype="<u8")[:2]
    return (words >> np.uint64(11)) * 2.0**-53


def _known(what: str, name: str, known: Sequence[str]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else "Choose one of them."
        raise InputError(f"Teacher.{what}: got {name!r}, wanted one of {', '.join(known)}. {hint}")
