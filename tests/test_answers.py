"""The store of answers: counted once, never changed, undone by adding, leased to one person at a time."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from asked import event, opened, pairs, undo

from robopref.arrays import InputError
from robopref.data import eventlog
from robopref.data.answer_rows import Comparison
from robopref.data.eventlog import DiskFullError, EventLog
from robopref.data.pairs import Window
from robopref.data.question_queue import LAG, LEASE_MS, CheckPlan
from robopref.labelers.people import FILE, Answers, Conflict

HERE = Path(__file__).parent


def choices(answers):
    return [e["body"]["client"]["choice"] for e in answers.current()]


def test_an_answer_is_counted_once_and_a_retry_is_harmless(tmp_path):
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "tab", 1)
    told = event(given, "right", reasons=["safety"], strength=2)
    assert answers.record("ada", told).status == "counted"
    assert answers.record("ada", told).status == "duplicate"
    again = answers.record("ada", told | {"uid": "another-uid"})
    assert (again.status, again.reason) == ("uncounted", "it was answered already")
    assert choices(answers) == ["right"] and answers.problems() == []
    with pytest.raises(Conflict, match="other content"):
        answers.record("ada", told | {"body": {"choice": "left"}})
    with pytest.raises(Conflict, match="other content"):
        answers.record("eve", told)


def test_events_are_neither_changed_nor_removed(tmp_path):
    answers = opened(tmp_path)
    answers.record("ada", event(*answers.queue.next("ada", "t", 1)))
    for statement in ("UPDATE event SET body = '{}'", "DELETE FROM event"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            answers.log.db.execute(statement)


def test_tampering_and_a_cut_tail_are_noticed(tmp_path):
    answers = opened(tmp_path)
    for given in answers.queue.next("ada", "t", 4):
        answers.record("ada", event(given))
    head = answers.log.head()
    assert answers.log.problems(head) == []
    db = answers.log.db
    db.execute("DROP TRIGGER event_fixed")
    db.execute("UPDATE event SET body = replace(body, 'left', 'right') WHERE seq = 2")
    assert "event 2" in answers.log.problems()[0] and "changed" in answers.log.problems()[0]
    db.execute("UPDATE event SET body = replace(body, 'right', 'left') WHERE seq = 2")
    db.execute("DROP TRIGGER event_kept")
    db.execute("DELETE FROM event WHERE seq = 4")
    assert answers.log.problems() == [] and "tail was cut" in answers.log.problems(head)[0]
    db.execute("DELETE FROM event WHERE seq = 2")
    assert "events are missing" in answers.log.problems()[0]
    assert any("its events say otherwise" in p for p in answers.problems())


def test_undo_opens_the_question_for_the_same_person_with_the_same_sides(tmp_path):
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "t", 1)
    told = event(given, "left")
    answers.record("ada", told)
    back = answers.record("ada", undo(told["uid"]))
    assert back.status == "counted" and choices(answers) == []
    assert back.assignment["windows"] == given["windows"] and back.assignment["gen"] == given["gen"] + 1
    assert answers.record("ada", event(given, "right")).reason == "the lease passed to somebody else"
    assert answers.record("ada", event(back.assignment, "right")).status == "counted"
    assert choices(answers) == ["right"] and answers.problems() == []
    assert answers.record("ada", undo(told["uid"])).status == "uncounted"
    with pytest.raises(InputError, match="of your own"):
        answers.record("eve", undo(told["uid"]))


@pytest.mark.parametrize("kind", ["skip", "broken"])
def test_skip_and_broken_can_be_undone(tmp_path, kind):
    answers = opened(tmp_path, 1)
    (given,) = answers.queue.next("ada", "t", 1)
    told = event(given, kind=kind)
    assert answers.record("ada", told).status == "counted"
    assert answers.queue.next("ada", "t", 1) == []
    assert len(answers.queue.next("bob", "t", 1)) == (kind == "skip")
    if kind == "skip":
        assert answers.record("ada", undo(told["uid"])).status == "uncounted"  # bob has it now
    else:
        back = answers.record("ada", undo(told["uid"])).assignment
        assert answers.record("ada", event(back)).status == "counted"
    assert answers.problems() == []


def test_a_lease_that_ran_out_passes_on_and_the_late_answer_is_kept_uncounted(tmp_path, monkeypatch):
    answers = opened(tmp_path, 1)
    (ada,) = answers.queue.next("ada", "t", 1)
    assert answers.queue.next("bob", "t", 1) == []
    passed = answers.log.now() + LEASE_MS + 1
    monkeypatch.setattr(answers.log, "now", lambda: passed)
    (bob,) = answers.queue.next("bob", "t", 1)
    late = answers.record("ada", event(ada, "left"))
    assert (late.status, late.reason) == ("uncounted", "the lease passed to somebody else")
    assert answers.record("bob", event(bob, "right")).status == "counted"
    assert choices(answers) == ["right"] and len(answers.log.events(("answer",))) == 2


def test_a_tab_that_reloads_gets_its_leases_back_and_a_second_tab_others(tmp_path):
    answers = opened(tmp_path)
    first = {g["item"] for g in answers.queue.next("ada", "one", 3)}
    other = {g["item"] for g in answers.queue.next("ada", "two", 3)}
    assert len(first) == len(other) == 3 and not first & other
    assert {g["item"] for g in answers.queue.next("ada", "one", 3)} == first
    held = [f"{item}/0" for item in first]
    assert answers.queue.renew("ada", held) == held and answers.queue.renew("bob", held) == []
    answers.queue.release("ada", held)
    assert {g["item"] for g in answers.queue.next("bob", "x", 3)} == first


def test_overlap_asks_different_people_and_a_target_ends_the_queue(tmp_path):
    answers = opened(tmp_path, 5, overlap=2, target=6)
    ada = answers.queue.next("ada", "t", 9)
    assert len({g["item"] for g in ada}) == len(ada) == 5
    bob = answers.queue.next("bob", "t", 9)
    assert len(bob) == 1 and bob[0]["item"] in {g["item"] for g in ada} and bob[0]["slot"] != ada[0]["slot"] + 2
    assert answers.queue.next("cy", "t", 9) == []


def test_both_sides_come_first_about_equally_often(tmp_path):
    answers = opened(tmp_path, 120)
    left = sum(g["windows"][0].episode < g["windows"][1].episode for g in answers.queue.next("ada", "t", 120))
    assert 35 < left < 85


def test_twenty_people_at_once_count_nothing_twice(tmp_path):
    opened(tmp_path, 40, overlap=2).close()

    def work(name):
        own = Answers(tmp_path)
        statuses = []
        while given := own.queue.next(name, "t", 2):
            statuses += [own.record(name, event(g, random.choice(["left", "right"]), uid=f"{name}-{g['item']}-{g['gen']}-{g['slot']}")).status for g in given]  # fmt: skip
        own.close()
        return statuses

    with ThreadPoolExecutor(3) as pool:
        statuses = [s for part in pool.map(work, [f"p{i}" for i in range(20)]) for s in part]
    answers = Answers(tmp_path)
    assert statuses == ["counted"] * 80 and len(answers.current()) == 80 and answers.problems() == []
    assert len({(e["item"], e["annotator"]) for e in answers.current()}) == 80


def test_repeats_come_with_swapped_sides_after_a_while(tmp_path):
    answers = opened(tmp_path, 200, plan=CheckPlan(0.1, screen=12))
    shown, kinds = {}, []
    for n in range(30):
        (given,) = answers.queue.next("ada", "t", 1)
        answers.record("ada", event(given))
        row = answers.log.db.execute("SELECT repeat_of FROM comparison WHERE id = ?", (given["item"],)).fetchone()
        kinds.append(bool(row["repeat_of"]))
        if row["repeat_of"]:
            assert given["windows"] == shown[row["repeat_of"]][1][::-1] and n - shown[row["repeat_of"]][0] >= LAG
        shown[given["item"]] = (n, given["windows"])
    assert sum(kinds) >= 12 and not any(kinds[:LAG])
    assert answers.queue.next("bob", "t", 1)[0]["item"] not in [i for i, k in zip(shown, kinds, strict=True) if k]


def test_rescoring_leaves_leased_and_answered_slots_alone(tmp_path):
    answers = opened(tmp_path, 4)
    first, second = answers.queue.next("ada", "t", 2)
    answers.record("ada", event(first))
    rows = [(c.id, "infogain", 0.5, 0.25, 10.0 + n) for n, c in enumerate(pairs(4))]
    assert answers.queue.rescore(rows) == 2
    (third,) = answers.queue.next("bob", "t", 1)
    assert third["item"] == pairs(4)[3].id
    answers.record("bob", event(third))
    told = {e["item"]: e["body"]["server"] for e in answers.current()}
    assert told[third["item"]]["strategy"] == "infogain" and told[third["item"]]["propensity"] == 0.25
    assert told[first["item"]]["strategy"] == "random" and second["item"] not in told


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"choice": "both"}, "choice"),
        ({}, "choice"),
        ({"choice": "left", "hack": 1}, "hack"),
        ({"choice": "left", "strength": 9}, "strength"),
        ({"choice": "left", "note": "x" * 2001}, "note"),
        ({"choice": "left", "spans": [[0, 5, 5]]}, "spans"),
        ({"choice": "left", "spans": [[2, 0, 5]]}, "spans"),
        ({"choice": "left", "keypoints": [[0, -1]]}, "keypoints"),
        ({"choice": "left", "reasons": ["x" * 61]}, "reasons"),
        ({"choice": "left", "shown_ms": float("nan")}, "finite"),
        ({"choice": "left", "response_ms": True}, "response_ms"),
    ],
)
def test_what_no_page_says_is_refused_and_stores_nothing(tmp_path, body, why):
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "t", 1)
    with pytest.raises(InputError, match=why):
        answers.record("ada", event(given) | {"body": body})
    assert answers.log.events() == [] and answers.problems() == []


def test_a_clock_set_back_neither_reorders_events_nor_holds_leases(tmp_path, monkeypatch):
    answers = opened(tmp_path)
    answers.record("ada", event(*answers.queue.next("ada", "t", 1)))
    answers.queue.next("ada", "t", 3)
    answers.close()
    real = time.time_ns
    monkeypatch.setattr(eventlog.time, "time_ns", lambda: real() - 3600 * 10**9)
    later = Answers(tmp_path)
    answers = later.record("bob", event(*later.queue.next("bob", "t", 1)))
    times = [e["t_ms"] for e in later.log.events()]
    assert times == sorted(times) and later.problems() == []
    gap = later.log.db.execute("SELECT max(expires_ms) FROM slot").fetchone()[0] - later.log.now()
    assert gap <= LEASE_MS


def test_places_where_no_database_is_safe_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(eventlog, "filesystem", lambda place: "nfs4")
    with pytest.raises(InputError, match="network file system"):
        Answers(tmp_path)
    monkeypatch.undo()
    (tmp_path / FILE).parent.mkdir(parents=True)
    (tmp_path / FILE).write_bytes(b"not a database, but long enough to look at" * 40)
    with pytest.raises(InputError, match="damaged"):
        Answers(tmp_path)
    EventLog(tmp_path / "x.sqlite", {"format": "a"}).close()
    with pytest.raises(InputError, match="header"):
        EventLog(tmp_path / "x.sqlite", {"format": "b"})


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    opened(tmp_path).close()
    reader = sqlite3.connect(f"file:{tmp_path / FILE}?mode=ro", uri=True, isolation_level=None)
    with pytest.raises(InputError, match="writable folder"), eventlog._database_errors(tmp_path):
        reader.execute("INSERT INTO meta VALUES ('a', 'b')")
    reader.close()
    with pytest.raises(InputError, match="writable folder"), eventlog._database_errors(tmp_path):
        raise PermissionError(13, "Permission denied")


def test_the_file_system_of_a_folder_is_found(tmp_path):
    assert eventlog.filesystem(Path("/proc/self")) == "proc"
    assert eventlog.filesystem(tmp_path.resolve()) not in ("", "proc")


FULL = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from asked import event, opened
from robopref.data.eventlog import DiskFullError
answers = opened({folder!r}, 210)
given = answers.queue.next("ada", "t", 200)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    for one in given:
        answers.record("ada", event(one, note="n" * 1500, uid="uid-" + one["item"]))
        print(one["item"], flush=True)
except DiskFullError as error:
    print("FULL", error, file=sys.stderr)
    raise SystemExit(7)
"""


