"""A signal ends a command soon, workers with it, in whatever call it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from invlearn.ground.interrupt import CODE, SIGNALS, interruptible

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

DEAF = """
import time
from invlearn.ground.interrupt import interruptible
with interruptible(lambda: print("given up")):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""

WORKING = """
import os, signal, time
from invlearn.ground.machine import run_all

class Work:
    def __call__(self, item):
        print("ready", os.getpid(), flush=True)
        time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's '&' has it ignored.
    try:
        run_all(Work(), [1, 2, 3], processes=2, done=print)
    except KeyboardInterrupt:
        raise SystemExit(130)
"""


def begun(script, tmp_path, lines):
    """A process of its own group that runs a script, and what it said first."""
    path = tmp_path / "script.py"
    path.write_text(script)
    process = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    return process, [process.stdout.readline().split() for _ in range(lines)]


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("number", SIGNALS)
def test_at_once_nothing_is_raised_and_all_ends(number, tmp_path):
    script = DEAF.replace('print("given up"))', 'print("given up"), at_once=True)')
    process, said = begun(script.replace("KeyboardInterrupt", "ZeroDivisionError"), tmp_path, 1)
    process.send_signal(number)
    assert (said, process.communicate(timeout=60)[0]) == ([["ready"]], "given up\n")
    assert process.returncode == CODE


@pytest.mark.parametrize("number", SIGNALS)
def test_a_computation_that_does_not_heed_it_is_given_up(number, tmp_path):
    process, said = begun(DEAF, tmp_path, 1)
    assert said == [["ready"]]
    process.send_signal(number)
    assert process.communicate(timeout=60)[0].endswith("given up\n")
    assert process.returncode == CODE


@pytest.mark.parametrize(
    ("number", "whole_group", "code"),
    [
        (signal.SIGINT, True, CODE),
        (signal.SIGINT, False, CODE),
        (signal.SIGKILL, False, -signal.SIGKILL),
    ],
)
def test_no_worker_outlives_its_parent(number, whole_group, code, tmp_path):
    process, said = begun(WORKING, tmp_path, 2)
    workers = [int(pid) for _, pid in said]
    if whole_group:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.communicate(timeout=60)  # The workers hold the pipe too.
    assert process.returncode == code
    deadline = time.monotonic() + 60  # A process that has ended may still be in the table.
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(runs, workers))


def test_a_signal_is_an_exception_inside_and_what_it_was_outside():
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible(lambda: None) as heard:
        assert not heard.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert heard.wait(60)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_are_left_alone():
    before, found = signal.getsignal(signal.SIGTERM), []

    def body():
        with interruptible(lambda: None):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [before]
