"""Every screen of both pages against the rules of WCAG 2.2 A and AA, light and dark, wide and on a phone; and where requests go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .browser import driver, launched
from .rows import at_most
from .server import Server, dataset, serving

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}}
NOTHING = {"done": 0, "target": 9, "mine": 0, "ready": 0, "leased": 0, "waiting": 0, "closed": 0, "finished": False}
EMPTY = {"wait": NOTHING | {"waiting": 5}, "done": NOTHING | {"done": 9, "finished": True}}
"""Screen -> progress that a server would tell with it."""
OTHERS = ("ranking", "best_worst", "rating", "flag")


def run(quick: bool = False) -> dict[str, dict[str, Any]]:
    """Rows `axe_violations` over all screens, and `requests_elsewhere`: requests to anything but the server."""
    looks = [("light", 1200), ("dark", 360)] if quick else [(s, w) for s in ("light", "dark") for w in (1200, 360)]
    found: list[str] = []
    elsewhere: list[str] = []
    screens = 0
    with tempfile.TemporaryDirectory() as name, driver() as playwright, launched(playwright) as browser:
        root = dataset(Path(name) / "store", 8)
        for mode in ("pairs", *OTHERS):
            with serving(root, f"mode={mode}", "clips=3", "minimum=0", "repeats=0") as server:
                for scheme, width in looks:
                    visited = _visit(browser, server, scheme, width, everything=mode == "pairs")
                    screens += len(visited["screens"])
                    found += [f"{mode} {scheme} {width} {what}" for what in visited["violations"]]
                    elsewhere += visited["elsewhere"]
    return {
        "axe_violations": at_most(len(found), 0, screens=screens, which=found[:20]),
        "requests_elsewhere": at_most(len(elsewhere), 0, which=elsewhere[:20]),
    }


def _telling(progress: dict[str, Any]) -> Callable[[Any], None]:
    """Answers a request for questions with none."""
    return lambda route: route.fulfill(json={"assignments": [], "progress": progress})


def _visit(browser: Any, server: Server, scheme: str, width: int, everything: bool) -> dict[str, list[str]]:
    from axe_playwright_python.sync_playwright import Axe

    told: dict[str, list[str]] = {"screens": [], "violations": [], "elsewhere": []}
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.set_default_timeout(240_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def look(screen: str) -> None:
        told["screens"].append(screen)
        told["violations"] += [f"{screen}: {v['id']}" for v in Axe().run(page, options=RULES).response["violations"]]

    plain = server.link.split("#")[0]
    page.goto(plain)
    page.wait_for_selector("#login:not([hidden])")
    if everything:
        look("login")
    page.goto(server.link)
    page.wait_for_function("() => document.querySelector('#work:not([hidden]) video')?.readyState >= 2")
    look("question")
    if everything:
        for key, dialog in (("?", "#help"), ("h", "#history")):
            page.keyboard.press(key)
            page.wait_for_selector(f"{dialog}[open]")
            look(dialog)
            page.keyboard.press("Escape")
        page.goto(plain + "organiser.html")
        page.wait_for_selector("#people tr")
        look("organiser")
        for screen, progress in EMPTY.items():
            page.route("**/api/next", _telling(progress))
            page.goto(plain)
            page.wait_for_selector(f"#{screen}:not([hidden])")
            look(screen)
            page.unroute("**/api/next")
    told["elsewhere"] = [url for url in asked if not url.startswith((plain, "data:", "blob:"))]
    context.close()
    return told
