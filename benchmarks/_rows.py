"""Rows of a benchmark: what was measured, its target, and whether it was reached."""

from __future__ import annotations

import math
from typing import Any

Row = dict[str, Any]


def most(value: float, target: float, **more: Any) -> Row:
    """A row that must not exceed its target."""
    return {"measured": figure(value), "target": target, "ok": bool(value <= target), **more}


def least(value: float, target: float, **more: Any) -> Row:
    """A row that must reach its target."""
    return {"measured": figure(value), "target": target, "ok": bool(value >= target), **more}


def figure(value: float) -> float | None:
    """Six digits, however small: a millionth is not nothing. None for what never came: JSON has no infinity."""
    return float(f"{float(value):.6g}") if math.isfinite(value) else None


def told(value: float, ok: bool = True, **more: Any) -> Row:
    """A row without a target; `ok` where something else can be wrong."""
    return {"measured": figure(value), "target": None, "ok": ok, **more}
