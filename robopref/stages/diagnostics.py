"""Pictures that say whether a reward or a transfer can be trusted: reliability diagrams and couplings, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robopref import statistics
from robopref.data.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability(path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Predicted P(first) against how often first was preferred, one curve per name of (prob (n,), prob_first (n,))."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for name, (prob, prob_first) in curves.items():
            bins = statistics.calibration_bins(prob, prob_first)
            error = statistics.calibration_error(prob, prob_first)
            x, y = [b[0] for b in bins], [b[1] for b in bins]
            axes.plot(x, y, marker="o", markersize=4, label=f"{name} (ECE {error:.3f}, n = {len(prob)})")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.legend(fontsize=8, frameon=False)

    return _figure(path, draw, "predicted P(first preferred)", "first preferred")


def coupling(
    path: Path, plans: Mapping[str, np.ndarray], source_rank: Mapping[str, np.ndarray], rank: np.ndarray
) -> Path:
    """Plans (Ns, Nt) with both sides sorted by their true return: mass near the diagonal means that good meets good.

    The target's return is read here only, after the labels are fixed.
    """
    count = len(plans)

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        for index, (name, plan) in enumerate(plans.items()):
            part = axes.inset_axes((index / count, 0.05, 0.92 / count, 0.9))
            sorted_plan = plan[np.argsort(source_rank[name])][:, np.argsort(rank)]
            part.imshow(_blocks(sorted_plan), origin="lower", cmap="magma", aspect="auto")
            part.set_title(name, fontsize=8)
            part.set_xticks([])
            part.set_yticks([])
            part.set_xlabel("target, worst to best", fontsize=7)
            part.set_ylabel("source, worst to best", fontsize=7)

    return _figure(path, draw, "", "", width=4.0 * count)


def film_plans(path: Path, plans: Mapping[str, np.ndarray]) -> Path:
    """Plans (T, T') between films and the preferred film nearest to each, side by side, by name."""
    count = len(plans)

    def draw(axes: Axes) -> None:
        axes.set_axis_off()
        for index, (name, plan) in enumerate(plans.items()):
            part = axes.inset_axes((index / count, 0.05, 0.92 / count, 0.9))
            part.imshow(plan, origin="lower", cmap="magma", aspect="auto")
            part.set_title(name, fontsize=8)
            part.set_xticks([])
            part.set_yticks([])
            part.set_xlabel("preferred film, time", fontsize=7)
            part.set_ylabel("film, time", fontsize=7)

    return _figure(path, draw, "", "", width=3.0 * count)


def scatter(path: Path, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], xlabel: str, ylabel: str) -> Path:
    """Points (x (n,), y (n,)) of named groups."""

    def draw(axes: Axes) -> None:
        for name, (x, y) in groups.items():
            axes.scatter(x, y, s=14, label=f"{name} (n = {len(x)})")
        axes.legend(fontsize=8, frameon=False)

    return _figure(path, draw, xlabel, ylabel)


def _blocks(plan: np.ndarray, most: int = 40) -> np.ndarray:
    """Mass summed over blocks: single couplings of a large plan are too thin to see."""
    rows, columns = (np.array_split(np.arange(n), min(most, n)) for n in plan.shape)
    return np.array([[plan[np.ix_(r, c)].sum() for c in columns] for r in rows])


def _figure(path: Path, draw: Callable[[Any], None], xlabel: str, ylabel: str, width: float = 4.8) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw(axes)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path
