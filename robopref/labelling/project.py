"""One dataset under labelling: its questions, its clips, its people, and what runs in the background beside them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from robopref import __version__
from robopref.data.answer_rows import Comparison
from robopref.data.eventlog import canonical
from robopref.data.pairs import Window
from robopref.data.proposals import proposed
from robopref.data.question_queue import CheckPlan
from robopref.data.store import TrajectoryStore
from robopref.labelers.people import Answers
from robopref.labelling.accounts import Accounts
from robopref.labelling.clips import Clips
from robopref.labelling.options import Options
from robopref.labelling.pool import questions
from robopref.labelling.scorer import Scorer

AHEAD = 100
"""Open questions whose clips exist already; beyond that, no clips are made until some are answered."""
AT_ONCE = 2
DEFAULT_TARGET = 200
_QUESTION = (
    "CREATE TABLE IF NOT EXISTS question(id TEXT PRIMARY KEY, text TEXT NOT NULL, lang TEXT NOT NULL, label_model TEXT NOT NULL, "
    "training_id TEXT NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID"
)


class Project:
    """Opens everything; `keep_going` is the background loop. Raises `InputError` for a dataset that cannot be labelled."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.store = TrajectoryStore(options.dataset)
        plan = CheckPlan(options.repeats, 14 if options.screen else 0) if options.mode == "pairs" else CheckPlan(0.0)
        pool = questions(
            self.store.episodes, options.mode, options.pool, options.seed, options.segment, options.clips, options.pairs or DEFAULT_TARGET,
            proposed(self.store),
        )  # fmt: skip
        self.target = min(options.pairs or DEFAULT_TARGET, len(pool) * options.overlap)
        self.answers = Answers(options.dataset, self.target, plan)
        header = self.answers.log.header
        folder = options.dataset / "meta/preferences/clips"
        self.clips = Clips(self.store, folder, header["project"], options.cameras, options.size, speed=options.speed)
        self.accounts = Accounts(self.answers.log)
        self.question_id = self._ask()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._items: dict[Window, set[str]] = defaultdict(set)
        self._needs: dict[str, tuple[Window, ...]] = {}
        self._gold = self._gold_pairs() if options.gold else []
        self.answers.queue.add(pool, self._hash, options.overlap, ready=False)
        self.answers.queue.begin({one.id for one in pool}, options.mode)
        self.answers.queue.shows = self._shows
        self.answers.reopen_unmade()
        self._index()
        strategy = options.strategy if options.mode == "pairs" else "random"
        self.scorer = Scorer(self.answers, self.store.root, strategy, options.seed, self._nudge_from_thread)

    def assignment(self, given: dict[str, Any]) -> dict[str, Any]:
        """A lease as the page gets it: no episode numbers, no hint about checks."""
        told = {k: given[k] for k in ("item", "slot", "gen", "token", "mode")}
        told["name"] = f"{given['item']}/{given['slot']}"
        for window in given[
            "windows"
        ]:  # an answer of before that was taken back may have been about clips of another size
            self.clips.start(window, self._clip_done)
        return told | {"clips": [self.clips.describe(w) for w in given["windows"]], "question_id": self.question_id}

    def server_part(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored with every event besides what the page says. An answer that arrives late keeps the wording that it was given under."""
        item, body = event.get("item"), event.get("body")
        wording = self._wordings.get(
            str(body.get("question_id")) if isinstance(body, dict) else "", self._wordings[self.question_id]
        )
        told: dict[str, Any] = dict(wording) | {"version": __version__}
        if isinstance(item, str) and item in self._needs:
            told["hashes"] = [self._hash(w)[:16] for w in self._needs[item]]
            told["cameras"] = list(self.clips.cameras)
        return told

    def progress(self, person: str) -> dict[str, Any]:
        """Counts for the page: all answers, the person's own, what is wanted, and how many questions can be shown now.

        Checks are counted with the others, on both sides: a number that stands still would tell which question was one.
        """
        counts, plan = self.answers.queue.counts(), self.answers.queue.plan
        finished, wanted = counts["done"] >= self.target, self.target + int(plan.share * self.target)
        return {
            "done": wanted if finished else min(counts["done"] + self.answers.queue.checks(), wanted - 1),
            "target": wanted,
            "mine": self.answers.queue.answered_by(person),
            "ready": counts["open"] - counts["leased"],
            "leased": counts["leased"],
            "waiting": counts["waiting"],
            "closed": counts["closed"],
            "finished": finished,
        }

    async def keep_going(self) -> None:
        """Make clips ahead of the people and re-score questions, until cancelled. Labelling never waits for either."""
        self._loop = asyncio.get_running_loop()
        self._release()
        while True:
            self._wake.clear()
            self._start_clips()
            self.scorer.maybe_start()
            try:
                await asyncio.wait_for(self._wake.wait(), 5.0)
            except TimeoutError:
                continue

    def nudge(self) -> None:
        """Something changed: look again for clips to make."""
        self._wake.set()

    def close(self) -> None:
        """Stop the background processes and close the database."""
        self.scorer.close()
        self.clips.close()
        self.answers.close()

    def _ask(self) -> str:
        """Store the wording; other wording, language, meaning or training gets another id."""
        o = self.options
        told = [o.text, o.lang, o.label_model, o.training_id]
        digest = hashlib.sha256(canonical(told).encode()).hexdigest()
        with self.answers.log.write() as db:
            db.execute(_QUESTION)
            db.execute("INSERT OR IGNORE INTO question VALUES (?,?,?,?,?,?)", (digest[:16], *told, digest))
            rows = db.execute("SELECT id, label_model FROM question").fetchall()
        self._wordings = {r["id"]: {"question_id": r["id"], "label_model": r["label_model"]} for r in rows}
        return digest[:16]

    def _hash(self, window: Window) -> str:
        return self.store.episode_hash(window.episode)

    def _index(self) -> None:
        """Which questions wait for which windows. Questions about changed episodes are closed."""
        for row in self.answers.log.db.execute("SELECT id, windows, hashes FROM comparison").fetchall():
            windows = tuple(Window(*w) for w in json.loads(row["windows"]))
            gone = any(w.episode >= len(self.store) for w in windows)
            if gone or [self._hash(w) for w in windows] != json.loads(row["hashes"]):
                self.answers.close_broken(row["id"], "the episode has changed since the question was made")
                continue
            self._needs[row["id"]] = windows
            for w in windows:
                self._items[w].add(row["id"])

    def _release(self) -> None:
        """Open what has its clips; what was open before, and has none of this size or these cameras, waits."""
        queue = self.answers.queue
        queue.hold_back(self._has_clips)
        queue.release_waiting({item for item in queue.waiting(10**9) if self._has_clips(item)})
        self._release_gold()

    def _has_clips(self, item: str) -> bool:
        return item in self._needs and self._shows(self._needs[item])

    def _shows(self, windows: Sequence[Window]) -> bool:
        return all(self.clips.ready(w) for w in windows)

    def _start_clips(self) -> None:
        counts = self.answers.queue.counts()
        if self.clips.busy >= AT_ONCE or (counts["open"] - counts["leased"] >= AHEAD and not self._gold):
            return
        gold = [w for one in self._gold for w in one.windows]
        windows = [w for item in self.answers.queue.waiting(50) for w in self._needs.get(item, ())]
        for window in [*windows[:8], *gold, *windows[8:]]:
            if self.clips.busy >= AT_ONCE:
                return
            self.clips.start(window, self._clip_done)

    def _nudge_from_thread(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.nudge)

    def _clip_done(self, window: Window) -> None:
        """Called from the thread of the process pool."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, window)

    def _settle(self, window: Window) -> None:
        if why := self.clips.failure(window):
            for item in self._items[window]:
                self.answers.close_broken(item, why)
            self._gold = [one for one in self._gold if window not in one.windows]
        elif self.clips.ready(window):
            self.answers.queue.release_waiting([i for i in self._items[window] if self._has_clips(i)])
        self._release_gold()
        self.nudge()

    def _release_gold(self) -> None:
        """Gold questions join the checks once their clips exist."""
        ready = [one for one in self._gold if self._shows(one.windows)]
        if ready:
            self.answers.queue.add(ready, self._hash)
            self._gold = [one for one in self._gold if one not in ready]
            self._needs |= {one.id: one.windows for one in ready}

    def _gold_pairs(self) -> list[Comparison]:
        """Questions whose answer is known by construction: a success against a failure of the same task and reset, or task."""
        outcome = [t.succeeded for t in self.store.load()]
        by_task: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        for episode, good in zip(self.store.episodes, outcome, strict=True):
            by_task[episode.task][0 if good else 1].append(episode.index)
        found = []
        for wins, losses in by_task.values():
            for n in range(min(self.options.gold, len(wins) * len(losses))):
                a, b = wins[n % len(wins)], losses[(n + n // len(wins)) % len(losses)]
                windows = (Window(a, 0, self.store.episodes[a].length), Window(b, 0, self.store.episodes[b].length))
                found.append(Comparison(windows, strategy="gold", gold="first"))
        return found[: self.options.gold]
