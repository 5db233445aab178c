"""Debian's Chromium, driven by playwright, for tests of the labelling page."""

import os
from contextlib import contextmanager

import pytest
from robopref.benchmarks.labelling import browser as real

PATIENCE = 180_000
"""Milliseconds that a loaded machine may take for what is normally there at once."""


def needs_chromium():
    """Without Chromium the test is skipped, or fails where ROBOPREF_REQUIRE_BROWSER promises it."""
    try:
        real.chromium()
    except RuntimeError as error:
        (pytest.fail if os.environ.get("ROBOPREF_REQUIRE_BROWSER") else pytest.skip)(str(error))


@contextmanager
def browsing():
    """A browser that is closed at the end."""
    needs_chromium()
    with real.browsing() as browser:
        yield browser


def open_page(browser, link, **context):
    """A page of a context of its own at the first question; errors in its scripts fail the test that asks `page.errors`."""
    own = browser.new_context(**({"viewport": {"width": 1200, "height": 850}} | context))
    own.set_default_timeout(PATIENCE)
    return goto(own.new_page(), link)


def goto(page, link):
    """Open the link; `page.errors` and `page.asked` fill from now on."""
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
