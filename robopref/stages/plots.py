"""Curves of a report as inline SVG whose colours follow the page (light or dark), drawn by matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# matplotlib knows no CSS variables: it draws with these stand-ins, which are exchanged in the SVG text.
INK, MUTED, GRID, GOOD, BAD, ACCENT = (f"#0{i}0{i}0{i}" for i in range(1, 7))
_PAGE = {INK: "--ink", MUTED: "--muted", GRID: "--line", GOOD: "--good", BAD: "--bad", ACCENT: "--accent"}

Row = Mapping[str, Any]


def likelihood(rows: Sequence[Row]) -> str | None:
    """Winners' and losers' likelihood relative to the reference over steps, from `align/rho_first|second`."""
    x, breaks = _steps(rows)

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        _curve(axes, x, [row.get("align/rho_first") for row in rows], GOOD, "preferred")
        _curve(axes, x, [row.get("align/rho_second") for row in rows], BAD, "not preferred")
        _rounds(axes, breaks)

    has = any("align/rho_first" in row for row in rows)
    return themed("likelihood", draw, "gradient step", "log-likelihood vs. reference") if has else None


def line(rows: Sequence[Row], key: str, ylabel: str, level: float | None = None, xlabel: str = "step") -> str | None:
    """One logged number over steps, with a faint line at `level`; None if it was never logged."""
    rows = [row for row in rows if isinstance(row.get(key), int | float)]
    if len(rows) < 2:
        return None
    x, breaks = _steps(rows)

    def draw(axes: Axes) -> None:
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=0.8)
        _curve(axes, x, [row[key] for row in rows], ACCENT, None)
        _rounds(axes, breaks)

    return themed(re.sub(r"\W", "-", key), draw, xlabel, ylabel)


def rounds(guard: Sequence[Row]) -> str | None:
    """Success on the guard's resets after each round: what was kept as a line, what was rolled back as crosses."""
    known = [row for row in guard if row.get("success_after") is not None]
    if not known:
        return None
    kept = [known[0].get("success_before")]
    for row in known:
        kept.append(row["success_after"] if row.get("accepted") else kept[-1])
    numbers = [row.get("round", index + 1) for index, row in enumerate(known)]
    ticks = [numbers[0] - 1, *numbers]
    refused = [(n, row["success_after"]) for n, row in zip(numbers, known, strict=True) if not row.get("accepted")]

    def draw(axes: Axes) -> None:
        axes.plot(ticks, _floats(kept, 100), color=GOOD, marker="o", markersize=5, linewidth=2, label="kept")
        if refused:
            x, y = zip(*refused, strict=True)
            axes.plot(x, _floats(y, 100), "x", color=BAD, markersize=7, markeredgewidth=2, label="rolled back")
        axes.set_ylim(0, 100)
        axes.set_xticks(ticks, ["start", *map(str, numbers)])

    return themed("rounds", draw, "round", "success on guard resets, %")


def themed(name: str, draw: Callable[[Axes], None], xlabel: str, ylabel: str) -> str:
    """One small figure as an SVG element without ids, fonts or addresses that could clash with the page."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "axes.unicode_minus": True}
    with mpl.rc_context(style):
        figure = Figure(figsize=(4.8, 2.9), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        figure.patch.set_alpha(0)
        axes.patch.set_alpha(0)
        draw(axes)
        axes.set_xlabel(xlabel, color=MUTED)
        axes.set_ylabel(ylabel, color=MUTED)
        axes.tick_params(colors=MUTED, length=0)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(GRID)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, labelcolor=INK, loc="best")
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return _inline(buffer.getvalue(), name, f"{ylabel} over {xlabel}")


def _inline(svg: str, name: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = (
        re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg.split(">", 1)[0]) + ">" + svg.split(">", 1)[1]
    )
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: (\d[\d.]*px)[^;\"]*", r"font-size: \1; font-family: inherit", svg)
    for colour, variable in _PAGE.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg", f'<svg class="plot" role="img" aria-label="{title}"', 1)


def _steps(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    """A running step number for each row, and where a new round begins (steps restart there)."""
    x: list[float] = []
    breaks: list[float] = []
    offset = previous = 0.0
    for index, row in enumerate(rows):
        step = float(row.get("step", index))
        if index and (step < previous or row.get("round") != rows[index - 1].get("round")):
            if step <= previous:
                offset += previous
            breaks.append(offset + step if step > previous else offset)
        previous = step
        x.append(offset + step)
    return x, breaks


def _curve(axes: Axes, x: Sequence[float], y: Sequence[Any], colour: str, label: str | None) -> None:
    """The logged values faintly, and their running mean on top once there are enough of them to hide the trend."""
    import numpy as np

    values = np.array(_floats(y))
    width = len(values) // 25
    if width < 3:
        axes.plot(x, values, color=colour, linewidth=2, label=label)
        return
    axes.plot(x, values, color=colour, linewidth=0.8, alpha=0.3)
    padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
    axes.plot(x, np.convolve(padded, np.ones(width) / width, "valid"), color=colour, linewidth=2, label=label)


def _rounds(axes: Axes, breaks: Sequence[float]) -> None:
    for at in breaks:
        axes.axvline(at, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))


def _floats(values: Sequence[Any], scale: float = 1.0) -> list[float]:
    return [float("nan") if value is None else scale * float(value) for value in values]
