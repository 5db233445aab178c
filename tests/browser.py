"""Debian's Chromium, driven by playwright, for tests of the labelling page."""

import os
import shutil
from contextlib import contextmanager

import pytest

ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
PATIENCE = 90_000
"""Milliseconds that a loaded machine may take for what is normally there at once."""


def chromium_path():
    """Where Chromium is; without it the test is skipped, or fails where ROBOPREF_REQUIRE_BROWSER promises it."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        (pytest.fail if os.environ.get("ROBOPREF_REQUIRE_BROWSER") else pytest.skip)("needs Debian's chromium")
    return path


@contextmanager
def browsing():
    """A browser that is closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


def open_page(browser, link, **context):
    """A page of a context of its own at the first question; errors in its scripts fail the test that asks `page.errors`."""
    own = browser.new_context(**({"viewport": {"width": 1200, "height": 850}} | context))
    own.set_default_timeout(PATIENCE)
    page = own.new_page()
    page.errors, page.asked = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.add_init_script(LISTEN)
    page.goto(link)
    return page


LISTEN = """
window.shown = []; window.frames_ = [];
document.addEventListener("shown", (event) => window.shown.push(event.detail));
document.addEventListener("firstframe", (event) => window.frames_.push(event.detail));
"""


def at_question(page, frames=None):
    """Wait until the next question has painted its first frames; returns how many questions have."""
    page.wait_for_selector("#work:not([hidden])")
    known = frames if frames is not None else 0
    page.wait_for_function("n => window.frames_.length > n", arg=known)
    return page.evaluate("window.frames_.length")


def press(page, key):
    """Press a key and wait until the next question is on the screen; returns the name of the question it answered."""
    name, count = page.evaluate("[window.shown.at(-1).name, window.frames_.length]")
    page.keyboard.press(key)
    at_question(page, count)
    return name


def all_saved(page):
    page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'")
