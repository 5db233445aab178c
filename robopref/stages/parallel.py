"""Independent pieces of a stage spread over processes. Results do not depend on how many there are.

Every process computes on one thread: sums of floats then have one order, and processes do not fight for cores.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def single_thread() -> None:
    """One compute thread in this process."""
    torch.set_num_threads(1)


def _worker(parent: int) -> None:
    """Set up a worker: one thread, and an end when its parent has died, or a resumed run would meet its leftovers."""
    single_thread()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _executor(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_worker, initargs=(os.getpid(),))
    atexit.register(executor.shutdown, wait=False, cancel_futures=True)
    return executor


def spread(function: Callable[..., Result], calls: Sequence[tuple[Any, ...]], workers: int) -> list[Result]:
    """`[function(*call) for call in calls]`, over `workers` processes if there are more than one; the first error is raised."""
    if workers < 2 or len(calls) < 2:
        return [function(*call) for call in calls]
    futures = [_executor(workers).submit(function, *call) for call in calls]
    return [future.result() for future in futures]
