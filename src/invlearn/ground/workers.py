"""What a worker process does first: it ends with its parent, and leaves Ctrl-C to it.

Nothing heavy is imported here, so that a parent's end is noticed from the start.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

_FUNCTION: list[Callable[[Any], Any]] = []
"""Of this process, if it is a worker."""


def call(packed: bytes) -> Any:
    """The worker's function of a pickled item."""
    return _FUNCTION[0](pickle.loads(packed))


def begin(packed: bytes) -> None:
    """Take a pickled (function, calls) over: call these, keep that one."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    function, calls = pickle.loads(packed)  # Now the heavy imports.
    for first in calls:
        first()
    _FUNCTION.append(function)


def _end_with_parent() -> None:
    """End this process, whatever it computes, as soon as its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def held_back(number: signal.Signals) -> Iterator[None]:
    """Inside, a signal waits; processes that begin inside inherit that for good (POSIX)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