def test_a_full_disk_loses_nothing_that_was_acknowledged(tmp_path):
    code = FULL.format(here=str(HERE), folder=str(tmp_path), limit=900_000)
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.returncode == 7, child.stderr
    acknowledged = child.stdout.split()
    answers = Answers(tmp_path)
    assert 10 < len(acknowledged) < 200 and [e["item"] for e in answers.current()] == acknowledged
    assert answers.problems() == []
    (given,) = answers.queue.next("bob", "t", 1)
    assert answers.record("bob", event(given)).status == "counted"


def test_sqlites_own_full_is_told_as_a_full_disk(tmp_path):
    answers = opened(tmp_path, 100)
    given = answers.queue.next("ada", "t", 100)
    pages = answers.log.db.execute("PRAGMA page_count").fetchone()[0]
    answers.log.db.execute(f"PRAGMA max_page_count = {pages + 2}")
    count = 0

    def fill():
        nonlocal count
        for count, one in enumerate(given):  # noqa: B007
            answers.record("ada", event(one, note="n" * 1900))

    with pytest.raises(DiskFullError):
        fill()
    answers.log.db.execute("PRAGMA max_page_count = 100000")
    assert len(answers.current()) == count and answers.problems() == []
    assert answers.record("ada", event(given[count])).status == "counted"


