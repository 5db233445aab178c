"""Questions and answers for tests of what people say."""

import itertools

from robopref.data.answer_rows import Comparison
from robopref.data.pairs import Window
from robopref.labelers.people import Answers

_number = itertools.count()


def pairs(count, length=10):
    """Different pairs of made-up episodes, the first of highest priority."""
    every = itertools.islice(itertools.combinations(range(200), 2), count)
    return [
        Comparison((Window(a, 0, length), Window(b, 0, length)), priority=-float(n)) for n, (a, b) in enumerate(every)
    ]


def opened(folder, count=10, overlap=1, **more):
    """Answers in `folder` with `count` pairs to ask."""
    answers = Answers(folder, seed=0, **more)
    answers.queue.add(pairs(count), lambda w: f"hash-{w.episode}", overlap)
    return answers


def event(assignment, choice="left", kind="answer", uid=None, **body):
    """What the page sends about an assignment."""
    told = {k: assignment[k] for k in ("item", "slot", "gen", "token")}
    body = {"choice": choice, **body} if kind == "answer" else body
    return told | {"uid": uid or f"uid-{next(_number):08d}", "kind": kind, "body": body}


def undo(uid):
    return {"uid": f"uid-{next(_number):08d}", "kind": "undo", "supersedes": uid, "body": {}}
