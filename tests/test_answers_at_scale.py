"""Requests do not walk through all questions: counts are kept while slots change, and ten thousand questions cost what a hundred cost."""

import random

import pytest
from asked import event, opened, undo

from robopref.data.question_queue import SHORTCUTS, CheckPlan
from robopref.labelers.people import Answers

STATES = ("waiting", "open", "done", "closed")


def counted(answers):
    """Slots by state, every one looked at."""
    db, now = answers.log.db, answers.log.now()
    rows = db.execute("SELECT state, count(*) FROM slot WHERE only_for IS NULL GROUP BY state").fetchall()
    leased = "SELECT count(*) FROM slot WHERE only_for IS NULL AND state = 'open' AND expires_ms >= ?"
    return dict.fromkeys(STATES, 0) | dict(rows) | {"leased": db.execute(leased, (now,)).fetchone()[0]}


def work(answers, people, rounds, rng):
    """Answers, skips, broken clips and undos of several people; after each, the counts are those of all slots."""
    past = []
    for n in range(rounds):
        who = rng.choice(people)
        if past and rng.random() < 0.2:
            author, uid = past.pop()
            answers.record(author, undo(uid))
        elif given := answers.queue.next(who, f"tab-{who}", 1):
            kind = rng.choice(["answer"] * 6 + ["skip", "broken"])
            told = event(given[0], rng.choice(["left", "right", "equal"]), kind)
            answers.record(who, told)
            past.append((who, told["uid"]))
        assert answers.queue.counts() == counted(answers), n


def test_counts_are_those_of_all_slots_whatever_happens(tmp_path):
    answers = opened(tmp_path, 60, overlap=2, plan=CheckPlan(0.3))
    work(answers, ["ada", "bo", "cy"], 150, random.Random(0))
    assert counted(answers)["done"] > 20 and counted(answers)["closed"] > 0
    answers.close()
    assert Answers(tmp_path).queue.counts() == counted(Answers(tmp_path))


def test_a_file_of_before_gets_its_counts_when_it_is_opened(tmp_path):
    answers = opened(tmp_path, 30, plan=CheckPlan(0.3))
    work(answers, ["ada", "bo"], 30, random.Random(1))
    for kind in ("TABLE", "TRIGGER", "INDEX"):
        for line in SHORTCUTS.splitlines():
            if line.startswith(f"CREATE {kind}"):
                answers.log.db.execute(
                    f"DROP {kind} IF EXISTS {line.split('IF NOT EXISTS ')[1].split(' ')[0].split('(')[0]}"
                )
    answers.close()
    again = Answers(tmp_path, plan=CheckPlan(0.3), seed=1)
    assert again.queue.counts() == counted(again)
    work(again, ["ada", "bo"], 20, random.Random(2))


def steps(answers, action):
    """Hundreds of instructions that SQLite needs for `action`."""
    spent = []
    answers.log.db.set_progress_handler(lambda: spent.append(1) and None, 100)
    action()
    answers.log.db.set_progress_handler(None, 0)
    return len(spent)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_request_costs_the_same_among_ten_thousand_questions(tmp_path, share):
    """As far as the person's own answers are as many."""
    cost = []
    for count in (100, 10_000):
        answers = opened(tmp_path / str(count), count, plan=CheckPlan(share))
        for _ in range(40):
            (given,) = answers.queue.next("ada", "tab-ada", 1)
            answers.record("ada", event(given))

        def request(answers=answers):
            (given,) = answers.queue.next("ada", "tab-ada", 1)
            answers.record("ada", event(given))
            answers.queue.counts()

        cost.append(max(steps(answers, request) for _ in range(6)))
    assert cost[1] <= 1.5 * cost[0] + 5, cost