KILLED = """
import sys
sys.path.insert(0, {here!r})
from asked import event
from robopref.labelers.people import Answers
answers = Answers({folder!r})
while given := answers.queue.next({name!r}, "t", 3):
    for n, one in enumerate(given):
        told = event(one, ["left", "right", "equal"][one["token"] % 3], uid=f"{name}-" + one["item"] + str(one["gen"]))
        print("try", told["uid"], told["body"]["choice"], flush=True)
        print("ack", told["uid"], answers.record({name!r}, told).status, flush=True)
"""


def killed_writers(folder, kills, rng):
    """Writers that are killed at random moments: acknowledged uid -> choice, and everything that was tried."""
    acknowledged, tried = {}, {}
    for round_ in range(kills):
        code = KILLED.format(here=str(HERE), folder=str(folder), name=f"p{round_:03d}")
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.2))
        child.send_signal(signal.SIGKILL)
        for line in child.communicate()[0].splitlines():
            word, uid, what = (line + " - -").split()[:3]
            if word == "try":
                tried[uid] = what
            elif word == "ack" and what == "counted":
                acknowledged[uid] = tried.get(uid)
    return acknowledged, tried


def test_nothing_acknowledged_is_lost_when_writers_are_killed(tmp_path):
    opened(tmp_path, 5000).close()
    acknowledged, tried = killed_writers(tmp_path, 8, random.Random(0))
    answers = Answers(tmp_path)
    stored = {e["uid"]: e["body"]["client"]["choice"] for e in answers.current()}
    assert len(acknowledged) > 20 and answers.problems() == []
    for uid, choice in acknowledged.items():
        assert stored[uid] == (choice or stored[uid])
    assert len(stored) <= len(acknowledged) + 2 * 8, "more answers than were given"
    assert all(tried.get(uid, choice) == choice for uid, choice in stored.items())


