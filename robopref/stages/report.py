"""A finished run as one self-contained page: what was asked, what was learned, what is proven, how to redo it."""

from __future__ import annotations

import base64
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.data.files import read_json, write_text
from robopref.stages import plots
from robopref.stages.verdict import WHO, comparisons, interval, p_value, percent, points, rates, shown_order, verdict

_MEDIA = {".mp4": "video/mp4", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_VIDEO_PAIRS = 6
_VIDEO_BYTES = 24_000_000
"""More than this and a browser is slow to open the page; the rest stays in RUN/videos."""
_UNKNOWN: dict[str, Any] = {
    "task": "", "seed": "?", "experiment": "", "labels_asked": 0, "episodes_judged": 0, "tests": [], "guard": [], "choice": {},
    "base_search": [], "notes": [], "seconds": {}, "command": "the command was not recorded",
}  # fmt: skip
"""What is shown for keys that a metrics.json lacks."""
CARDS = 12
"""Pairs shown with pictures; all of them are in the table below."""


def report(run: Path) -> Path:
    """Write RUN/report.html from what the run left behind and return its path; nothing is trained or evaluated.

    Only RUN/metrics.json is needed; every other part is shown where its file exists.
    Raises `InputError` when metrics.json is missing or is none.
    """
    import jinja2
    from markupsafe import Markup

    metrics, outcomes = read_run(run)
    tests = comparisons(metrics, outcomes.get("success", {}))
    source = files("robopref.stages").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "percent": percent,
        "points": points,
        "p_value": p_value,
        "interval": interval,
        "rates": rates,
    }
    curves = [(title, text, Markup(svg)) for title, text, svg in _curves(_log(run))]
    guard = [row for row in metrics.get("guard", []) if row.get("arm", "aligned") == "aligned"]
    guard_plot = plots.rounds(guard)
    html = environment.from_string(source).render(
        metrics=metrics,
        order=shown_order(metrics["policies"]),
        who=WHO,
        tests=tests,
        verdict=verdict(metrics, tests),
        asked=_asked(run, metrics),
        pairs=_pairs(run),
        cards=CARDS,
        curves=curves,
        guard=guard,
        guard_plot=Markup(guard_plot) if guard_plot else None,
        videos=_videos(run, outcomes),
        figures=[(path.stem, _embed(run, path)) for path in sorted((run / "figures").glob("*.png"))],
        seconds=_seconds(metrics),
    )
    write_text(run / "report.html", html)
    return run / "report.html"


