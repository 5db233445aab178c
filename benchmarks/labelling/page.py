"""The page in Debian's Chromium: key to first frame of both next clips with a far server, a scripted labeller, synchrony."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from . import painted
from .browser import SAVED, driver, launched, opened, press
from .rows import at_least, at_most
from .server import dataset, serving


def latency(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `key_to_frame_p95_ms`, `key_to_frame_p99_ms`, `keys_per_answer`."""
    with _browser() as (browser, folder):
        return _latency(browser, dataset(folder / "store", 40), 40 if quick else 500)


def scripted(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Row `scripted_answers_per_s`."""
    with _browser() as (browser, folder):
        return _scripted(browser, dataset(folder / "store", 40), 40 if quick else 200)


def synchrony(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `sync_p999_frames`, `sync_max_frames`, `scrubs_on_another_frame`."""
    with _browser() as (browser, folder):
        return _sync(browser, folder / "numbered", quick)


def loaded(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `sync_loaded_p999_frames`, `sync_loaded_max_frames`: with a busy process for every core; `kept_up` are the pictures in which
    the browser itself was within a frame of both clips' clocks."""
    with _browser() as (browser, folder), _busy(os.cpu_count() or 1), serving(painted.numbered(folder / "numbered"), "minimum=0", "strategy=random") as server:  # fmt: skip
        page = _page(browser, server.link)
        samples = painted.both_playing(page.evaluate(painted.WATCH, 5000 if quick else 60_000))
        page.context.close()
    apart, kept = (np.abs(s[:, 0] - s[:, 1]) for s in (samples, painted.kept_up(samples)))
    if not len(apart):
        raise RuntimeError("no picture showed both clips playing: the machine is too busy")
    told = {"frames": len(apart), "kept_up": len(kept), "kept_up_max": int(kept.max(initial=0)), "busy": os.cpu_count()}
    return {
        "sync_loaded_p999_frames": at_most(float(np.quantile(apart, 0.999)), 1, **told), "sync_loaded_max_frames": at_most(int(apart.max()), 2)
    }  # fmt: skip


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that do nothing but take time."""
    working = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for one in working:
            one.kill()
            one.wait()


@contextmanager
def _browser() -> Iterator[tuple[Any, Path]]:
    with tempfile.TemporaryDirectory() as name, driver() as playwright, launched(playwright) as browser:
        yield browser, Path(name)


def _page(browser: Any, link: str) -> Any:
    return opened(browser.new_context(viewport={"width": 1200, "height": 850}), link)


def _latency(browser: Any, root: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Press, wait for both first frames, look for a moment, press again; the server answers 100 ms late."""
    with serving(root, "delay=100", "minimum=0", "pairs=700", "repeats=0", "strategy=random") as server:
        page = _page(browser, server.link)
        page.wait_for_timeout(1500)
        spent = []
        for n in range(steps):
            press(page, ("ArrowLeft", "ArrowRight", "ArrowUp")[n % 3])
            spent.append(page.evaluate("window.painted.at(-1) - window.pressed.at(-1)"))
            page.wait_for_timeout(600)
        page.wait_for_function(SAVED)
        done = int(page.inner_text("#progress-text").split()[0])
        page.context.close()
        told = {"steps": steps, "p50": round(float(np.median(spent)), 1)}
        return {
            "key_to_frame_p95_ms": at_most(float(np.quantile(spent, 0.95)), 50, **told),
            "key_to_frame_p99_ms": at_most(float(np.quantile(spent, 0.99)), 150),
            "keys_per_answer": at_most(steps / max(1, done), 1),
        }


def _scripted(browser: Any, root: Path, count: int) -> dict[str, dict[str, Any]]:
    """A script that presses as soon as the next question is there."""
    with serving(
        root, "minimum=0", "pairs=780", "repeats=0", "strategy=random", "prefetch=8", "annotator=fast"
    ) as server:
        page = _page(browser, server.link)
        page.wait_for_timeout(1500)
        begin = time.perf_counter()
        page.evaluate(
            """(count) => new Promise((done) => { let left = count;
              const go = () => { if (left-- === 0) { done(); return; } document.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true })); };
              document.addEventListener('firstframe', () => setTimeout(go, 0)); go(); })""",
            count,
        )  # fmt: skip
        page.wait_for_function(SAVED)
        spent = time.perf_counter() - begin
        page.context.close()
        return {"scripted_answers_per_s": at_least(count / spent, 10, answers=count)}


def _sync(browser: Any, root: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Frame numbers read from the painted pictures of two clips of unequal length, while playing and after joint scrubs."""
    with serving(painted.numbered(root), "minimum=0", "strategy=random") as server:
        page = _page(browser, server.link)
        seen = page.evaluate(painted.WATCH, 5000 if quick else 60_000)
        samples = painted.both_playing(seen)
        apart = np.abs(samples[:, 0] - samples[:, 1])
        if not len(apart):
            raise RuntimeError(f"of {len(seen)} pictures none showed both clips playing: the machine is too busy")
        shorter = int(np.max(seen, axis=0)[:2].min())
        rng = np.random.default_rng(0)
        last, wrong = int(page.inner_text("#frame").split("/")[1]), 0
        for _ in range(10 if quick else 100):
            frame = int(rng.integers(last))
            page.evaluate(painted.SCRUB, frame)
            page.wait_for_timeout(200)
            wrong += sorted(page.evaluate(painted.READ)) != sorted([frame, min(frame, shorter)])
        rows = {
            "sync_p999_frames": at_most(float(np.quantile(apart, 0.999)), 1, frames=len(apart)), "sync_max_frames": at_most(int(apart.max()), 2),
            "scrubs_on_another_frame": at_most(wrong, 0),
        }  # fmt: skip
        page.context.close()
        return rows
