"""How a measured number becomes a row of bench.json."""

from __future__ import annotations

from typing import Any


def at_most(measured: float, target: float, **more: Any) -> dict[str, Any]:
    """Good when not larger than the target."""
    return {"measured": round(float(measured), 4), "target": target, "ok": bool(measured <= target), **more}


def at_least(measured: float, target: float, **more: Any) -> dict[str, Any]:
    """Good when not smaller than the target."""
    return {"measured": round(float(measured), 4), "target": target, "ok": bool(measured >= target), **more}
