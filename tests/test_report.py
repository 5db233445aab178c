"""The page of a run: it stands alone, it says what must be said first, and nothing in a run folder can break it."""

import json
import re
from html.parser import HTMLParser

import pytest
from synthetic_run import RATES, make_run

from robopref.arrays import InputError
from robopref.stages.report import clock, report
from robopref.stages.verdict import Comparison, comparisons, points, verdict

VOID = {"meta", "img", "br", "input", "link", "path", "use", "rect", "circle", "line", "polyline"}


class Page(HTMLParser):
    """Collects text and attributes, and notices tags that do not close."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.attributes, self.quiet = [], "", [], 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("report") / "run", films=True)
    return run, report(run).read_text(encoding="utf-8")


def test_the_page_is_one_file_that_loads_nothing(full):
    run, html = full
    page = Page(html)
    assert page.open == []
    assert "://" not in html
    sources = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "data")]
    assert sources
    assert all(value.startswith(("data:", "#")) for value in sources)
    assert len(html) < 3_000_000
    assert not [path for path in run.iterdir() if "partial" in path.name]


def test_ids_are_unique_so_that_plots_do_not_borrow_from_each_other(full):
    ids = re.findall(r'\bid="([^"]+)"', full[1])
    assert len(ids) == len(set(ids))


def test_everything_that_was_recorded_is_shown(full):
    run, html = full
    page, metrics = Page(html), json.loads((run / "metrics.json").read_text())
    for name in RATES:
        assert name in page.text
    for wanted in (
        metrics["command"],
        "held-out resets",
        "All 8 pairs",
        "rolled back",
        "How the base was found",
        "gradient step",
    ):
        assert wanted in page.text
    assert html.count("data:video/mp4") == 6
    assert html.count("data:image/png") == 16
    assert html.count('class="plot"') == 6
    assert metrics["notes"][0] in page.text


def test_winners_and_losers_are_drawn_apart_in_the_colours_of_the_page(full):
    svg = next(part for part in full[1].split("<svg")[1:] if "log-likelihood" in part)
    assert "var(--good)" in svg and "var(--bad)" in svg
    assert "preferred, held out" in svg


def test_the_same_run_gives_the_same_page(full):
    run, html = full
    assert report(run).read_text(encoding="utf-8") == html


def test_a_run_of_metrics_only_still_has_a_page(tmp_path):
    run = make_run(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    bare = tmp_path / "bare"
    bare.mkdir()
    kept = ("task", "seed", "labels_asked", "episodes_judged", "policies", "tests", "seconds")
    (bare / "metrics.json").write_text(json.dumps({key: metrics[key] for key in kept}))
    assert "No videos were recorded" in Page(report(bare).read_text()).text


def test_a_run_that_evaluated_one_policy_is_shown_without_a_claim(tmp_path):
    run = make_run(tmp_path / "run", rates={"base": 0.4})
    assert "Nothing was compared with the base policy." in Page(report(run).read_text()).text


def test_when_the_ablation_does_as_well_the_page_says_so_before_the_headline(tmp_path):
    run = make_run(tmp_path / "run", rates=RATES | {"aligned_no_pairs": 0.8})
    text = Page(report(run).read_text()).text
    assert text.index("The preference term is not shown to add anything") < text.index("Success rose from")


def test_when_the_ablation_does_better_the_page_says_that_the_term_harms(tmp_path):
    run = make_run(tmp_path / "run", rates=RATES | {"aligned_no_pairs": 1.0})
    assert "The preference term makes the result worse" in Page(report(run).read_text()).text


def test_the_teacher_is_named_from_the_configuration(tmp_path):
    run = make_run(tmp_path / "run", labeler="success")
    (run / "config.yaml").write_text(
        "labeler: {_target_: robopref.labelers.teacher.Teacher, criterion: success, noise: 0.1}"
    )
    assert "Teacher: success (criterion=success, noise=0.1)." in Page(report(run).read_text()).text


def test_when_the_ablation_does_worse_nothing_stands_before_the_headline(full):
    assert "not shown to add anything" not in full[1]


@pytest.mark.parametrize(
    ("lo", "hi", "p", "tone"), [(0.2, 0.4, 0.001, "good"), (-0.1, 0.2, 0.4, "open"), (-0.4, -0.1, 0.001, "bad")]
)
def test_the_headline_follows_the_interval(lo, hi, p, tone):
    policies = {name: {"success_rate": rate, "episodes": 100} for name, rate in (("base", 0.5), ("aligned", 0.5))}
    said = verdict({"policies": policies}, [Comparison("aligned", "base", (lo + hi) / 2, lo, hi, p)])
    assert said.tone == tone
    assert "was not evaluated" in said.first[0]  # the ablation


def test_a_better_baseline_is_named_first():
    policies = {name: {"success_rate": 0.5, "episodes": 100} for name in RATES}
    tests = [Comparison("aligned", name, 0.2, 0.1, 0.3, 0.001) for name in ("base", "aligned_no_pairs")]
    said = verdict({"policies": policies}, [*tests, Comparison("aligned", "filtered", -0.2, -0.3, -0.1, 0.001)])
    assert said.first == ("The baseline filtered is better than aligned: +20 points (95% interval +10 to +30).",)


def test_missing_tests_are_made_from_the_outcomes_and_every_direction_is_the_same():
    success = {"base": [0, 0, 0, 1, 0, 0], "aligned": [1, 1, 1, 1, 1, 1], "cloned": [1, 1, 1, 1, 1, 1]}
    given = {"a": "base", "b": "aligned", "difference": -5 / 6, "ci95": [-1.0, -0.5], "p_value": 0.06}
    tests = comparisons({"tests": [given]}, success)
    assert [(t.a, t.b) for t in tests] == [("aligned", "base"), ("aligned", "cloned")]
    assert (tests[0].difference, tests[0].lo, tests[0].hi) == (5 / 6, 0.5, 1.0)
    assert (tests[1].difference, tests[1].p) == (0.0, 1.0)


def test_hostile_names_are_shown_and_not_run(tmp_path):
    attack = "<script>alert(1)</script>"
    run = make_run(tmp_path / "run", command=attack, notes=[attack], task=attack)
    html = report(run).read_text()
    assert attack not in html
    assert "&lt;script&gt;alert(1)" in html


def test_pictures_outside_the_run_are_not_taken_along(tmp_path):
    run = make_run(tmp_path / "run")
    (tmp_path / "private.png").write_bytes(b"private")
    pairs = json.loads((run / "pairs.json").read_text())
    pairs[0]["first_thumb"] = "../private.png"
    (run / "pairs.json").write_text(json.dumps(pairs))
    assert "cHJpdmF0ZQ" not in report(run).read_text()


def test_a_log_line_torn_by_a_kill_is_left_out(tmp_path):
    run = make_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as log:
        log.write('{"stage": "align", "arm"')
    assert 'class="plot"' in report(run).read_text()


def test_a_folder_without_metrics_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match=r"no metrics\.json, wanted the folder of a finished run"):
        report(tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(InputError, match="no `policies`"):
        report(tmp_path)


def test_numbers_read_well():
    assert [points(x) for x in (0.36, -0.06, 0.0, -0.0004, 0.125)] == ["+36", "−6", "0", "0", "+12.5"]
    assert [clock(x) for x in (3.21, 42, 75, 3700)] == ["3.2 s", "42 s", "1 min 15 s", "1 h 1 min"]
