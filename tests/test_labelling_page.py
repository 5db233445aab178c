"""The page in a real browser, by real key presses: what is stored is what was pressed, nothing is lost, everybody can use it."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from browser import PATIENCE, all_saved, at_question, browsing, goto, open_page, press
from robopref.benchmarks.labelling import painted
from robopref.benchmarks.labelling.browser import kill_browser, with_profile
from robopref.benchmarks.labelling.server import Server, acted, answer, dataset, serving
from robopref.envs.point_mass import PointMass

from robopref.data.answer_rows import prob_first
from robopref.data.store import StoreWriter
from robopref.labelers.people import Answers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LAYOUT = Path(__file__).parent / "golden" / "labelling_layout.json"
LOADED_AHEAD = "() => { const ahead = [...document.querySelectorAll('.clips.prefetched video')]; return ahead.length > 1 && ahead.every((video) => video.readyState === 4); }"
KEYS = {"ArrowLeft": "left", "a": "left", "ArrowRight": "right", "d": "right", "ArrowUp": "equal", "w": "equal", "ArrowDown": "cant_tell", "s": "cant_tell", "b": "both_bad"}  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    with browsing() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("page") / "store")


@pytest.fixture(scope="module")
def server(root):
    with serving(
        root, "minimum=0", "repeats=0", "strategy=random", "pairs=66", "speed=0.8", "annotators=early"
    ) as running:
        yield running


@pytest.fixture
def page(browser, server):
    page = open_page(browser, server.link)
    at_question(page)
    yield page
    assert page.errors == []
    assert [url for url in page.asked if f"//{server.address[0]}:{server.address[1]}/" not in url] == []
    page.context.close()


def stored(root, since=0):
    answers = Answers(root)
    try:
        return [e for e in answers.log.events() if e["seq"] > since], answers.problems()
    finally:
        answers.close()


def test_what_is_stored_is_what_was_pressed_on_either_side(page, root):
    rng = random.Random(0)
    keys = [rng.choice(list(KEYS)) for _ in range(12)]
    before = len(stored(root)[0])
    names = [press(page, key) for key in keys]
    all_saved(page)
    events, problems = stored(root, before)
    told = [(f"{e['item']}/{e['slot']}", e["body"]["client"]["choice"], e["body"]["client"]["key"]) for e in events]
    assert told == [(n, KEYS[k], k) for n, k in zip(names, keys, strict=True)] and problems == []
    assert {e["counted"] for e in events} == {1}
    sides = {(tuple(e["body"]["server"]["shown"]), prob_first(e["body"]["client"]["choice"], e["body"]["server"]["shown"])) for e in events if e["body"]["client"]["choice"] == "left"}  # fmt: skip
    assert sides <= {((0, 1), 1.0), ((1, 0), 0.0)}


def test_keys_that_are_no_answers_store_nothing(browser, server, root):
    with_minimum = open_page(browser, server.links["early"])
    at_question(with_minimum)
    before = len(stored(root)[0])
    page = with_minimum
    for key in ("Control+a", "Alt+a", "Meta+d"):
        page.keyboard.press(key)
    page.keyboard.press("t")  # into the note
    page.keyboard.type("added was bad")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.keyboard.press("a")  # while the help is open
    page.keyboard.press("Escape")
    assert len(stored(root)[0]) == before and page.input_value("#note") == "added was bad"
    page.keyboard.down("d")
    for _ in range(5):
        page.keyboard.down("d")  # held: the browser repeats it
    page.keyboard.up("d")
    all_saved(page)
    page.wait_for_timeout(300)
    events = stored(root, before)[0]
    assert [e["body"]["client"]["choice"] for e in events] == ["right"] and events[0]["body"]["client"][
        "note"
    ] == "added was bad"
    page.context.close()


def test_an_answer_before_the_clips_were_seen_is_held_back(browser, root):
    with serving(root, "minimum=60000", "annotator=hurry", "strategy=random") as server:
        page = open_page(browser, server.link)
        at_question(page)
        before = len(stored(root)[0])
        page.keyboard.press("a")
        page.wait_for_function("() => document.getElementById('message').textContent.includes('look at the clips')")
        assert len(stored(root)[0]) == before
        page.context.close()


def test_nothing_of_a_question_leaks_into_the_next(page, root):
    before = len(stored(root)[0])
    page.keyboard.press(" ")
    for key in ("2", "4", "[", ".", ".", "]", "k", "m", "k", "-"):
        page.keyboard.press(key)
    page.fill("#note", "<script>alert(1)</script> 好")
    page.keyboard.press("Escape")
    assert page.locator("#marks li").count() == 3
    press(page, "a")
    assert (
        page.locator("#marks li").count() == 0 and page.input_value("#note") == "" and page.input_value("#speed") == "1"
    )
    assert page.locator("[aria-pressed=true]:not(#theme)").count() == 0
    press(page, "d")
    all_saved(page)
    rich, plain = (e["body"]["client"] for e in stored(root, before)[0])
    assert (
        rich["strength"] == 2
        and rich["reasons"] == ["success"]
        and rich["speed"] == 0.5
        and rich["note"].endswith("好")
    )
    assert len(rich["spans"]) == 1 and rich["spans"][0][0] == 0 and [side for side, _ in rich["keypoints"]] == [0, 1]
    assert not {"strength", "reasons", "spans", "keypoints", "note"} & set(plain) and plain["speed"] == 1


def test_undo_shows_the_same_question_and_counts_the_new_answer(page, root):
    before = len(stored(root)[0])
    name = press(page, "a")
    count = page.evaluate("window.frames_.length")
    page.keyboard.press("z")
    at_question(page, count)
    assert page.evaluate("window.shown.at(-1).name") == name and "Was: Left" in page.inner_text("#message")
    assert press(page, "d") == name
    all_saved(page)
    events = stored(root, before)[0]
    assert [e["kind"] for e in events] == ["answer", "undo", "answer"] and {e["counted"] for e in events} == {1}
    answers = Answers(root)
    item, _, slot = name.rpartition("/")
    now = [e["body"]["client"]["choice"] for e in answers.current() if (e["item"], str(e["slot"])) == (item, slot)]
    answers.close()
    assert now == ["right"]
    page.keyboard.press("h")  # and from the history, which shows a note as text
    page.locator("#history-list button").first.click()
    at_question(page, page.evaluate("window.frames_.length") - 1)
    page.wait_for_function("name => window.shown.at(-1).name === name", arg=name)


def test_offline_answers_wait_and_are_sent_later_also_after_the_browser_was_killed(browser, root, server, tmp_path):
    before = len(stored(root)[0])
    page = goto(with_profile(browser.browser_type, tmp_path, PATIENCE).new_page(), server.link)
    count = at_question(page)
    page.wait_for_function(LOADED_AHEAD)  # offline it could not be fetched
    page.context.set_offline(True)
    for told, key in enumerate("ad", start=1):
        page.keyboard.press(key)
        page.wait_for_function("n => document.getElementById('saved').textContent.startsWith(n)", arg=f"{told} not saved yet")  # fmt: skip
        if told == 1:
            at_question(page, count)
    assert kill_browser(tmp_path) > 0  # the page has said that both are kept: nothing may be lost from here on
    assert len(stored(root)[0]) == before
    page = goto(with_profile(browser.browser_type, tmp_path, PATIENCE).new_page(), server.link)
    all_saved(page)
    page.context.close()
    events = stored(root, before)[0]
    assert [e["body"]["client"]["choice"] for e in events] == ["left", "right"] and len({e["uid"] for e in events}) == 2


def fails(route):
    route.abort()


def reply_lost(route):
    """The server has stored what was sent, and the page does not hear of it."""
    route.fetch()
    route.abort()


def test_replies_that_are_lost_cost_nothing_and_an_undo_goes_on(page, root):
    before = len(stored(root)[0])
    page.route("**/api/events", reply_lost)
    name = press(page, "a")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('1 not saved yet: ')")
    count = page.evaluate("window.frames_.length")
    page.keyboard.press("z")
    page.wait_for_function("() => document.getElementById('saved').textContent.includes('2 not saved yet: ')")
    page.unroute_all(behavior="wait")  # a reply may be on its way to being lost
    at_question(page, count)
    assert page.evaluate("window.shown.at(-1).name") == name and "Was: Left" in page.inner_text("#message")
    assert press(page, "d") == name
    all_saved(page)
    events, problems = stored(root, before)
    assert [(e["kind"], e["body"]["client"].get("choice"), e["counted"]) for e in events] == [("answer", "left", 1), ("undo", None, 1), ("answer", "right", 1)]  # fmt: skip
    assert problems == []


def test_another_tab_of_the_person_may_send_what_this_one_waits_for(page, server, root):
    other = goto(page.context.new_page(), server.link)
    at_question(other)
    assert other.evaluate("window.shown.at(-1).name") != page.evaluate("window.shown.at(-1).name")
    page.bring_to_front()
    page.route("**/api/events", fails)
    name = press(page, "a")
    count = page.evaluate("window.frames_.length")
    page.keyboard.press("z")
    page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('2 not saved yet')")
    other.bring_to_front()
    press(other, "d")
    all_saved(other)
    page.bring_to_front()
    at_question(page, count)
    assert page.evaluate("window.shown.at(-1).name") == name
    page.unroute("**/api/events")
    press(page, "d")
    all_saved(page)
    assert stored(root)[1] == []
    other.close()


def test_long_notes_in_any_script_go_out_in_pieces_that_the_server_takes(browser, root):
    with serving(root, "minimum=0", "repeats=0", "strategy=random", "annotator=writer") as server:
        page = open_page(browser, server.link)
        at_question(page)
        before = len(stored(root)[0])
        page.route("**/api/events", fails)
        for _ in range(12):
            page.fill("#note", "字" * 1990 + "🙂" * 6)  # the last one is cut in two
            page.keyboard.press("Escape")
            press(page, "a")
        page.unroute("**/api/events")
        all_saved(page)
        events = stored(root, before)[0]
        assert [e["counted"] for e in events] == [1] * 12 and page.errors == []
        assert all(e["body"]["client"]["note"].startswith("字" * 1990) for e in events)
        page.context.close()


def test_the_page_goes_on_when_the_server_was_killed_and_started_again(browser, tmp_path):
    root = dataset(tmp_path / "store", 12)
    words = ("minimum=0", "repeats=0", "strategy=random", "annotator=kim")
    server = Server(root, *words)
    page = open_page(browser, server.link)
    count = at_question(page)
    page.wait_for_function(LOADED_AHEAD)
    server.kill()
    page.keyboard.press("a")
    count = at_question(page, count)
    page.keyboard.press("d")
    page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('2 not saved yet')")
    with serving(root, *words, f"port={server.address[1]}"):
        all_saved(page)
        at_question(page, count)  # its clips may have been asked for while nobody was there
        press(page, "w")
        all_saved(page)
        events, problems = stored(root)
        assert [e["body"]["client"]["choice"] for e in events] == ["left", "right", "equal"] and problems == []
        assert {e["counted"] for e in events} == {1} and page.errors == []
        page.context.close()


def test_a_clip_that_cannot_be_fetched_for_a_while_is_fetched_later(browser, server):
    page = open_page(browser, server.link.split("#")[0])
    page.route("**/media/*", fails)
    page.goto(server.link)
    page.wait_for_selector("#work:not([hidden])")
    page.wait_for_timeout(4000)
    assert page.locator(".failed").count() == 0
    page.unroute("**/media/*")
    at_question(page)
    press(page, "ArrowUp")
    page.context.close()


def test_who_skips_the_last_question_is_told_what_is_true(browser, tmp_path):
    with serving(dataset(tmp_path / "store", 2), "minimum=0", "repeats=0") as server:
        page = open_page(browser, server.link)
        at_question(page)
        page.keyboard.press("n")
        page.wait_for_selector("#done:not([hidden])")
        assert "answered or skipped" in page.inner_text("#done-text")
        page.keyboard.press("z")
        at_question(page, 1)
        page.keyboard.press("a")
        page.wait_for_function("() => document.getElementById('done-text').textContent.includes('has an answer')")
        page.context.close()


def test_clips_of_one_frame_can_be_compared(browser, tmp_path):
    with StoreWriter(tmp_path / "store", fps=20) as writer:
        for seed, steps in enumerate((1, 1, 12)):
            one = acted(PointMass(horizon=12, image_size=64), seed, 0.3)
            writer.add(one.window(0, steps))
    with serving(tmp_path / "store", "minimum=0", "repeats=0", "strategy=random") as server:
        page = open_page(browser, server.link)
        count = 0
        lengths = []
        for _ in range(3):
            count = at_question(page, count)
            page.wait_for_timeout(700)
            lengths.append(page.inner_text("#frame").split(" / ")[1])
            page.keyboard.press(".")
            page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#done:not([hidden])")
        assert sorted(lengths) == ["1", "12", "12"] and page.errors == []
        page.context.close()


def test_keys_of_another_alphabet_mean_those_in_their_place(page, root):
    before = len(stored(root)[0])
    count = page.evaluate("window.frames_.length")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'в', code: 'KeyD', bubbles: true }))")
    at_question(page, count)
    all_saved(page)
    assert [e["body"]["client"]["choice"] for e in stored(root, before)[0]] == ["right"]


def test_h264_plays_and_nothing_needs_a_network(page):
    played = page.evaluate(
        "[...document.querySelectorAll('.clips:not(.prefetched) video')].map(v => [v.videoWidth, v.error, v.canPlayType('video/mp4; codecs=\"avc1.42E01F\"')])"
    )
    assert played == [[64, None, "probably"]] * 2 or all(
        w >= 64 and e is None and c == "probably" for w, e, c in played
    )
    kinds = page.evaluate("fetch(document.querySelector('video').src).then(r => r.headers.get('content-type'))")
    assert kinds == "video/mp4"


@pytest.mark.parametrize(
    ("mode", "keys", "body"),
    [
        ("ranking", ["3", "1", "e", "2", "Enter"], {"choice": "ranked", "ranking": [[2], [0, 1]]}),
        ("best_worst", ["2", "3"], {"choice": "chosen", "best": 1, "worst": 2}),
        ("rating", ["4"], {"choice": "rated", "rating": 4}),
        ("flag", ["d"], {"choice": "success"}),
    ],
)
def test_every_mode_is_one_key_per_choice(browser, tmp_path, mode, keys, body):
    small = dataset(tmp_path / "store", 6)
    with serving(small, f"mode={mode}", "clips=3", "minimum=0") as server:
        page = open_page(browser, server.link)
        at_question(page)
        assert violations(page) == []
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function("() => document.getElementById('progress-text').textContent.startsWith('1 of')")
        (only,) = (e["body"]["client"] for e in stored(small)[0])
        assert {k: only.get(k) for k in body} == body and page.errors == []
        page.context.close()


def violations(page):
    from axe_playwright_python.sync_playwright import Axe

    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": tags}}).response["violations"]
    return [(v["id"], [n["target"] for n in v["nodes"]][:3]) for v in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_no_screen_breaks_the_accessibility_rules(browser, server, scheme, width):
    page = open_page(browser, server.link.split("#")[0], color_scheme=scheme, viewport={"width": width, "height": 780})
    page.wait_for_selector("#login:not([hidden])")
    assert violations(page) == []
    page.fill("#token", server.link)
    page.keyboard.press("Enter")
    at_question(page)
    page.keyboard.press(" ")
    assert violations(page) == []
    for key, dialog in (("?", "#help"), ("h", "#history")):
        page.keyboard.press(key)
        page.wait_for_selector(f"{dialog}[open]")
        assert violations(page) == [], dialog
        page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.evaluate("[...document.querySelectorAll('button,select,input,summary,a')].filter(e => e.offsetParent && !e.classList.contains('skip-link')).map(e => [e.id || e.textContent, e.getBoundingClientRect().width, e.getBoundingClientRect().height])")  # fmt: skip
    assert [s for s in sizes if min(s[1:]) < 24] == []
    page.goto(server.link.split("#")[0] + "organiser.html")
    page.wait_for_selector("#people tr")
    assert violations(page) == []
    page.context.close()


def test_everything_is_reachable_without_single_keys(page, root):
    page.keyboard.press("?")
    page.locator("#keys-on").uncheck()
    page.keyboard.press("Escape")
    before = len(stored(root)[0])
    page.keyboard.press("a")
    page.wait_for_timeout(200)
    assert len(stored(root)[0]) == before
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement?.dataset?.answer") == "equal":
            break
    press(page, "Enter")
    all_saved(page)
    assert stored(root, before)[0][-1]["body"]["client"]["choice"] == "equal"


def test_who_wants_no_motion_starts_paused(browser, server):
    page = open_page(browser, server.link, reduced_motion="reduce")
    at_question(page)
    assert page.inner_text("#play") == "Play" and page.evaluate(
        "[...document.querySelectorAll('video')].every(v => v.paused)"
    )
    page.context.close()


def test_a_clip_that_cannot_be_played_leaves_only_broken_and_skip(browser, server):
    page = open_page(browser, server.link.split("#")[0])
    page.route("**/media/*", lambda route: route.fulfill(status=200, content_type="video/mp4", body=b"no video"))
    page.goto(server.link)
    page.wait_for_selector(".failed")
    page.wait_for_function("() => document.querySelector('[data-answer=left]')?.disabled")
    assert page.evaluate(
        "[...document.querySelectorAll('#answers button:not(:disabled)')].map(b => b.dataset.answer)"
    ) == ["broken", "skip"]
    page.context.close()


def test_clips_of_recorded_video_show_the_same_frame_while_playing_and_after_scrubs(browser, tmp_path):
    """At most one frame apart, as near as a starved machine keeps its own clocks; never more than two."""
    with serving(painted.numbered(tmp_path / "store"), "minimum=0", "strategy=random") as server:
        page = open_page(browser, server.link)
        at_question(page)
        assert page.evaluate("document.querySelector('video').videoWidth") == 96
        seen = []
        for _ in range(40):  # until enough was seen, however slow the machine is
            seen += page.evaluate(painted.WATCH, 3000)
            compared = painted.kept_up(painted.both_playing(seen))
            if len(compared) > 20:
                break
        assert len(compared) > 20, f"only {len(compared)} of {len(seen)} pictures could be compared"
        apart = np.abs(compared[:, 0] - compared[:, 1])
        assert np.quantile(apart, 0.999) <= 1 and apart.max() <= 2, compared[apart > 1].tolist()
        shorter, last = min(np.max(seen, axis=0)[:2]), int(page.inner_text("#frame").split("/")[1])
        rng = random.Random(0)
        for _ in range(20):
            frame = rng.randrange(last)
            page.evaluate(painted.SCRUB, frame)
            wanted = sorted([frame, min(frame, int(shorter))])
            page.wait_for_function(f"(wanted) => String(({painted.READ})().sort((a, b) => a - b)) === String(wanted)", arg=wanted)  # fmt: skip
        page.wait_for_timeout(500)
        assert sorted(page.evaluate(painted.READ)) == wanted  # and it stays
        page.context.close()


def boxes(page):
    ids = ["question", "stage", "play", "scrub", "answers", "more"]
    return page.evaluate("ids => Object.fromEntries(ids.map(id => { const b = document.getElementById(id).getBoundingClientRect(); return [id, [b.x, b.y, b.width, b.height].map(Math.round)]; }))", ids)  # fmt: skip


def looked_at(browser, server, width, height):
    page = open_page(browser, server.link, viewport={"width": width, "height": height})
    at_question(page)
    page.keyboard.press(" ")
    page.wait_for_timeout(300)
    return page


@pytest.mark.parametrize(("width", "height"), [(1200, 850), (360, 780)])
def test_the_layout_is_the_one_that_was_looked_at(browser, server, width, height):
    page = looked_at(browser, server, width, height)
    golden = json.loads(LAYOUT.read_text(encoding="utf-8"))[f"{width}x{height}"]
    for name, box in boxes(page).items():
        np.testing.assert_allclose(box, golden[name], atol=40, err_msg=name)
    page.context.close()


def write_pictures(root, folder):
    """Golden layout and the pictures of the documentation; look at them before committing. `root`: a real dataset."""
    layout = {}
    server = Server(root, "annotator=you", "annotators=ada,bob", "strategy=random", "repeats=0", "overlap=2")
    for name, right in (("ada", 0.95), ("bob", 0.7)):
        client, rng = server.client(name), random.Random(name)
        for n in range(18):
            (given,) = client.next()
            told = answer(
                given, rng.choice(["left", "right", "equal"]) if rng.random() > right else "left", f"{name}-{n:08d}"
            )
            told["body"]["response_ms"] = 1000 * rng.lognormvariate(1.5, 0.5)
            client.record(told)
    with browsing() as browser:
        for width, height, name in ((1200, 850, "labelling"), (360, 780, "labelling-phone")):
            page = looked_at(browser, server, width, height)
            layout[f"{width}x{height}"] = boxes(page)
            page.screenshot(path=str(folder / f"{name}.png"))
            if width > 1000:
                page.keyboard.press("2")
                page.keyboard.press("?")
                page.wait_for_timeout(300)
                page.screenshot(path=str(folder / "labelling-keys.png"))
                page.keyboard.press("Escape")
                page.click("#theme")
                page.screenshot(path=str(folder / "labelling-dark.png"))
                page.click("#theme")
                page.goto(server.link.split("#")[0] + "organiser.html")
                page.wait_for_selector("#people tr")
                page.wait_for_timeout(500)
                page.screenshot(path=str(folder / "labelling-organiser.png"), full_page=True)
            page.context.close()
    server.stop()
    LAYOUT.write_text(json.dumps(layout, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_pictures(sys.argv[1], Path(sys.argv[2]))
