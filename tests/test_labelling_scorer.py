"""The background worker re-scores questions from answers; people are the rater of a run."""

import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from robopref.benchmarks.labelling.server import answer, dataset, serving

from robopref.arrays import InputError
from robopref.data.pairs import Pair, Window
from robopref.data.preferences import PreferenceStore
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers
from robopref.labelling.pool import questions
from robopref.labelling.posterior import Posterior
from robopref.labelling.render import prepare
from robopref.labelling.scorer import PLACED, kernel_features, rescored, score, window_features


def test_scores_follow_the_answers_and_say_how_likely_each_question_was(tmp_path):
    root = dataset(tmp_path / "s", 12)
    store = TrajectoryStore(root)
    whole = [(e.index, 0, e.length) for e in store.episodes]
    asked = [([whole[a], whole[b]], float(a % 2 == 0)) for a, b in ((0, 1), (2, 3), (5, 4), (6, 7), (9, 8), (10, 11))]
    left = [
        (f"i{a}-{b}", f"[[{a},0,{whole[a][2]}],[{b},0,{whole[b][2]}]]")
        for a in range(12)
        for b in range(a)
        if a - b > 1
    ]
    for strategy in ("epig", "infogain", "disagreement", "volume"):
        rows = score(str(root), asked, left, strategy, 0)
        assert [r[0] for r in rows] == [name for name, _ in left] and all(0 < r[3] <= 1 for r in rows)
        assert {r[1] for r in rows} <= {"random", strategy}
        assert len({r[4] for r in rows if r[4] > 100}) == 50
    assert rows == score(str(root), asked, left, "volume", 0)


def test_only_what_changes_the_order_is_written_back(tmp_path):
    """Questions in order, and those that a scoring before had put there; the others keep their random place."""
    root = dataset(tmp_path / "s", 12)
    episodes = TrajectoryStore(root).episodes
    answers = Answers(root)
    answers.queue.add(questions(episodes, "pairs", 60, 0), lambda window: "", ready=True)
    assert rescored(str(root), "epig", 0) == []
    placed = set()
    for n in range(3):
        (given,) = answers.queue.next("ada", "tab", 1)
        answers.record("ada", answer(given, "left", f"written-{n}"))
        rows = rescored(str(root), "epig", n)
        now = {row[0] for row in rows if row[4] > PLACED}
        open_before = {r[0] for r in answers.log.db.execute("SELECT item FROM slot WHERE state = 'open'")}
        assert len(now) == 50 and {row[0] for row in rows} == now | (placed & open_before)
        assert all(row[1] == "random" and 0 <= row[4] < 1 for row in rows if row[0] not in now)
        assert answers.queue.rescore(rows) == len(rows)
        best = max(rows, key=lambda row: row[4])[0]
        assert answers.queue.next("bob", f"tab{n}", 1)[0]["item"] == best
        answers.queue.release("bob", [f"{best}/0"])
        placed = now
    answers.close()


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads and sessions are Linux's")
def test_a_worker_gives_way_with_all_its_threads_and_in_a_session_of_its_own():
    begin = os.getpriority(os.PRIO_PROCESS, 0)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=(os.getpid(), 3)) as pool:
        niceness, leads, group = pool.submit(standing).result()
    assert niceness == {min(19, begin + 3)} and leads
    assert group is None or group.endswith("nice 3")


def standing():
    """Niceness of every thread, whether the process leads its session, and what its session weighs."""
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    file = Path("/proc/self/autogroup")
    group = file.read_text().strip() if file.exists() else None
    return {os.getpriority(os.PRIO_PROCESS, t) for t in threads}, os.getsid(0) == os.getpid(), group


def test_features_tell_windows_apart_and_are_of_one_scale(tmp_path):
    root = dataset(tmp_path / "s", 6)
    table = np.array(list(window_features(str(root), [(i, 0, 20) for i in range(6)]).values()))
    assert np.isfinite(table).all() and np.linalg.matrix_rank(table - table.mean(0)) >= 4
    assert 0.2 < table.std() < 2


def test_kernel_features_have_the_centred_kernel_as_their_inner_products():
    points = np.random.default_rng(0).normal(size=(40, 3))
    apart = ((points[:, None] - points) ** 2).sum(-1)
    kernel = np.exp(-apart / np.median(apart[apart > 0]))
    centred = kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean()
    features = kernel_features(points)
    np.testing.assert_allclose(features @ features.T, centred, atol=1e-4)
    assert kernel_features(np.ones((5, 3))).shape == (5, 0)


def test_a_reward_with_a_best_middle_is_learned_from_kernel_features():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(800, 2))
    reward = -np.abs(points[:, 0])
    a, b = rng.integers(800, size=(2, 600))
    features = kernel_features(points)
    features /= features.std()

    def accuracy(table):
        x, better = table[a] - table[b], (reward[a] > reward[b]).astype(float)
        return np.mean((x[300:] @ Posterior().fit(x[:300], better[:300]).mean > 0) == better[300:])

    assert accuracy(features) > 0.9 > 0.65 > accuracy(points)


