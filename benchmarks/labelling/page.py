"""The page in Debian's Chromium: key to first frame of both next clips with a far server, a scripted labeller, synchrony, accessibility."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .rows import at_least, at_most
from .server import dataset, serving

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
_LISTEN = """
window.pressed = []; window.painted = [];
window.addEventListener("keydown", (event) => window.pressed.push(event.timeStamp), true);
document.addEventListener("firstframe", (event) => window.painted.push(event.detail.at));
"""
_READ = """() => [...document.querySelectorAll('.clips:not(.prefetched) video')].map((video) => {
  const canvas = document.createElement('canvas'); canvas.width = canvas.height = 96;
  const pen = canvas.getContext('2d', { willReadFrequently: true }); pen.drawImage(video, 0, 0, 96, 96);
  let number = 0;
  for (let bit = 0; bit < 8; bit++) number = 2 * number + (pen.getImageData(12 * bit + 6, 14, 1, 1).data[0] > 128);
  return number; })"""
_WATCH = "(ms) => new Promise((done) => { const read = " + _READ + "; const seen = [], end = performance.now() + ms; const tick = () => { seen.push(read()); performance.now() < end ? requestAnimationFrame(tick) : done(seen); }; tick(); })"  # fmt: skip


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `key_to_frame_p95_ms`, `_p99_ms`, `scripted_answers_per_s`, `keys_per_answer`, `sync_p999_frames`, `sync_max_frames`, `axe_violations`."""
    with tempfile.TemporaryDirectory() as name, _browser() as browser:
        root = dataset(Path(name) / "store", 40)
        return (
            _latency(browser, root, 40 if quick else 500)
            | _scripted(browser, root, 40 if quick else 200)
            | _sync(browser, Path(name) / "numbered", quick)
        )


@contextmanager
def _browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("needs Debian's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


def _page(browser: Any, link: str) -> Any:
    page = browser.new_context(viewport={"width": 1200, "height": 850}).new_page()
    page.set_default_timeout(120_000)
    page.add_init_script(_LISTEN)
    page.goto(link)
    page.wait_for_function("() => window.painted.length > 0")
    return page


def _latency(browser: Any, root: Path, steps: int) -> dict[str, dict[str, Any]]:
    """Press, wait for both first frames, look for a moment, press again; the server answers 100 ms late."""
    with serving(root, "delay=100", "minimum=0", "pairs=700", "repeats=0", "strategy=random") as server:
        page = _page(browser, server.link)
        page.wait_for_timeout(1500)
        spent = []
        for n in range(steps):
            count = page.evaluate("window.painted.length")
            page.keyboard.press(("ArrowLeft", "ArrowRight", "ArrowUp")[n % 3])
            page.wait_for_function("n => window.painted.length > n", arg=count)
            spent.append(page.evaluate("window.painted.at(-1) - window.pressed.at(-1)"))
            page.wait_for_timeout(600)
        page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'")
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
        page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'")
        spent = time.perf_counter() - begin
        page.context.close()
        return {"scripted_answers_per_s": at_least(count / spent, 10, answers=count)}


def _sync(browser: Any, root: Path, quick: bool) -> dict[str, dict[str, Any]]:
    """Frame numbers read from the painted pictures of two clips of unequal length, while playing and after joint scrubs; axe."""
    _numbered(root)
    with serving(root, "minimum=0", "strategy=random") as server:
        page = _page(browser, server.link)
        seen = np.array(page.evaluate(_WATCH, 5000 if quick else 60_000))
        shorter = seen.max(axis=0).min()
        apart = np.abs(np.diff(seen[(seen < shorter).all(axis=1)], axis=1))
        rng = np.random.default_rng(0)
        last, wrong = int(page.inner_text("#frame").split("/")[1]), 0
        for _ in range(10 if quick else 100):
            frame = int(rng.integers(last))
            page.evaluate(
                "(n) => { const s = document.getElementById('scrub'); s.value = n; s.dispatchEvent(new Event('input')); }",
                frame,
            )
            page.wait_for_timeout(200)
            wrong += sorted(page.evaluate(_READ)) != sorted([frame, min(frame, int(shorter))])
        rows = {
            "sync_p999_frames": at_most(float(np.quantile(apart, 0.999)), 1, frames=len(apart)), "sync_max_frames": at_most(int(apart.max()), 2),
            "scrubs_on_another_frame": at_most(wrong, 0), "axe_violations": at_most(_axe(page), 0),
        }  # fmt: skip
        page.context.close()
        return rows


def _axe(page: Any) -> int:
    from axe_playwright_python.sync_playwright import Axe

    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
    found = len(Axe().run(page, options=rules).response["violations"])
    for key in ("?", "h"):
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        found += len(Axe().run(page, options=rules).response["violations"])
        page.keyboard.press("Escape")
    return found


def _numbered(root: Path) -> None:
    """Recorded episodes whose pictures say their frame number in eight black or white blocks."""
    from robopref.arrays import Trajectory
    from robopref.data.store import StoreWriter

    with StoreWriter(root, fps=25) as writer:
        for n, steps in enumerate((64, 50, 60, 41)):
            pictures = np.full((steps, 96, 96, 3), 128, np.uint8)
            for frame in range(steps):
                for bit in range(8):
                    pictures[frame, :32, bit * 12 : bit * 12 + 12] = 255 * (frame >> (7 - bit) & 1)
            seen = np.full((steps, 2), n, np.float32)
            writer.add(
                Trajectory(
                    seen,
                    seen,
                    seen[:, 0],
                    np.zeros(steps, bool),
                    "count",
                    1,
                    f"p{n}",
                    "recorded",
                    images={"wrist": pictures},
                )
            )