def read_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(metrics, outcomes) of a run folder; outcomes is empty where evaluation/outcomes.json does not exist."""
    path = run / "metrics.json"
    if not path.is_file():
        raise InputError(f"{run}: got no metrics.json, wanted the folder of a finished run.\nRun its command again.")
    metrics = read_json(path)
    if not isinstance(metrics, dict) or not isinstance(metrics.get("policies"), dict) or not metrics["policies"]:
        raise InputError(f"{path}: got no `policies`, wanted the metrics of a pipeline run.\nRun its command again.")
    outcomes = run / "evaluation" / "outcomes.json"
    metrics = _UNKNOWN | {key: value for key, value in metrics.items() if value is not None}
    return metrics, read_json(outcomes) if outcomes.is_file() else {}


def _log(run: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl; a last line torn by a kill is left out."""
    path = run / "log.jsonl"
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def _curves(log: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(title, how to read it, SVG) of every curve that was logged."""
    align = [
        row for row in log if row.get("arm") == "aligned" and any(key.startswith(("align/", "guard/")) for key in row)
    ]
    clone = [row for row in log if "clone/loss" in row and row.get("arm", "base") in ("base", "", None)]
    reward = [row for row in log if row.get("arm") == "aligned" and any(key.startswith("reward/") for key in row)]
    drawn = [
        (
            "Winners and losers",
            "Relative to the policy that the round started from. If both sink, the policy forgets.",
            plots.likelihood(align),
        ),
        (
            "Pairs in the right order",
            "Share of pairs whose preferred side became the likelier one.",
            plots.line(align, "align/pair_accuracy", "pair accuracy", 0.5, "guard/pair_accuracy"),
        ),
        (
            "Distance from the reference",
            "KL surrogate: how much less likely held-out rollouts of the reference became, per action element.",
            plots.line(align, "guard/kl", "KL surrogate", 0.0),
        ),
        ("Alignment loss", "The loss that was minimised.", plots.line(align, "align/loss", "loss")),
        (
            "Learned reward",
            "Share of pairs that the reward model ranks as the teacher did.",
            plots.line(reward, "reward/accuracy", "pair accuracy", 0.5),
        ),
        ("Cloning the base", "Denoising loss of the base policy.", plots.line(clone, "clone/loss", "loss")),
    ]
    return [(title, text, svg) for title, text, svg in drawn if svg is not None]


def _asked(run: Path, metrics: dict[str, Any]) -> dict[str, str]:
    """Who was asked, and what: from the metrics, else from the resolved configuration."""
    from omegaconf import OmegaConf

    asked = {"teacher": str(metrics.get("teacher") or ""), "question": str(metrics.get("question") or ""), "scored": ""}
    path = run / "config.yaml"
    config = OmegaConf.to_container(OmegaConf.load(path), resolve=False) if path.is_file() else {}
    config = config if isinstance(config, dict) else {}
    if config.get("rank_by") == "scores":  # nothing was compared, and a score may read what answers do not
        asked |= {"question": asked["question"] or "How good is this trajectory?", "scored": "yes"}
    if not asked["teacher"]:
        labeler = config.get("labeler")
        if isinstance(labeler, dict):
            knobs = ", ".join(
                f"{key!s}={value!s}" for key, value in labeler.items() if key != "_target_" and value is not None
            )
            name = str(metrics.get("labeler") or str(labeler.get("_target_", "")).rpartition(".")[2])
            asked["teacher"] = f"{name} ({knobs})" if knobs else name
    return asked


def _pairs(run: Path) -> list[dict[str, Any]]:
    path = run / "pairs.json"
    pairs = read_json(path) if path.is_file() else []
    return [
        pair | {f"{side}_src": _embed(run, pair.get(f"{side}_thumb")) for side in ("first", "second")} for pair in pairs
    ]


def _videos(run: Path, outcomes: dict[str, Any]) -> list[dict[str, Any]]:
    """Base and aligned side by side, one entry per reset that both were filmed on."""
    shown: list[dict[str, Any]] = []
    size = 0
    for base in sorted((run / "videos").glob("base_*.mp4"), key=lambda path: (len(path.name), path.name)):
        seed = base.stem.removeprefix("base_")
        aligned = base.with_name(f"aligned_{seed}.mp4")
        if not aligned.is_file() or len(shown) == _VIDEO_PAIRS:
            continue
        size += base.stat().st_size + aligned.stat().st_size
        if size > _VIDEO_BYTES:
            break
        films = [
            (name, _embed(run, path), _succeeded(outcomes, name, seed))
            for name, path in (("base", base), ("aligned", aligned))
        ]
        shown.append({"seed": seed, "films": films})
    return shown


def _succeeded(outcomes: dict[str, Any], policy: str, seed: str) -> bool | None:
    """Whether the evaluated episode of this reset succeeded; None if the reset was not an evaluated one."""
    seeds = [str(value) for value in outcomes.get("seeds", [])]
    success = outcomes.get("success", {}).get(policy)
    return bool(success[seeds.index(seed)]) if success and seed in seeds else None


def _embed(run: Path, path: Path | str | None) -> str | None:
    """A file of the run as a data URI; None for what is missing, foreign to the run or of another kind."""
    if path is None:
        return None
    if isinstance(path, str) and re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", path):
        return path
    full = (run / path).resolve() if isinstance(path, str) else path.resolve()
    kind = _MEDIA.get(full.suffix.lower())
    if kind is None or not full.is_relative_to(run.resolve()) or not full.is_file():
        return None
    return f"data:{kind};base64,{base64.b64encode(full.read_bytes()).decode('ascii')}"


def _seconds(metrics: dict[str, Any]) -> list[tuple[str, str, float]]:
    """(stage, readable time, share of the longest) in the order in which the stages ran."""
    seconds: dict[str, float] = metrics.get("seconds", {})
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(stage, clock(value), value / longest) for stage, value in seconds.items()]


def clock(seconds: float) -> str:
    """75 -> `1 min 15 s`, 3.2 -> `3.2 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