def test_the_server_rescores_while_people_label(tmp_path):
    with serving(dataset(tmp_path / "s", 12), "minimum=0", "repeats=0", "strategy=epig") as server:
        client = server.client()
        for n in range(8):
            (given,) = client.next()
            client.record(answer(given, ("left", "right")[n % 2], f"scored-{n:04d}"))
        for _ in range(600):
            told = client.ask("GET", "/api/quality")[1]
            if told["scored"]:
                break
        assert told["scored"] >= 1
        (given,) = client.next(tab="tab-00000002")
        client.record(answer(given, "left", "scored-last"))
        assert {"epig", "random"} >= set(client.ask("GET", "/api/quality")[1]["strategies"])


def test_people_need_a_dataset_that_was_answered(tmp_path):
    from robopref.run import compose
    from robopref.stages.people import answered, answered_dataset, are_people

    with pytest.raises(InputError, match="dataset=DIR"):
        compose(["labeler=people"])
    root = dataset(tmp_path / "s", 4)
    config = compose(["experiment=quickstart", "labeler=people", f"dataset={root}"])
    assert are_people(config) and config["labeler_name"] == "people" and answered(root) == 0
    with pytest.raises(InputError, match="robopref annotate"):
        answered_dataset(root)
    PreferenceStore(TrajectoryStore(root)).append([Pair(Window(0, 0, 30), Window(1, 0, 20), 1.0, source="human")])
    assert answered_dataset(root) == root.resolve()
    assert compose(["experiment=human_in_the_loop"])["people"]["ask"] is True


def test_answers_that_nobody_exported_are_used(tmp_path):
    from robopref.stages.people import answered_dataset

    root = dataset(tmp_path / "s", 6)
    store, answers = TrajectoryStore(root), Answers(root)
    answers.queue.add(questions(store.episodes, "pairs", 9, 0), lambda w: store.episode_hash(w.episode))
    given = answers.queue.next("ada", "tab", 3)
    for n, one in enumerate(given[:2]):
        answers.record("ada", answer(one, "left", f"used-{n:04d}"))
    answered_dataset(root)
    answers.record("ada", answer(given[2], "right", "used-0002"))
    answered_dataset(root)  # one more since
    assert len(PreferenceStore(TrajectoryStore(root)).pairs()) == 3
    answers.close()


def test_a_round_that_has_nothing_left_to_ask_says_so(tmp_path, monkeypatch):
    from robopref.run import compose
    from robopref.stages import people

    monkeypatch.setattr(people, "_NOTHING_LEFT", 6.0)
    root = dataset(tmp_path / "s", 2)
    answers = Answers(root)
    (only,) = questions(TrajectoryStore(root).episodes, "pairs", 9, 0)
    answers.queue.add([only], lambda w: TrajectoryStore(root).episode_hash(w.episode))
    answers.record("ada", answer(answers.queue.next("ada", "tab", 1)[0], "left", "only-one"))
    answers.close()
    config = compose(["experiment=human_in_the_loop", "people.options=['minimum=0']", "people.port=0"])
    with pytest.raises(InputError, match="nothing left to ask"):
        people.ask_people(config, root, 3, pause=0.2)


@pytest.mark.slow
def test_a_round_waits_for_people_and_goes_on_with_their_answers(tmp_path):
    import threading

    from robopref.run import compose
    from robopref.stages import people

    root = dataset(tmp_path / "s", 8)
    config = compose(
        ["experiment=human_in_the_loop", "people.options=['minimum=0','repeats=0','strategy=random']", "people.port=0"]
    )
    printed = tmp_path / "printed"

    class Told(people.subprocess.Popen):
        def __init__(self, command, **more):
            with printed.open("w") as out:
                super().__init__(command, **more | {"stdout": out})

    def label():
        from robopref.benchmarks.labelling.server import Client

        while not printed.exists() or "#t=" not in printed.read_text():
            time.sleep(0.1)
        link = printed.read_text().strip()
        host, port = link.split("/")[2].split(":")
        client = Client((host, int(port)), link.split("#t=")[1])
        for n in range(3):
            (given,) = client.next()
            client.record(answer(given, "left", f"looped-{n:04d}"))

    labeller = threading.Thread(target=label)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(people.subprocess, "Popen", Told)
        labeller.start()
        assert people.ask_people(config, root, 3, pause=0.2) == 3
    labeller.join()
    rows = PreferenceStore(TrajectoryStore(root)).pairs()
    assert len(rows) == 3 and all(p.source == "human" and p.answered for p in rows)
    assert sys.modules["robopref.stages.people"] is people
