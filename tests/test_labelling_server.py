"""The labelling server over real HTTP: what it gives, what it keeps through a crash, and what it refuses."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import unicodedata

import pytest
from asked import event, undo
from robopref.benchmarks.labelling.server import Client, Server, dataset, serving

from robopref.labelers.people import Answers
from robopref.labelling import guard, serve
from robopref.labelling.options import parse

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("served") / "store")


@pytest.fixture(scope="module")
def server(root):
    with serving(root, "annotators=ada,bob,李", "pairs=60", "repeats=0") as running:
        yield running


@pytest.fixture(scope="module")
def ada(server):
    client = server.client("ada")
    client.next()  # the first clips exist
    return client


def test_an_answer_is_acknowledged_after_it_is_stored(server, root, ada):
    (given,) = ada.next()
    told = event(given, "left", reasons=["safety"])
    assert ada.record(told)[0]["status"] == "counted" and ada.record(told)[0]["status"] == "duplicate"
    answers = Answers(root)
    stored = {e["uid"]: e for e in answers.current()}[told["uid"]]
    answers.close()
    assert stored["annotator"] == "ada" and stored["body"]["client"]["reasons"] == ["safety"]
    assert {"question_id", "hashes", "shown", "strategy", "propensity", "version"} <= set(stored["body"]["server"])
    assert ada.record(undo(told["uid"]))[0]["assignment"]["gen"] == given["gen"] + 1


def test_the_page_learns_neither_episodes_nor_checks(ada):
    (given,) = ada.next(tab="tab-00000002")
    assert set(given) == {"item", "slot", "gen", "token", "mode", "name", "clips", "question_id"}
    assert set(given["clips"][0]) == {"views", "frames", "fps", "stride", "first"}


def test_one_bad_event_does_not_hold_up_the_others(ada):
    given = ada.next(2, tab="tab-00000003")
    good, bad = event(given[0]), event(given[1], "sideways")
    receipts = ada.record(bad, good, 7)
    assert [r["status"] for r in receipts] == ["rejected", "counted", "rejected"] and "choice" in receipts[0]["reason"]


def test_clips_play_in_ranges_and_only_for_people_who_are_signed_in(server, ada):
    (given,) = ada.next(tab="tab-00000004")
    for file in given["clips"][0]["views"][0]["files"]:
        status, whole, headers = ada.ask("GET", f"/media/{file['id']}")
        assert status == 200 and headers["content-type"] == file["type"] and len(whole) > 300
        status, part, headers = ada.ask("GET", f"/media/{file['id']}", Range="bytes=10-19")
        assert (status, part, headers["content-range"]) == (206, whole[10:20], f"bytes 10-19/{len(whole)}")
        assert ada.ask("GET", f"/media/{file['id']}", Range="bytes=999999999-")[0] == 416
        assert Client(server.address).ask("GET", f"/media/{file['id']}")[0] == 401


def test_names_in_any_script_work_and_people_see_their_own_answers_only(server):
    one, other = server.client("李"), server.client("bob")
    (given,) = one.next()
    one.record(event(given, "equal", note="好"))
    assert one.ask("GET", "/api/history")[1]["answers"][0]["note"] == "好"
    assert other.ask("GET", "/api/history")[1]["answers"] == []


def test_the_organiser_sees_everybody_and_can_revoke_a_link(server):
    chief = server.client()
    told = chief.ask("GET", "/api/quality")[1]
    assert {"ada", "bob", "李"} <= {p["name"] for p in told["people"]} and told["problems"] == []
    token = chief.ask("POST", "/api/enrol", {"name": "zoë"})[1]["token"]
    zoe = Client(server.address, token)
    assert zoe.ask("GET", "/api/progress")[0] == 200
    assert chief.ask("POST", "/api/revoke", {"name": "zoë"})[1]["ended"] == 2
    assert zoe.ask("GET", "/api/progress")[0] == 401
    assert Client(server.address).ask("POST", "/api/login", {"token": token})[0] == 401
    assert chief.ask("POST", "/api/export", {})[0] == 200


def test_every_reply_carries_the_headers_that_lock_the_page(server, ada):
    for path in ("/", "/main.js", "/api/config", "/nothing"):
        _, _, headers = ada.ask("GET", path)
        policy = headers["content-security-policy"]
        for part in (
            "default-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ):
            assert part in policy
        assert "unsafe" not in policy and headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer" and "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)
    for flag in ("HttpOnly", "SameSite=strict", "Path=/"):
        assert flag in ada.set_cookie


ANSWER = {
    "events": [
        {
            "uid": "attack-00000",
            "kind": "answer",
            "item": "x",
            "slot": 0,
            "gen": 0,
            "token": 1,
            "body": {"choice": "left"},
        }
    ]
}
PATHS = [
    "/../pyproject.toml", "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/media/../../answers.sqlite", "/media/..%2fanswers.sqlite",
    "/media/%2e%2e%2f%2e%2e%2fanswers.sqlite", "/media/" + "a" * 32, "/media/answers.sqlite", "/media//etc/passwd", "/media/%00", "/media/..%5c..%5cx",
    "/answers.sqlite", "/meta/preferences/answers.sqlite", "/.git/config", "/__init__.py", "/app.py", "/style.css/../app.py", "/media/" + "a" * 5000,
    "/static/main.js", "/main.js%00.html", "/clips", "/media/%ff%fe",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_what_is_served(ada, path):
    status, body, _ = ada.ask("GET", path)
    assert status in (400, 404, 414, 431) and b"SQLite" not in json.dumps(str(body)).encode()


@pytest.mark.parametrize("path", ["/api/config", "/api/progress", "/api/history", "/api/quality", "/media/" + "0" * 32])
@pytest.mark.parametrize("cookie", ["none", "guessed", "wrong name"])
def test_reading_needs_a_session(server, ada, path, cookie):
    client = Client(server.address)
    name = ada.cookie.split("=")[0]
    client.cookie = {"none": "", "guessed": f"{name}={'A' * 43}", "wrong name": ada.cookie.replace(name, "session")}[
        cookie
    ]
    assert client.ask("GET", path)[0] == 401


@pytest.mark.parametrize("path", ["next", "events", "renew", "release", "export", "enrol", "revoke", "logout"])
def test_writing_needs_a_session(server, path):
    assert Client(server.address).ask("POST", f"/api/{path}", {})[0] == 401


@pytest.mark.parametrize(
    ("path", "method"), [("quality", "GET"), ("export", "POST"), ("revoke", "POST"), ("enrol", "POST")]
)
def test_annotators_are_no_organisers(ada, path, method):
    assert ada.ask(method, f"/api/{path}", {} if method == "POST" else None)[0] == 403


FORGED = {
    "another origin": {"Origin": "http://evil.example"},
    "null origin": {"Origin": "null"},
    "https origin": {"Origin": "https://127.0.0.1"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "no origin": {"Origin": None},
    "cross-site": {"Sec_Fetch_Site": "cross-site"},
    "same-site": {"Sec_Fetch_Site": "same-site"},
    "a form": {"Content_Type": "application/x-www-form-urlencoded"},
    "a multipart form": {"Content_Type": "multipart/form-data; boundary=x"},
    "plain text": {"Content_Type": "text/plain"},
    "no type": {"Content_Type": None},
}


@pytest.mark.parametrize("how", FORGED)
def test_forged_posts_are_refused(ada, how):
    assert ada.ask("POST", "/api/events", ANSWER, **FORGED[how])[0] in (403, 415)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "",
        "169.254.169.254",
        "localhost.evil",
        "127.0.0.1@evil.example",
        "[::1",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_name_rebound_to_this_machine_is_refused(ada, host, method):
    status, _, _ = ada.ask(
        method, "/api/progress" if method == "GET" else "/api/next", {} if method == "POST" else None, Host=host or "-"
    )
    assert status == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(ada, method):
    assert ada.ask(method, "/api/events", ANSWER)[0] == 405


BODIES = {
    "too long": b"[" + b"1," * 40_000 + b"1]",
    "not JSON": b"{'a': 1}",
    "a list": b"[]",
    "deep": b'{"events":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "a pickle": b"\x80\x04\x95",
    "too many": json.dumps({"events": [{}] * 51}).encode(),
    "none": json.dumps({"events": []}).encode(),
    "NaN": b'{"events": NaN}',
    "bad UTF-8": b'{"events": "\xff\xfe"}',
}


@pytest.mark.parametrize("what", BODIES)
def test_bodies_that_no_page_sends_are_refused(ada, what):
    assert ada.ask("POST", "/api/events", raw=BODIES[what])[0] in (413, 422)


@pytest.mark.parametrize(
    "body",
    [{}, {"n": 999, "tab": "tab-00000009"}, {"n": -1, "tab": "tab-00000009"}, {"n": 1, "tab": "x"}, {"n": "1", "tab": "tab-00000009"},
     {"n": True, "tab": "tab-00000009"}, {"n": 1, "tab": "tab-00000009", "held": ["a'; DROP TABLE event; --"]}, {"n": 1, "tab": ["x"]}],
)  # fmt: skip
def test_odd_requests_for_questions_are_refused(ada, body):
    assert ada.ask("POST", "/api/next", body)[0] == 422


def test_a_lying_content_length_and_a_chunked_flood_are_refused(server, ada):
    assert ada.ask("POST", "/api/events", ANSWER, Content_Length="99999999999")[0] == 413
    with socket.create_connection(server.address) as raw:
        head = f"POST /api/events HTTP/1.1\r\nHost: {ada.host}\r\nOrigin: {ada.origin}\r\nCookie: {ada.cookie}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw.sendall(head.encode() + (b"8000\r\n" + b"a" * 0x8000 + b"\r\n") * 4)
        assert b" 413 " in raw.recv(200)


def test_answers_of_others_cannot_be_replayed_taken_or_undone(server, ada):
    bob = server.client("bob")
    (given,) = ada.next(tab="tab-00000005")
    told = event(given)
    assert bob.record(told)[0]["status"] == "uncounted"  # not his lease
    assert ada.record(told)[0]["status"] == "rejected"  # and the uid is his now
    own = event(given)
    assert ada.record(own)[0]["status"] == "counted"
    assert bob.record(undo(own["uid"]))[0]["status"] == "rejected"
    assert bob.record(own)[0]["status"] == "rejected"
    assert ada.record(own | {"annotator": "bob"})[0]["status"] == "duplicate"


def test_a_script_in_a_note_stays_text(ada):
    (given,) = ada.next(tab="tab-00000006")
    note = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u0000"
    assert ada.record(event(given, note=note))[0]["status"] == "counted"
    _, body, headers = ada.ask("GET", "/api/history")
    assert body["answers"][0]["note"] == note and headers["content-type"] == "application/json"


def test_guessing_links_is_slowed_down(root):
    with serving(root, "annotator=guess") as server:
        tries = [Client(server.address).ask("POST", "/api/login", {"token": f"guess-{n}"})[0] for n in range(14)]
        assert tries[0] == 401 and tries[-1] == 429


def test_killed_and_started_again_it_knows_every_answer_and_the_session(root):
    server = Server(root, "annotators=kim")
    kim = server.client("kim")
    acknowledged = {}
    for _ in range(6):
        (given,) = kim.next(held=[])
        told = event(given, ["left", "right"][len(acknowledged) % 2])
        if kim.record(told)[0]["status"] == "counted":
            acknowledged[told["uid"]] = told["body"]["choice"]
    server.kill()
    with serving(root, "annotators=kim") as again:
        kim.address, kim.host = again.address, f"{again.address[0]}:{again.address[1]}"
        kim.origin = f"http://{kim.host}"
        assert kim.ask("GET", "/api/progress")[1]["mine"] >= 6
    answers = Answers(root)
    stored = {e["uid"]: e["body"]["client"]["choice"] for e in answers.current()}
    assert {u: stored[u] for u in acknowledged} == acknowledged and answers.problems() == []
    answers.close()


@pytest.fixture
def certificate(tmp_path):
    """A certificate for the loopback address that only its holder has signed, and its key."""
    if shutil.which("openssl") is None:
        (pytest.fail if os.environ.get("ROBOPREF_REQUIRE_BROWSER") else pytest.skip)("needs Debian's openssl")
    made, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=robopref", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return made, key


def test_answers_travel_encrypted_when_a_certificate_is_given(root, certificate):
    made, key = certificate
    with serving(root, "annotator=tess", f"tls_cert={made}", f"tls_key={key}", "repeats=0", "pairs=60") as server:
        assert server.link.startswith("https://")
        tess = server.client(trusted=ssl.create_default_context(cafile=str(made)))
        assert "secure" in tess.set_cookie.lower()
        (given,) = tess.next()
        assert tess.record(event(given, "right"))[0]["status"] == "counted"
        (media,) = given["clips"][0]["views"][0]["files"][:1]
        status, clip, _ = tess.ask("GET", f"/media/{media['id']}")
        assert status == 200 and len(clip) > 100
        plain = {"Origin": f"http://{tess.host}"}
        assert tess.ask("POST", "/api/events", {"events": []}, None, **plain)[0] == 403
        with pytest.raises(ssl.SSLCertVerificationError):
            server.client(trusted=ssl.create_default_context())  # nobody else vouches for it
        with pytest.raises((OSError, http.client.HTTPException)):
            Client(server.address).ask("GET", "/api/config")  # not in the clear


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["host=0.0.0.0"], "annotators"), (["port=http"], "whole number"), (["mode=pair"], "pairs"), (["prot=1"], "port"), (["gold=-1"], "gold"), (["gold=3", "repeats=0"], "among the checks"),
        (["tls_cert=a"], "tls"), (["strategy=bald"], "strategy"), (["annotators=<b>", "pairs=3"], "name"), (["clips=20", "mode=ranking"], "clips"),
    ],
)  # fmt: skip
def test_wrong_requests_end_with_two_and_say_what_to_do(root, words, why):
    command = [sys.executable, "-m", "robopref.cli", "annotate", str(root), "--port", "0", "--no-browser", *words]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert asked.returncode == 2 and why in asked.stderr and "Traceback" not in asked.stderr


def test_a_port_in_use_is_told(root, server):
    command = [
        sys.executable,
        "-m",
        "robopref.cli",
        "annotate",
        str(root),
        "--port",
        str(server.address[1]),
        "--no-browser",
    ]
    asked = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert asked.returncode == 2 and "cannot be used" in asked.stderr


def test_parts_of_a_reply_do_not_wait_for_each_other(root):
    with serve._bind(parse([str(root), "--port", "0"])) as bound:
        assert (
            bound.proto == socket.IPPROTO_TCP
        )  # asyncio switches Nagle's algorithm off for sockets that name it, and for no others


def test_the_links_of_a_server_for_everybody_work(root):
    """Listening everywhere, it is called by its machine's name or by the address it was reached at, and by no other name."""
    with serving(root, "host=0.0.0.0", "annotators=ada", "annotator=chief", "repeats=0") as server:
        named = server.links["ada"].split("/")[2]
        assert named.split(":")[0] == socket.gethostname()
        port = server.address[1]
        server.address = ("127.0.0.1", port)
        for host in (named, f"127.0.0.1:{port}", named.upper()):
            client = Client(server.address)
            client.host, client.origin = host, f"http://{host}"
            token = server.links["ada"].split("#t=")[1]
            assert client.ask("POST", "/api/login", {"token": token})[0] == 200, host
        for host in ("evil.example", "169.254.169.254", "0.0.0.0"):
            assert client.ask("GET", "/", Host=host)[0] == 400


