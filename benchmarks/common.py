"""What the benchmarks share: made rows, timing in turn, peak memory, records."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from invlearn.environments import Environments
from invlearn.features import ChannelImages
from invlearn.ground.machine import provenance
from invlearn.training import Trainer
from invlearn.training.update import make_update

P = ParamSpec("P")
Result = TypeVar("Result")


def make_environments(
    rows: int,
    n_envs: int = 2,
    n_channels: int = 2,
    n_classes: int = 2,
    pixels: int = 196,
    seed: int = 0,
) -> Environments:
    """Random images whose color agrees with a random label in 90 to 80 % of the rows.

    Parameters
    ----------
    rows : int
        Of each environment, sorted by channel.
    n_envs : int
        Their disagreement p_e rises evenly from 0.1 to 0.2.
    n_channels, n_classes : int
        The color of label y is y modulo n_channels, or else any other color.
    pixels : int
    seed : int

    Returns
    -------
    Environments
        Of `ChannelImages`, with labels 0 .. n_classes - 1.
    """
    g = torch.Generator().manual_seed(seed)
    parts = {}
    for p in torch.linspace(0.1, 0.2, n_envs, dtype=torch.float64).tolist():
        y = torch.randint(0, n_classes, (rows,), generator=g)
        differs = torch.rand(rows, generator=g) < p
        other = torch.randint(1, n_channels, (rows,), generator=g)
        color = ((y + differs * other) % n_channels).sort()
        images = torch.rand(rows, pixels, generator=g)
        parts[f"p_e={p:.4g}"] = (
            ChannelImages(images, color.values, n_channels),
            y[color.indices],
        )
    return Environments.from_parts(parts)


def timed(call: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of every call, all of them in turn, so that ratios hold when the speed drifts.

    The first `warmup` rounds are left out.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(warmup + repeats):
        for name, call in calls.items():
            seconds[name].append(timed(call))
    return {name: values[warmup:] for name, values in seconds.items()}


def update(trainer: Trainer, step: int) -> None:
    """Make one update of a trainer, as its loop does."""
    make_update(trainer, trainer._plan(step))


def median_ratio(seconds: Sequence[float], other: Sequence[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(seconds, other, strict=True))


def gradient_difference(model: nn.Module, reference: nn.Module) -> float:
    """‖g − g'‖ / ‖g'‖ of what two models' last steps left in their `.grad`."""
    g, other = (
        torch.cat([p.grad.flatten() for p in m.parameters() if p.grad is not None])
        for m in (model, reference)
    )
    return float((g - other).norm() / other.norm())


def in_child(function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Call a function in a fresh process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        return child.submit(function, *args, **kwargs).result()


def peak_rise(call: Callable[[], object]) -> float:
    """MiB by which resident memory rises, at most, during a call; meant for a fresh process.

    It is what the system must supply, not what torch asked for: freed blocks that the allocator
    keeps within the call count. Room left free before the call would hide some of it, so that
    is handed back first (glibc).
    """
    with suppress(OSError, AttributeError, TypeError):  # Other C libraries have no such call.
        ctypes.CDLL(None).malloc_trim(0)
    return rise(call) / 2**20


def rise(call: Callable[[], object]) -> float:
    """Bytes by which resident memory rises, at most, during a call.

    Linux keeps the peak itself; elsewhere a thread looks every few milliseconds.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return watched_rise(call)
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def watched_rise(call: Callable[[], object]) -> float:
    """The same, from looking at it time and again: a shorter peak is missed."""
    seen, done = [resident()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(resident())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return max([*seen, resident()]) - seen[0]


def status(field: str) -> float:
    """A figure of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return 1024 * float(line.split()[1])
    raise OSError(f"Expected {field} in /proc/self/status.")


def resident() -> float:
    """Bytes of this process in memory."""
    with suppress(OSError):
        return status("VmRSS")
    command = ["ps", "-o", "rss=", "-p", str(os.getpid())]
    return 1024 * float(subprocess.run(command, capture_output=True, check=True).stdout)


def make_parser(description: str | None, *, repeats: int = 10) -> argparse.ArgumentParser:
    """A parser with what every timing takes: repeats, threads, where the record goes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    return parser


def source_of(script: str) -> dict[str, str]:
    """Command, commit, machine and time of this process; to be called when the work starts."""
    name = Path(script).name
    return provenance(shlex.join(["python", f"benchmarks/{name}", *sys.argv[1:]]))


def write(record: Mapping[str, Any], out: Path | None) -> None:
    """Write a record as JSON to a file, if there is one to write to."""
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
