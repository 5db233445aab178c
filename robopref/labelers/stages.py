"""A rater by stages and costs (GRAPE, Zhang et al. 2024): R = w_self R_self + w_external R_ext + w_success I_success.

R_ext = prod over stages exp(-rate sum_c max(0, C_c - tolerance_c)), C_c summed over the stage's steps. R_self is the acting policy's
log-likelihood of the episode where it was recorded. I is the episode's success. The stages come from a specification (`data.stage_spec`).

Difference from the published code: every stage that did not end, begun or not, counts exp(-unfinished) more, so that an episode that
stops early or hovers close by does not look cheap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robopref.arrays import InputError, Trajectory
from robopref.data.stage_spec import AXES, StageSpec, read, ready_spec

LOG_PROB = "log_prob"
"""Per-step feature (T, 1): log-likelihood of what was executed, under the policy that acted."""
_LEAST_LOG_PROB = math.log(0.05)  # GRAPE's code cuts probabilities at 0.05
PUBLISHED = {"self": 0.01, "external": 0.01, "success": 2.0}
"""The paper's weights; its code has 0.01, 1 and 5."""


@dataclass(frozen=True)
class Objective:
    """What an objective does to a kind of cost: factors of its weight and of its tolerance."""

    weight: Mapping[str, float]
    tolerance: Mapping[str, float]


OBJECTIVES = {
    "completion": Objective({}, {}),
    "safety": Objective({"collision": 10.0}, {"collision": 0.0}),
    "efficiency": Objective({"path": 3.0}, {"path": 0.0}),
}
"""GRAPE's objectives: lower collision tolerance for safety, lower path tolerance for efficiency; here their weights rise too."""


@dataclass(frozen=True)
class StageCost:
    """What one stage of one episode cost."""

    name: str
    begin: int
    """First step."""
    end: int
    """One past the last step."""
    reached: bool
    """Whether it began."""
    done: bool
    """Whether its `until` came true."""
    cost: dict[str, float]
    """kind -> rate x weight x max(0, sum - tolerance), summed over terms."""