def test_the_organiser_neither_loses_nor_gives_away_the_role(server):
    chief = server.client()
    own = chief.ask("GET", "/api/config")[1]["person"]
    assert chief.ask("POST", "/api/enrol", {"name": own})[0] == 422
    assert chief.ask("GET", "/api/quality")[0] == 200


@pytest.mark.parametrize(
    "name", ["O'Brien", "ක්\u200dරිෂාන්", "علی\u200cرضا", "Ζωή", "שרה", "Nguyễn Văn An", "李小龙", "D & G"]
)
def test_people_are_called_by_their_names(server, name):
    token = server.client().ask("POST", "/api/enrol", {"name": name})[1]["token"]
    assert Client(server.address, token).ask("GET", "/api/config")[1]["person"] == unicodedata.normalize("NFC", name)


def test_one_name_typed_in_two_ways_is_one_person(server):
    chief = server.client()
    for form in ("NFC", "NFD"):
        chief.ask("POST", "/api/enrol", {"name": unicodedata.normalize(form, "Noël")})
    assert [p["name"] for p in chief.ask("GET", "/api/quality")[1]["people"]].count("Noël") == 1


@pytest.mark.parametrize("name", ["", " ada", "a\u0000", "\u200d", "\ud800", "a" * 81, "<b>"])
def test_names_that_nobody_could_type_are_refused(server, name):
    assert server.client().ask("POST", "/api/enrol", {"name": name})[0] == 422


