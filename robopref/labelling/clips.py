"""The clips of a project: which file belongs to which window and camera, and the background processes that make them.

A clip's name is a hash of the episode's content and of all settings, so it is made once and never wrong. The page knows
opaque ids only: an id that is not in the manifest does not exist, and no path ever comes from a request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import multiprocessing
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

from robopref.arrays import InputError
from robopref.data.eventlog import canonical
from robopref.data.files import DiskFullError
from robopref.data.pairs import Window
from robopref.data.store import TrajectoryStore
from robopref.labelling.encode import CODECS
from robopref.labelling.render import DEFAULT, ClipJob, environments_of, job_key, make, prepare, versions

log = logging.getLogger(__name__)
MOST_CAMERAS = 3
_PROCESSES = 2
"""Models that may be loaded at once; each has one process."""
_LIVES, _PAUSE = 3, 10.0
"""Processes that may die over one window before it is given up, and seconds without a new clip after the disk was full."""


class Clips:
    """The clips of one store. Raises `InputError` when there is nothing to show: no video, no states, no known environment."""

    def __init__(
        self, store: TrajectoryStore, folder: Path, secret: str, cameras: Iterable[str] = (), size: int = 256, fps: int = 25, speed: float = 1.0
    ) -> None:  # fmt: skip
        self.store, self.folder, self.size = store, folder, size
        self.stride = max(1, round(store.fps * speed / fps))
        self.fps = max(1, min(fps, round(store.fps * speed / self.stride)))  # what was recorded slowly plays slowly
        self.slow_motion = self.fps * self.stride / store.fps
        self.source = "video" if store.cameras else "states"
        self.cameras = self._cameras(tuple(cameras))
        self._secret, self._versions = secret.encode(), list(versions())
        self._manifest: dict[str, tuple[Path, str]] = {}
        self._jobs: dict[Window, ClipJob] = {}
        self._ready: set[Window] = set()
        self._failed: dict[Window, str] = {}
        self._running: dict[Window, Future[int]] = {}
        self._died: dict[Window, int] = {}
        self._resume_at = 0.0
        self._pools: OrderedDict[str, ProcessPoolExecutor] = OrderedDict()
        if self.source == "states":
            self._check_drawable()

    def describe(self, window: Window) -> dict[str, Any]:
        """What the page needs to show a window: cameras with the ids of their files, frames, rate, stride."""
        job = self._job(window)
        views = []
        for camera in self.cameras:
            files = []
            for codec in CODECS:
                path = next(Path(p) for c, k, p in job.outputs if (c, k) == (camera, codec))
                files.append({"id": self._id(path), "type": CODECS[codec].media_type})
            views.append({"camera": camera, "files": files})
        frames = (window.end - 1 - window.start) // self.stride + 1
        first = window.end - 1 - (frames - 1) * self.stride
        return {"views": views, "frames": frames, "fps": self.fps, "stride": self.stride, "first": first - window.start}

    def file(self, clip: str) -> tuple[Path, str] | None:
        """(path, media type) of an id that was given out, or None."""
        return self._manifest.get(clip)

    def ready(self, window: Window) -> bool:
        """Whether all clips of a window exist."""
        if window not in self._ready and all(Path(p).is_file() for _, _, p in self._job(window).outputs):
            self._ready.add(window)
        return window in self._ready

    def failure(self, window: Window) -> str:
        """Why the clips of a window cannot be made, or an empty string."""
        return self._failed.get(window, "")

    @property
    def failures(self) -> list[str]:
        """All such reasons, each once."""
        return sorted(set(self._failed.values()))

    @property
    def busy(self) -> int:
        """Windows that are being made now."""
        return len(self._running)

    def start(self, window: Window, done: Callable[[Window], None]) -> None:
        """Make the clips of a window in the background; `done` is called from another thread when they exist or failed."""
        if (
            window in self._running
            or window in self._failed
            or self.ready(window)
            or time.monotonic() < self._resume_at
        ):
            return
        job = self._job(window)
        missing = tuple(o for o in job.outputs if not Path(o[2]).is_file())
        future = self._pool(self.store.episodes[window.episode].task).submit(make, replace(job, outputs=missing))
        self._running[window] = future

        def finished(result: Future[int]) -> None:
            self._finish(window, result)
            done(window)

        future.add_done_callback(finished)

    def close(self) -> None:
        """Stop the processes; a clip that is half made leaves nothing behind."""
        for pool in self._pools.values():
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
        self._pools.clear()

    def _finish(self, window: Window, result: Future[int]) -> None:
        self._running.pop(window, None)
        if result.cancelled():
            return
        error = result.exception()
        if error is None:
            self._ready.add(window)
            return
        if isinstance(
            error, BrokenProcessPool
        ):  # the process died, for example in a driver: the next one starts afresh
            self._pools.pop(self.store.episodes[window.episode].task, None)
            self._died[window] = self._died.get(window, 0) + 1
            if self._died[window] < _LIVES:
                return
        if isinstance(error, DiskFullError):  # nothing is wrong with the episode
            self._resume_at = time.monotonic() + _PAUSE
            log.warning("no clips are made for %.0f s: %s", _PAUSE, error)
            return
        self._failed[window] = f"{type(error).__name__}: {error}"
        log.warning("clips of episode %d cannot be made: %s", window.episode, self._failed[window])

    def _pool(self, task: str) -> ProcessPoolExecutor:
        if task not in self._pools:
            if len(self._pools) >= _PROCESSES:
                self._pools.popitem(last=False)[1].shutdown(wait=False)
            context = multiprocessing.get_context("spawn")
            self._pools[task] = ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=(os.getpid(),))
        self._pools.move_to_end(task)
        return self._pools[task]

    def _job(self, window: Window) -> ClipJob:
        if window not in self._jobs:
            self._jobs[window] = job = self._new_job(window)
            for _, codec, path in job.outputs:
                self._manifest[self._id(Path(path))] = (Path(path), CODECS[codec].media_type)
        return self._jobs[window]

    @property
    def ms_per_step(self) -> float:
        """How long a step of an episode lasts on the page."""
        return 1000 / (self.stride * self.fps)

    def _new_job(self, window: Window) -> ClipJob:
        episode = self.store.episodes[window.episode]
        envs = environments_of(episode.env, episode.task) if self.source == "states" else ()
        job = ClipJob(
            str(self.store.root), window.episode, window.start, window.end, self.cameras, self.source, self.size, self.stride, self.fps, envs, ()
        )  # fmt: skip
        key = [*job_key(job, episode.hash), self._versions]
        outputs = []
        for camera in self.cameras:
            for codec, how in CODECS.items():
                told = canonical([key, camera, codec, how.options, how.container])
                outputs.append(
                    (camera, codec, str(self.folder / (hashlib.sha256(told.encode()).hexdigest()[:40] + how.suffix)))
                )
        return replace(job, outputs=tuple(outputs))

    def _id(self, path: Path) -> str:
        """An id that says nothing about the file, and cannot be guessed without the project's secret."""
        return hmac.new(self._secret, path.name.encode(), "sha256").hexdigest()[:32]

    def _cameras(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        if self.source == "states":
            found = wanted or (DEFAULT,)
        else:
            unknown = [c for c in wanted if c not in self.store.cameras]
            if unknown:
                raise InputError(f"cameras: got {unknown[0]!r}, wanted some of {', '.join(self.store.cameras)}.")
            found = wanted or self.store.cameras[:MOST_CAMERAS]
        if len(found) > MOST_CAMERAS or len(set(found)) != len(found):
            raise InputError(f"cameras: got {len(found)}, wanted at most {MOST_CAMERAS} different ones.")
        return found

    def _check_drawable(self) -> None:
        """Refuse at once what no clip could be made of, instead of marking every pair broken."""
        known = {e.env for e in self.store.episodes if environments_of(e.env, e.task)}
        if not known:
            names = ", ".join(sorted({e.env or "(none)" for e in self.store.episodes}))
            raise InputError(
                f"annotate: got {self.store.root} without video, and episodes of the environment {names}, which robopref cannot draw.\n"
                "Record video with the episodes, or add a preset conf/env/NAME.yaml for the environment."
            )