def test_a_torn_tail_of_the_wal_costs_no_committed_answer(tmp_path):
    answers = opened(tmp_path)
    for given in answers.queue.next("ada", "t", 5):
        answers.record("ada", event(given))
    wal = tmp_path / (FILE + "-wal")
    copy = tmp_path / "copy"
    (copy / FILE).parent.mkdir(parents=True)
    (copy / FILE).write_bytes((tmp_path / FILE).read_bytes())
    (copy / (FILE + "-wal")).write_bytes(wal.read_bytes() + b"\x00\xff" * 700)
    torn = Answers(copy)
    assert len(torn.current()) == 5 and torn.problems() == []


def test_a_note_joins_its_answer(tmp_path):
    answers = opened(tmp_path)
    told = event(*answers.queue.next("ada", "t", 1))
    answers.record("ada", told)
    note = {"uid": "note-00000", "kind": "note", "supersedes": told["uid"], "body": {"note": "ünïcödé 手"}}
    assert answers.record("ada", note).status == "counted"
    with pytest.raises(InputError, match="note"):
        answers.record("eve", note | {"uid": "note-00001"})
    assert answers.log.events(("note",))[0]["body"]["client"] == {"note": "ünïcödé 手"}
    assert json.loads(answers.log.find("note-00000")["body"])["client"]["note"].endswith("手")


