"""The machine: work over its cores, its devices, and where a result comes from."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
import torch

import invlearn
from invlearn.errors import OptionError
from invlearn.ground import workers
from invlearn.ground.registry import WORKER_CALLS

Item = TypeVar("Item")
Result = TypeVar("Result")

Provenance = dict[str, str]
"""Where a result comes from, by name."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # Of glibc's mallopt.


def run_all(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    processes: int,
    done: Callable[[Result], None],
) -> None:
    """Call the function on every item, each on one thread, over so many processes.

    `done` gets each result as it ends, in any order. The function, with what it holds, is pickled
    once; what a notebook or script defines goes along by value.
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
    pool = ProcessPoolExecutor(
        min(processes, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=workers.begin,
        initargs=(cloudpickle.dumps((function, (*WORKER_CALLS, _one_thread, keep_freed_memory))),),
    )
    try:
        # No name for the list: a future holds its result for as long as it is referred to.
        for future in as_completed(_submitted(pool, items)):
            done(future.result())
    except BaseException:
        # The pool would wait for what is under way, here and at the interpreter's end.
        for process in list((pool._processes or {}).values()):
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, items: Sequence[Any]) -> list[Future[Any]]:
    """A future for every item; the processes begin here, and never see a terminal's Ctrl-C."""
    with workers.held_back(signal.SIGINT):
        return [pool.submit(workers.call, cloudpickle.dumps(item)) for item in items]


def _one_thread() -> None:
    torch.set_num_threads(1)


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


def check_device(name: str) -> None:
    """Raise OptionError unless this machine has the device."""
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if kind == "cpu" and not number:
        return
    if kind == "cuda" and (number or "0").isdigit() and int(number or 0) < count:
        return
    found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(count))])
    raise OptionError(f"Expected a device of this machine ({found}), got device '{name}'.")


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit(root: Path = Path(__file__).parents[3]) -> str:
    """The commit of a source tree, if it is one of git's; with '+' if its code was changed."""
    if not (root / ".git").exists():
        return ""
    said = []
    for arguments in (
        ["rev-parse", "--short=12", "HEAD"],
        ["status", "--porcelain", "src", "benchmarks"],
    ):
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        said.append(done.stdout.strip())
    return said[0] + ("+" if said[1] else "")


def provenance(command: str) -> Provenance:
    """Command, version, commit, machine and the time now; to be called when the work starts."""
    return {
        "command": command,
        "version": invlearn.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{processor()}, {platform.system()} {platform.machine()}",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