def test_what_the_database_cannot_hold_does_not_hold_up_the_rest(ada):
    given = ada.next(2, tab="tab-00000007")
    receipts = ada.record(event(given[0], note="\ud83d"), event(given[0], loops=[float("inf")]), event(given[1]))
    assert [r["status"] for r in receipts] == ["rejected", "rejected", "counted"]
    for path, body in (
        ("next", {"n": 1, "tab": "tab\ud800-000"}),
        ("renew", {"held": ["\ud800/1"]}),
        ("revoke", {"name": "\ud800"}),
    ):
        assert ada.ask("POST", f"/api/{path}", body)[0] in (403, 422)


def test_a_check_does_not_show_in_the_counts(tmp_path):
    with serving(dataset(tmp_path / "s", 12), "repeats=0.5", "pairs=40", "strategy=random") as server:
        client = server.client()
        for n in range(20):
            (given,) = client.next()
            client.record(event(given))
            told = client.ask("GET", "/api/progress")[1]
            assert (told["done"], told["mine"], told["target"], told["finished"]) == (n + 1, n + 1, 60, False)
        assert client.ask("GET", "/api/quality")[1]["counts"]["checks"] > 2


def test_the_next_session_may_have_another_mode_size_and_wording(tmp_path):
    """What the last one left open is neither shown under the wrong question nor without clips."""
    root = dataset(tmp_path / "s", 8)
    with serving(root, "repeats=0.01", "gold=3", "pairs=20") as server:
        client = server.client()
        (given,) = client.next()
        client.record(event(given))
        (late,) = client.next()
    with serving(root, "mode=flag", "question=Does it get there?", "pairs=3") as server:
        client = server.client()
        assert client.ask("GET", "/api/progress")[1] | {"ready": 0, "waiting": 0, "leased": 0} == {
            "done": 0, "target": 3, "mine": 0, "ready": 0, "leased": 0, "waiting": 0, "closed": 0, "finished": False
        }  # fmt: skip
        (held,) = client.record(event(late, "right", question_id=late["question_id"]))
        assert held["status"] == "counted"
        for _ in range(3):
            (given,) = client.next()
            assert given["mode"] == "flag"
            client.record(event(given, "success"))
        assert client.ask("GET", "/api/progress")[1]["finished"]
    with serving(root, "size=96", "repeats=0", "pairs=20") as server:
        client = server.client()
        for _ in range(3):
            (given,) = client.next()
            for clip in given["clips"]:
                for file in clip["views"][0]["files"]:
                    assert client.ask("GET", f"/media/{file['id']}")[0] == 200
            client.record(event(given))
    answers = Answers(root)
    said = [(e["mode"], e["body"]["server"]["question_id"]) for e in answers.current()]
    wording = {r["id"]: r["text"] for r in answers.log.db.execute("SELECT id, text FROM question")}
    assert [(m, wording[q]) for m, q in said[1:3]] == [
        ("pairs", "Which robot does the task better?"),
        ("flag", "Does it get there?"),
    ]
    answers.close()


def test_strangers_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(guard, "MOST_KEYS", 50)
    bucket = guard.Bucket(rate=0.001, burst=2)
    assert [bucket.take("me") for _ in range(3)] == [True, True, False]
    for n in range(500):
        bucket.take(f"stranger {n}")
        bucket.take("me")
    assert len(bucket._held) <= 50 and not bucket.take("me")
