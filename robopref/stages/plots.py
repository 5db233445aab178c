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
    """Winners' and losers' likelihood relative to the round's reference over steps; held-out ones dashed."""
    if not any("align/rho_winner" in row or "guard/rho_winner" in row for row in rows):
        return None

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, linewidth=0.8)
        for side, colour, name in (("winner", GOOD, "preferred"), ("loser", BAD, "not preferred")):
            _curve(axes, rows, f"align/rho_{side}", colour, name)
            _curve(axes, rows, f"guard/rho_{side}", colour, f"{name}, held out", dashed=True)

    return themed("likelihood", draw, "gradient step", "log-likelihood vs. reference")


def line(
    rows: Sequence[Row], key: str, ylabel: str, level: float | None = None, held_out: str | None = None
) -> str | None:
    """One logged number over steps, with a faint line at `level` and a dashed held-out twin; None if never logged."""
    known = [row for row in rows if isinstance(row.get(key), int | float)]
    if len(known) < 2:
        return None
    # A number logged once per round has no steps worth an axis.
    by_round = len({row.get("round") for row in known}) == len(known)

    def draw(axes: Axes) -> None:
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=0.8)
        if by_round:
            x = [row["round"] for row in known]
            axes.plot(x, [row[key] for row in known], color=ACCENT, marker="o", markersize=5, linewidth=2)
            axes.set_xticks(x)
            return
        _curve(axes, rows, key, ACCENT, "training" if held_out else None)
        if held_out:
            _curve(axes, rows, held_out, ACCENT, "held out", dashed=True)

    return themed(re.sub(r"\W", "-", key), draw, "round" if by_round else "gradient step", ylabel)


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
        for n, row in zip(numbers, known, strict=True):
            if "ci95_after" in row:
                colour = GOOD if row.get("accepted") else BAD
                axes.plot([n, n], _floats(row["ci95_after"], 100), color=colour, linewidth=1, alpha=0.6)
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
        figure = Figure(figsize=(4.8, 3.0), layout="constrained")
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
            # Above the axes, where it hides no curve.
            figure.legend(frameon=False, labelcolor=INK, loc="outside upper left", ncols=2, fontsize=9)
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


def _offsets(rows: Sequence[Row]) -> dict[Any, float]:
    """round -> steps before it, in the order of the log; rounds lie end to end on the axis."""
    longest: dict[Any, float] = {}
    for row in rows:
        longest[row.get("round")] = max(longest.get(row.get("round"), 0.0), float(row.get("step", 0)))
    total, offsets = 0.0, {}
    for number, steps in longest.items():
        offsets[number] = total
        total += steps
    return offsets


def _curve(axes: Axes, rows: Sequence[Row], key: str, colour: str, label: str | None, dashed: bool = False) -> None:
    """A logged number, round by round: faintly, with its running mean on top where noise would hide the trend."""
    import numpy as np

    offsets = _offsets(rows)
    for index, (number, offset) in enumerate(offsets.items()):
        part = sorted((row["step"], row[key]) for row in rows if row.get("round") == number and key in row)
        x, values = offset + np.array([step for step, _ in part]), np.array(_floats([value for _, value in part]))
        if index and not dashed:
            axes.axvline(offset, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        width = len(values) // 12
        if width >= 3 and not dashed:
            axes.plot(x, values, color=colour, linewidth=0.8, alpha=0.3)
            padded = np.pad(values, (width // 2, width - 1 - width // 2), mode="edge")
            values = np.convolve(padded, np.ones(width) / width, "valid")
        style = (0, (4, 2)) if dashed else "-"
        name = label if index == 0 and part else None
        axes.plot(x, values, color=colour, linewidth=1.2 if dashed else 2, linestyle=style, label=name)


def _floats(values: Sequence[Any], scale: float = 1.0) -> list[float]:
    return [float("nan") if value is None else scale * float(value) for value in values]