@dataclass(frozen=True)
class Stages:
    """`label(first, second)` -> prob_first by the higher score; exactly equal scores, and gaps up to `tie`, are ties.

    spec: a file; None takes the package's own for each trajectory's task. objective: completion, safety or efficiency. success: whether
    I_success is the episode's flag or all stages done (for robots that report none). Raises `InputError` for unknown names.
    """

    spec: str | Path | None = None
    objective: str = "completion"
    weights: Mapping[str, float] | None = None
    rate: float = 0.01
    unfinished: float = 1.0
    success: Literal["flag", "stages"] = "flag"
    tie: float = 0.0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InputError(f"Stages.objective: got {self.objective!r}, wanted one of {', '.join(OBJECTIVES)}.")
        if self.success not in ("flag", "stages"):
            raise InputError(f"Stages.success: got {self.success!r}, wanted flag or stages.")
        if not set(self.weights or {}) <= PUBLISHED.keys() or min((self.weights or PUBLISHED).values()) < 0:
            raise InputError(
                f"Stages.weights: got {dict(self.weights or {})}, wanted numbers >= 0 for {', '.join(PUBLISHED)}."
            )
        if min(self.rate, self.unfinished, self.tie) < 0:
            raise InputError(
                f"Stages: got rate={self.rate}, unfinished={self.unfinished}, tie={self.tie}, wanted all >= 0."
            )
        if self.spec is not None:
            read(self.spec)  # a broken file is said now, not after the rollouts

    @property
    def name(self) -> str:
        """What the sidecar's `teacher` column says."""
        return f"stages_{self.objective}"

    def label(self, first: Sequence[Trajectory], second: Sequence[Trajectory]) -> np.ndarray:
        """prob_first (N,) float64: 1, 0 or 0.5."""
        if len(first) != len(second):
            raise InputError(f"Stages.label: got {len(first)} first and {len(second)} second, wanted as many of each.")
        score = self.scores([*first, *second]).reshape(2, -1)  # (2, N)
        gap = score[0] - score[1]
        return np.where(np.abs(gap) <= self.tie, 0.5, (gap > 0).astype(np.float64))

    def scores(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        """R of each trajectory, (N,) float64; higher is better."""
        weights = PUBLISHED | dict(self.weights or {})
        recorded = [LOG_PROB in t.extra for t in trajectories]
        if weights["self"] and any(recorded) and not all(recorded):
            raise InputError(
                f"Stages: got extra[{LOG_PROB!r}] in {sum(recorded)} of {len(recorded)} trajectories, wanted it in all or in none.\n"
                "Record it for all, or set labeler.weights.self=0."
            )
        return np.array([self._score(t, weights) for t in trajectories], dtype=np.float64)

    def costs(self, trajectory: Trajectory) -> list[StageCost]:
        """What each stage of a trajectory cost, in order: what a report or a person wants to see."""
        spec = read(self.spec) if self.spec is not None else ready_spec(trajectory.task)
        scene, at, reached, found = _scene(spec, trajectory), 0, True, []
        for stage in spec.stages:
            if not reached:
                found.append(StageCost(stage["name"], len(trajectory), len(trajectory), False, False, {}))
                continue
            true = np.flatnonzero(_holds(scene, stage["until"])[at:])
            end = at + int(true[0]) if len(true) else len(trajectory)
            found.append(StageCost(stage["name"], at, end, True, bool(len(true)), self._cost(scene, stage, at, end)))
            at, reached = end, bool(len(true))
        return found

    def external(self, trajectory: Trajectory) -> float:
        """R_ext in (0, 1]."""
        each = [sum(s.cost.values()) + (0.0 if s.done else self.unfinished) for s in self.costs(trajectory)]
        return math.exp(-sum(each))

    def _score(self, trajectory: Trajectory, weights: Mapping[str, float]) -> float:
        score = weights["external"] * self.external(trajectory) if weights["external"] else 0.0
        if weights["self"] and LOG_PROB in trajectory.extra:
            score += weights["self"] * float(np.maximum(trajectory.extra[LOG_PROB], _LEAST_LOG_PROB).sum())
        if weights["success"]:
            done = trajectory.succeeded if self.success == "flag" else all(s.done for s in self.costs(trajectory))
            score += weights["success"] * done
        return score

    def _cost(self, scene: dict[str, np.ndarray], stage: dict[str, Any], begin: int, end: int) -> dict[str, float]:
        objective, total = OBJECTIVES[self.objective], dict.fromkeys(("path", "collision", "grasp"), 0.0)
        for term in stage["costs"]:
            kind = term["kind"]
            values = _holds(scene, term["where"]) if "where" in term else _measure(scene, term)
            tolerance = term.get("tolerance", 0.0) * objective.tolerance.get(kind, 1.0)
            weight = term.get("weight", 1.0) * objective.weight.get(kind, 1.0)
            total[kind] += self.rate * weight * max(0.0, float(values[begin:end].sum()) - tolerance)
        return total


def _scene(spec: StageSpec, trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Every named quantity and keypoint of a trajectory, name -> (T, k)."""
    scene: dict[str, np.ndarray] = {}
    for name, given in spec.quantities.items():
        extra = given["extra"] if isinstance(given, dict) else None
        start, end = given["columns"] if isinstance(given, dict) else given
        if extra is not None and extra not in trajectory.extra:
            raise InputError(
                f"Stages: quantity {name!r} wants extra[{extra!r}], which a trajectory of {spec.task} lacks. Record it."
            )
        source = trajectory.observation if extra is None else trajectory.extra[extra]
        if end > source.shape[1]:
            raise InputError(
                f"Stages: quantity {name!r} wants columns [{start}, {end}), got {source.shape[1]} in a trajectory of task "
                f"{trajectory.task!r}. Use the specification of this environment."
            )
        scene[name] = source[:, start:end].astype(np.float64)
    for name, given in spec.keypoints.items():
        point = scene[given["of"]] + np.array(given.get("offset", 0.0))
        scene[name] = np.broadcast_to(point[:1], point.shape) if given.get("at") == "start" else point
    return scene


def _measure(scene: dict[str, np.ndarray], given: Mapping[str, Any]) -> np.ndarray:
    """One number per step, (T,)."""
    if "value" in given:
        name, _, axis = given["value"].partition(".")
        return scene[name][:, AXES[axis] if axis else 0]
    if "distance" in given:
        difference = scene[given["distance"][0]] - scene[given["distance"][1]]
    elif "moved" in given:
        difference = scene[given["moved"]] - scene[given["moved"]][:1]
    else:
        difference = np.diff(scene[given["speed"]], axis=0, prepend=scene[given["speed"]][:1])
    columns = [AXES[axis] for axis in given["axes"]] if "axes" in given else slice(None)
    return np.linalg.norm(difference[:, columns], axis=1)


def _holds(scene: dict[str, np.ndarray], given: Mapping[str, Any]) -> np.ndarray:
    """Whether a condition holds at each step, (T,) bool."""
    if "not" in given:
        return ~_holds(scene, given["not"])
    for name, joined in (("all", np.logical_and), ("any", np.logical_or)):
        if name in given:
            return joined.reduce([_holds(scene, part) for part in given[name]])
    value = _measure(scene, given)
    return (value < given.get("below", math.inf)) & (value > given.get("above", -math.inf))
