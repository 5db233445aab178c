"""The report of a run that ends with rewards or carried labels and trains no policy: its tables, its plots, its command, in one file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from robopref.data.files import write_text

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Name, header, rows."""
NOTES = {
    "calibration": "Predicted probability against how often the first was preferred; on the diagonal a probability means what it says.",
    "films": "Plans of optimal transport between held-out films (rows: time) and the nearest preferred film (columns), from the best film to the "
    "worst by the hidden score. A film that does what was preferred runs along the diagonal.",
    "diagonality": "How far each held-out film's plan runs along the diagonal (1: on it, 0: as a uniform plan) against its hidden score.",
    "frontier": "Success against cost, one point a weight with 95% intervals; the base is the cross. Right of and below the dotted lines less is "
    "saved, or more success lost, than is promised.",
    "coupling": "Which source episode was matched with which target episode, both sorted from worst to best: mass near the diagonal "
    "means that good meets good. The target's returns are read for this picture only.",
}  # fmt: skip
"""Name of a figure -> how to read it."""


def write(run: Path, title: str, tables: Sequence[Table], figures: Sequence[Path], command: str) -> Path:
    """Write RUN/report.html; figures that do not exist are left away. Returns its path."""
    import jinja2

    source = files("robopref.stages").joinpath("reward_page.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    shown = [(path.stem, NOTES.get(path.stem, ""), _embedded(path)) for path in figures if path.is_file()]
    html = environment.from_string(source).render(title=title, tables=tables, figures=shown, command=command)
    write_text(run / "report.html", html)
    return run / "report.html"


def quality_table(name: str, measures: Mapping[str, Mapping[str, Any]]) -> Table:
    """Rows of `quality`-like measures {name: {accuracy, ci95, ece, brier, decided}}."""
    rows = [
        (
            key, "undecided" if one["accuracy"] is None else f"{one['accuracy']:.1%}",
            f"{one['ci95'][0]:.1%} to {one['ci95'][1]:.1%}", f"{one['ece']:.3f}", f"{one['brier']:.3f}", str(one["decided"]),
        )
        for key, one in measures.items()
    ]  # fmt: skip
    return name, ("reward", "accuracy", "95% interval", "ECE", "Brier", "decided pairs"), rows


def _embedded(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
