"""Debian's Chromium, driven by playwright: with a profile that is thrown away, or with one that outlives a killed browser."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip

_LISTEN = """
window.pressed = []; window.painted = [];
window.addEventListener("keydown", (event) => window.pressed.push(event.timeStamp), true);
document.addEventListener("firstframe", (event) => window.painted.push(event.detail.at));
"""
SAVED = "() => document.getElementById('saved').textContent === 'saved'"
"""Whether the server has acknowledged everything."""


def chromium() -> str:
    """Where Chromium is. Raises RuntimeError when there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("needs Debian's chromium: apt-get install chromium")
    return path


@contextmanager
def driver() -> Iterator[Any]:
    """Playwright; what goes wrong in a browser becomes a RuntimeError, so that a benchmark can tell it in its row."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        try:
            yield playwright
        except Error as error:
            raise RuntimeError(error.message.splitlines()[0]) from error


@contextmanager
def launched(playwright: Any) -> Iterator[Any]:
    """A browser that is closed at the end."""
    browser = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def browsing() -> Iterator[Any]:
    """Playwright and a browser, both closed at the end; errors stay playwright's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright) as browser:
        yield browser


def opened(context: Any, link: str) -> Any:
    """A page that shows its first question; `window.pressed` and `window.painted` hold the times of keys and of first frames."""
    page = context.new_page()
    page.set_default_timeout(240_000)
    page.add_init_script(_LISTEN)
    page.goto(link)
    page.wait_for_function("() => window.painted.length > 0")
    return page


def press(page: Any, key: str) -> None:
    """Press a key and wait until all clips of the next question have painted."""
    count = page.evaluate("window.painted.length")
    page.keyboard.press(key)
    page.wait_for_function("n => window.painted.length > n", arg=count)


def with_profile(browser_type: Any, profile: Path, timeout_ms: int) -> Any:
    """A context whose storage is the folder `profile`; it is still there when the browser is killed."""
    context = browser_type.launch_persistent_context(str(profile), executable_path=chromium(), args=ARGS)
    context.set_default_timeout(timeout_ms)
    return context


def kill_browser(profile: Path) -> int:
    """`kill -9` of every process of the browser that uses `profile`, the main one first; returns how many there were."""
    flag, found = f"--user-data-dir={profile}", []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile
            continue
        # Chromium rewrites the command line of its children with spaces for zeros
        if flag in words or f"{flag} " in words[0] + " ":
            found.append((any(w.startswith("--type=") for w in words), int(folder.name)))
    for _, process in sorted(found):
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(found)
