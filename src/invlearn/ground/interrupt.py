"""Ctrl-C that is heeded in time, whatever is being computed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)

GRACE = 1.2
"""Seconds that a computation has to notice an interruption by itself."""

CODE = 130
"""What an interrupted command exits with."""


@contextmanager
def interruptible(
    give_up: Callable[[], None], *, at_once: bool = False
) -> Iterator[threading.Event]:
    """Inside, SIGINT and SIGTERM raise KeyboardInterrupt; and the process ends soon in any case.

    Python raises only between two of its own operations. Where one of them takes longer than
    `GRACE`, or something swallows the exception, ``give_up()`` says the last words in a thread of
    its own, workers are killed, and the process exits with `CODE`.
    Outside the main thread, which alone gets signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    ear, told = socket.socketpair()
    told.setblocking(False)
    heard, left = threading.Event(), threading.Event()

    def watch() -> None:
        numbers = ear.recv(1)  # At once, in whatever call the main thread is.
        while numbers and numbers[0] not in SIGNALS:
            numbers = ear.recv(1)
        if not numbers:
            return
        heard.set()
        if at_once or not left.wait(GRACE):
            for worker in multiprocessing.active_children():
                worker.kill()
            give_up()
            leave()

    handler = _not_raised if at_once else signal.default_int_handler
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    descriptor = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield heard
    finally:
        left.set()
        signal.set_wakeup_fd(descriptor)
        for number, earlier in before.items():
            signal.signal(number, earlier)
        told.close()
        watcher.join()
        ear.close()


def _not_raised(number: int, frame: FrameType | None) -> None:
    """Nothing: a thread has heard of it."""


def leave() -> NoReturn:
    """End this process at once, without the second that the interpreter takes for it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # Nobody reads it any more.
            stream.flush()
    os._exit(CODE)