def test_a_backup_is_a_whole_copy(tmp_path):
    answers = opened(tmp_path)
    answers.record("ada", event(*answers.queue.next("ada", "t", 1)))
    (tmp_path / "b" / FILE).parent.mkdir(parents=True)
    answers.log.backup(tmp_path / "b" / FILE)
    assert Answers(tmp_path / "b").log.head() == answers.log.head()


@pytest.mark.parametrize(
    "odd",
    [
        {"body": {"choice": "left", "note": "half a smile \ud83d"}},
        {"body": {"choice": "left", "loops": [float("nan")]}},
        {"item": "\ud800"},
        {"slot": 10**30},
        {"slot": -1},
        {"uid": "with:colons"},
        {"uid": "with~tilde"},
        {"uid": "clip-of-the-server"},
    ],
)
def test_what_cannot_be_stored_is_refused_by_itself(tmp_path, odd):
    """An error of the database would hold up everything that waits behind it."""
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "t", 1)
    with pytest.raises(InputError, match="event"):
        answers.record("ada", event(given) | odd)
    assert answers.record("ada", event(given) | {"supersedes": ["x"]}).status == "counted"
    assert len(answers.log.events()) == 1 and answers.problems() == []


def test_a_skip_may_say_why_in_any_script(tmp_path):
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "t", 1)
    assert answers.record("ada", event(given, kind="skip", note="看不清" * 600)).status == "counted"
    (given,) = answers.queue.next("ada", "t", 1)
    with pytest.raises(InputError, match="more than a skip"):
        answers.record("ada", event(given, kind="skip", note=["x"]))


def test_an_undo_whose_reply_was_lost_gives_the_question_when_it_is_sent_again(tmp_path):
    answers = opened(tmp_path)
    (given,) = answers.queue.next("ada", "t", 1)
    told = event(given)
    answers.record("ada", told)
    back = undo(told["uid"])
    first, again = answers.record("ada", back), answers.record("ada", back)
    assert again.status == "duplicate" and dict(again.assignment) | {"expires_ms": 0} == dict(first.assignment) | {
        "expires_ms": 0
    }
    assert answers.record("ada", event(again.assignment, "right")).status == "counted"
    late = answers.record("ada", back)
    assert (late.status, late.assignment) == ("duplicate", None) and choices(answers) == ["right"]


