"""Work spread over the cores: a function of many items, each on one thread."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # Of glibc's mallopt.


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    processes: int,
    done: Callable[[Result], None],
) -> None:
    """Call the function on every item, each on one thread, over so many processes.

    `done` gets each result as it ends, in any order.
    On Ctrl-C the runs under way are dropped and KeyboardInterrupt goes on to the caller.
    """
    if processes <= 1 or len(items) <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for item in items:
                done(function(item))
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(items))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
        try:
            # No name for the list: a future holds its result for as long as it is referred to.
            for future in as_completed([pool.submit(function, item) for item in items]):
                done(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((pool._processes or {}).values()):
                process.terminate()
            raise


def _worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Let this process keep memory that a step frees, for the next step (glibc; else nothing).

    By default the allocator hands blocks of a few MiB back to the system, which maps and clears
    them anew at every step.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, 1 << 25)  # The most that every glibc takes.
        mallopt(_TRIM_THRESHOLD, 1 << 30)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
