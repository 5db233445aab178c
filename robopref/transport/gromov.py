"""One global Gromov-Wasserstein problem between the trajectories of two tasks, and preferences carried along its plan.

GW^2 = min_T sum (Cs_ik - Ct_jl)^2 T_ij T_kl (Peyre et al. 2016), solved exactly by POT from several starts. PEARL (Liu et al. 2023) moves
labels by z = T_j^T Z T_j', which is not normalised: under a perfect match of N trajectories a label of 1 becomes 1 / N^2. Here columns of
the plan are divided by their mass, and labels are antisymmetric: R = 2 P - 1, S = That^T R That. A perfect match gives S = R.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from robopref.arrays import InputError, check_shape


@dataclass(frozen=True)
class Coupling:
    """A transport plan between the trajectories of two tasks."""

    plan: np.ndarray
    """(Ns, Nt), sums to 1; rows sum to 1 / Ns, columns to 1 / Nt."""
    cost: float
    """Gromov-Wasserstein discrepancy; 0 for tasks that look alike up to a relabelling."""


def couple(
    source: np.ndarray,
    target: np.ndarray,
    cross: np.ndarray | None = None,
    fused: float = 0.0,
    starts: int = 3,
    seed: int = 0,
) -> Coupling:
    """The best coupling of distances (Ns, Ns) and (Nt, Nt) over `starts` starts: the product plan, then random ones.

    cross (Ns, Nt) with fused > 0: fused Gromov-Wasserstein, where a share `fused` of the cost is a distance across the tasks, which tells
    apart mirror images that distances within a task cannot. Raises `InputError` for wrong shapes.
    """
    import ot

    do = "Give one square matrix of distances per task."
    rows, columns = len(source), len(target)
    check_shape("couple", "source", source.shape, (rows, rows), do)
    check_shape("couple", "target", target.shape, (columns, columns), do)
    if fused and cross is None:
        raise InputError(f"couple: got fused={fused} without a cost across the tasks, wanted cross (Ns, Nt).")
    if cross is not None:
        check_shape("couple", "cross", cross.shape, (rows, columns), "One cost per source and target trajectory.")
    u, v = np.full(rows, 1 / rows), np.full(columns, 1 / columns)
    best: Coupling | None = None
    for start in _starts(u, v, starts, np.random.default_rng(seed)):
        with warnings.catch_warnings():  # POT says where rounding ends its line search
            warnings.simplefilter("ignore")
            if fused and cross is not None:
                plan, log = ot.gromov.fused_gromov_wasserstein(
                    cross, source, target, u, v, "square_loss", alpha=1 - fused, G0=start, log=True
                )
                cost = float(log["fgw_dist"])
            else:
                plan, log = ot.gromov.gromov_wasserstein(source, target, u, v, "square_loss", G0=start, log=True)
                cost = float(log["gw_dist"])
        if best is None or cost < best.cost:
            best = Coupling(np.asarray(plan), cost)
    assert best is not None
    return best


def _starts(u: np.ndarray, v: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """The product plan and `count` - 1 random plans, scaled to the marginals (Sinkhorn and Knopp 1967)."""
    made = [u[:, None] * v[None]]
    for _ in range(count - 1):
        plan = rng.random((len(u), len(v))) ** 4 + 1e-6
        for _ in range(200):
            plan *= (u / plan.sum(axis=1))[:, None]
            plan *= (v / plan.sum(axis=0))[None]
        plan *= (u / plan.sum(axis=1))[:, None]
        made.append(plan)
    return made


def smoothed(plan: np.ndarray, target: np.ndarray, width: float) -> np.ndarray:
    """Columns of a plan divided by their mass and averaged over target neighbours: (Ns, Nt), columns sum to 1.

    target (Nt, Nt): distances, largest 1. width: of the Gaussian neighbourhood, in the same units; 0 averages nothing. Without it, the
    exact plan of equally many trajectories is a permutation, and carried labels know no doubt.
    """
    mass = plan / np.maximum(plan.sum(axis=0, keepdims=True), 1e-300)
    if width <= 0:
        return mass
    near = np.exp(-((target / width) ** 2))
    return mass @ (near / near.sum(axis=1, keepdims=True)).T


def carried(mass: np.ndarray, relation: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Preferences of the source on the target: S = That^T R That, (Nt, Nt), antisymmetric, in [-1, 1].

    mass (Ns, Nt): columns sum to 1. relation (Ns, Ns): R = 2 P(first preferred) - 1, antisymmetric, 0 where unknown. known (Ns, Ns): 1 where
    a label exists; what it leaves uncovered is divided out. Raises `InputError` when `relation` is not antisymmetric.
    """
    if not np.allclose(relation, -relation.T, atol=1e-9):
        raise InputError("carried: got labels that are not antisymmetric, wanted R = 2 prob_first - 1 with R = -R^T.")
    moved = mass.T @ relation @ mass
    if known is not None:
        covered = mass.T @ known @ mass
        moved = np.divide(moved, covered, out=np.zeros_like(moved), where=covered > 1e-9)
    return np.clip((moved - moved.T) / 2, -1.0, 1.0)