def test_a_session_asks_its_own_mode_and_counts_its_own_answers(tmp_path):
    """Pairs that an earlier session left open must not be shown under the question of another mode."""
    first = opened(tmp_path, 6, target=3)
    first.record("ada", event(first.queue.next("ada", "tab", 1)[0]))
    first.queue.next("ada", "tab", 2)
    first.close()
    flags = [Comparison((Window(n, 0, 10),), "flag") for n in range(4)]
    answers = Answers(tmp_path, target=3)
    answers.queue.add(flags, lambda w: f"hash-{w.episode}")
    answers.queue.begin({one.id for one in flags}, "flag")
    given = answers.queue.next("ada", "tab", 9)
    assert [g["mode"] for g in given] == ["flag"] * 3
    assert answers.queue.counts() | {"leased": 0} == {
        "waiting": 0,
        "open": 4,
        "done": 0,
        "closed": 0,
        "leased": 0,
    }
    answers.record("ada", event(given[0], "success"))
    assert answers.queue.counts()["done"] == answers.queue.answered_by("ada") == 1
    answers.close()
    again = opened(tmp_path, 6, target=3)
    again.queue.begin({one.id for one in pairs(6)}, "pairs")
    assert again.queue.counts()["done"] == 1 and [g["mode"] for g in again.queue.next("ada", "tab", 9)] == ["pairs"] * 2
    again.close()
    windows = Answers(tmp_path)
    shorter = pairs(6, length=5)
    windows.queue.add(shorter, lambda w: f"hash-{w.episode}")
    windows.queue.begin({one.id for one in shorter}, "pairs")
    assert {g["windows"][0].end for g in windows.queue.next("bob", "t", 9)} == {5}


def test_more_people_per_question_than_last_time_means_more_slots(tmp_path):
    opened(tmp_path, 3).close()
    answers = opened(tmp_path, 3, overlap=2)
    assert answers.queue.counts()["open"] == 6
    (given,) = answers.queue.next("ada", "t", 1)
    answers.record("ada", event(given, kind="broken"))
    answers.queue.add(pairs(3), lambda w: "", 3)
    assert answers.queue.counts()["open"] == 6 and answers.queue.counts()["closed"] == 2


def test_leases_of_a_clock_that_ran_ahead_end_as_others_do(tmp_path, monkeypatch):
    ahead = opened(tmp_path, 1)
    real = ahead.log.now
    monkeypatch.setattr(ahead.log, "now", lambda: real() + 24 * 3600 * 1000)
    assert len(ahead.queue.next("ada", "t", 1)) == 1
    ahead.close()
    answers = opened(tmp_path, 1)
    answers.queue.begin({one.id for one in pairs(1)}, "pairs")
    assert answers.queue.next("bob", "t", 1) == []
    passed = answers.log.now() + LEASE_MS + 1
    monkeypatch.setattr(answers.log, "now", lambda: passed)
    assert len(answers.queue.next("bob", "t", 1)) == 1


def test_an_answer_counts_though_its_clips_are_to_be_made_again(tmp_path):
    answers = opened(tmp_path, 2)
    (given,) = answers.queue.next("ada", "t", 1)
    answers.queue.hold_back(lambda item: False)
    assert answers.queue.next("bob", "t", 9) == [] and answers.queue.renew("ada", [f"{given['item']}/0"]) != []
    assert answers.record("ada", event(given)).status == "counted" and answers.problems() == []


def test_names_of_mounts_are_read_in_any_script():
    assert eventlog._unescaped("/mnt/donn\u00e9es\\040\u53d6") == "/mnt/donn\u00e9es \u53d6"


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs", "fuse.rclone", "9p", "ceph", "fuse.gcsfuse"])
def test_every_network_file_system_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(eventlog, "filesystem", lambda place: kind)
    with pytest.raises(InputError, match="network file system"):
        eventlog.refuse_network(tmp_path)


def test_a_folder_of_somebody_else_is_told_at_once(tmp_path):
    """The real thing: a process of another user, to whom the dataset is readable only."""
    if os.geteuid() != 0:
        pytest.skip("needs another user to be")
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        opened(place).close()
        place.chmod(0o755)
        for path in place.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        code = f"import os\nfrom robopref.labelers.people import Answers\nos.setegid(65534)\nos.seteuid(65534)\nAnswers({str(place)!r})"
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "writable folder" in said.stderr, said.stderr
    finally:
        shutil.rmtree(place)
