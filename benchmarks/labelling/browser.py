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


def chromium() -> str:
    """Where Chromium is. Raises RuntimeError when there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise RuntimeError("needs Debian's chromium: apt-get install chromium")
    return path


@contextmanager
def browsing() -> Iterator[Any]:
    """A browser that is closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


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
