"""Seconds and memory of one exact meta-IRM step against ERM, double backward and TorchOpt.

2 environments of 14 x 14 images in 2 colors, one hidden layer of 390, Adam, one inner step of
rate 1.2 with DropGrad 0.5, weight 0.3 of the deviation. 'Double backward' is what a user writes
with torch alone: every environment whole, inner gradients with create_graph=True, one backward
through them. TorchOpt (0.7.3, a differentiable-optimizer library) does the same through its
`MetaOptimizer`. Both run on dense images with torch's layers and on this library's model and
`ChannelImages`. All share weights, rows and noise, and their gradients are compared before
anything is measured: a difference is an error. TorchOpt is optional (``pip install torchopt``).

Time: all variants in this process, in turn, so that ratios hold when the machine's speed drifts;
medians are quoted, ratios are medians of each round's.

Memory: each variant in a process of its own. Its data, model and optimizer state are there and a
step on 256 rows has loaded its code before the process's peak is reset; the figure is the peak
of resident memory during one full step, less what was resident before. It is what the system
must supply, not what torch asked for: freed blocks that the allocator keeps within the step
count, and so do work buffers that a product of a new size takes the first time. Room that the
small step left free would hide some of it, so that is handed back first (glibc). A few MiB are
noise.

    python benchmarks/meta_step.py [--rows 2000 25000] [--repeats 10] [--children 3]
                                   [--threads N] [--out FILE]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from invlearn.environments import Environments
from invlearn.experiments.provenance import provenance
from invlearn.features import ChannelImages
from invlearn.models import MLP
from invlearn.objectives.meta_irm import MetaIRMHyper
from invlearn.training import Settings, Trainer
from invlearn.training.settings import draw_batch

PIXELS, HIDDEN = 196, 390
HYPER = MetaIRMHyper(inner_lr=1.2, std_weight=0.3, dropgrad=0.5)
SETTINGS = Settings(steps=10**6, lr=0.0005, evaluate_every=10**6)
SMALL = 256
"""Rows per environment of the step that loads code; a color's share takes the large path."""
TOLERANCE = 1e-4
"""Largest difference of two gradients, in units of their norm (float32)."""


def make_environments(rows: int) -> Environments:
    """Random images whose color agrees with a random label in 90 and 80 % of the rows."""
    g = torch.Generator().manual_seed(0)
    parts = {}
    for p in (0.1, 0.2):
        y = torch.randint(0, 2, (rows,), generator=g)
        color = (y ^ (torch.rand(rows, generator=g) < p)).sort()
        images = torch.rand(rows, PIXELS, generator=g)
        parts[f"p_e={p}"] = (ChannelImages(images, color.values, 2), y[color.indices])
    return Environments.from_parts(parts)


def make_model() -> MLP:
    """The library's model, with the same weights at every call."""
    return MLP(2 * PIXELS, (HIDDEN,), generator=torch.Generator().manual_seed(0))


def make_dense_model() -> nn.Sequential:
    """The same function of dense images, in torch's own layers."""
    model = nn.Sequential(nn.Linear(2 * PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    for mine, theirs in zip(make_model().parameters(), model.parameters(), strict=True):
        theirs.data.copy_(mine.data)
    return model


class LibraryStep:
    """A step of this library's trainer."""

    def __init__(self, objective: str, rows: Environments) -> None:
        self.model = make_model()
        hyper = HYPER if objective == "meta-irm" else None
        self.trainer = Trainer(
            self.model, rows, objective, "logistic", hyper=hyper, settings=SETTINGS
        )

    def load(self, rows: Environments) -> None:
        """Make these the rows of the coming steps."""
        self.trainer.environments = rows

    def step(self, number: int) -> None:
        """Update the parameters once."""
        self.trainer._make(self.trainer._plan(number))


class DoubleBackwardStep:
    """meta-IRM as its paper writes it, differentiated by torch as a whole."""

    def __init__(self, dense: bool, rows: Environments) -> None:
        self.dense = dense
        self.model = make_dense_model() if dense else make_model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=SETTINGS.lr)
        self.load(rows)

    def load(self, rows: Environments) -> None:
        """Make these the rows of the coming steps."""
        self.rows = rows
        self.parts: list[tuple[Any, Tensor]] = []
        for _, x, y in rows:
            assert isinstance(x, ChannelImages)
            self.parts.append((x.dense() if self.dense else x, y.float()))

    def step(self, number: int) -> None:
        """Update the parameters once, with the noise that the library draws at this step."""
        seed = draw_batch(self.rows, SETTINGS, 1, 0, number).seed
        generator = torch.Generator().manual_seed(seed)
        losses = torch.stack(self.meta_losses(generator))
        deviation = losses - losses.mean()
        total = losses.sum() + HYPER.std_weight * deviation.square().mean().sqrt()
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()

    def meta_losses(self, generator: torch.Generator) -> list[Tensor]:
        """L_12 and L_21, with the graph of their inner steps."""
        losses = []
        theta = dict(self.model.named_parameters())
        for i in range(2):
            gradient = torch.autograd.grad(
                self.risk(i, theta), [*theta.values()], create_graph=True
            )
            adapted = {
                name: p - HYPER.inner_lr * dropgrad(g, generator) * g
                for (name, p), g in zip(theta.items(), gradient, strict=True)
            }
            losses.append(self.risk(1 - i, adapted))
        return losses

    def risk(self, i: int, parameters: Mapping[str, Tensor] | None = None) -> Tensor:
        """Mean loss on one environment, at the model's or at other parameters."""
        x, y = self.parts[i]
        z = (
            self.model(x)
            if parameters is None
            else functional_call(self.model, dict(parameters), (x,))
        )
        return F.binary_cross_entropy_with_logits(z[:, 0], y)


class TorchOptStep(DoubleBackwardStep):
    """The same with TorchOpt's inner optimizer, DropGrad as a transformation before SGD."""

    def meta_losses(self, generator: torch.Generator) -> list[Tensor]:
        """L_12 and L_21, with the graph of their inner steps."""
        import torchopt

        losses = []
        start = torchopt.extract_state_dict(self.model, by="reference")
        for i in range(2):
            # By parameter: TorchOpt's order is not the model's.
            noise = {p: dropgrad(p, generator) for p in self.model.parameters()}
            drop = torchopt.base.GradientTransformation(
                lambda params: torchopt.base.EmptyState(),
                lambda updates, state, *, params, inplace, noise=noise: (
                    tuple(noise[p] * g for p, g in zip(params, updates, strict=True)),
                    state,
                ),
            )
            inner = torchopt.MetaOptimizer(
                self.model, torchopt.chain(drop, torchopt.sgd(HYPER.inner_lr))
            )
            inner.step(self.risk(i))
            losses.append(self.risk(1 - i))
            torchopt.recover_state_dict(self.model, start)
        return losses


def dropgrad(like: Tensor, generator: torch.Generator) -> Tensor:
    """Factors 1 + N(0, p / (1 − p))."""
    scale = math.sqrt(HYPER.dropgrad / (1 - HYPER.dropgrad))
    return 1 + scale * torch.randn(like.shape, generator=generator)


Step = LibraryStep | DoubleBackwardStep
ERM, META, PLAIN = "ERM", "meta-IRM", "double backward, dense"
VARIANTS: dict[str, Callable[[Environments], Step]] = {
    ERM: lambda rows: LibraryStep("erm", rows),
    META: lambda rows: LibraryStep("meta-irm", rows),
    PLAIN: lambda rows: DoubleBackwardStep(True, rows),
    "double backward, same model": lambda rows: DoubleBackwardStep(False, rows),
    "TorchOpt, dense": lambda rows: TorchOptStep(True, rows),
    "TorchOpt, same model": lambda rows: TorchOptStep(False, rows),
}


def torchopt_version() -> str | None:
    """Version of the installed TorchOpt."""
    try:
        return version("torchopt")
    except PackageNotFoundError:
        return None


def gradient_difference(step: Step, other: Step) -> float:
    """‖g − g'‖ / ‖g'‖ of what the models' last steps left in their `.grad`."""
    g, reference = (
        torch.cat([p.grad.flatten() for p in s.model.parameters() if p.grad is not None])
        for s in (step, other)
    )
    return float((g - reference).norm() / reference.norm())


def measure_time(steps: dict[str, Step], repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each variant's steps, and how far the meta-gradients of step 0 lie apart."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step.step(number)
            seconds[name].append(time.perf_counter() - start)
        if number == 0:
            apart = {
                name: gradient_difference(step, steps[PLAIN])
                for name, step in steps.items()
                if name != ERM
            }
            if not max(apart.values()) <= TOLERANCE:  # Nor NaN.
                raise SystemExit(f"Expected equal gradients up to {TOLERANCE:g}, got {apart}.")
    return {name: values[2:] for name, values in seconds.items()}, max(apart.values())


def measure_memory(name: str, rows: int, threads: int) -> float:
    """MiB that one step of a variant adds to this process; call it in a fresh one."""
    torch.set_num_threads(threads)
    step = VARIANTS[name](make_environments(SMALL))
    step.step(0)
    step.load(make_environments(rows))
    with suppress(OSError, AttributeError):  # Other C libraries have no such call.
        ctypes.CDLL(None).malloc_trim(0)
    return rise(lambda: step.step(1)) / 2**20


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


def measure(
    rows: int, names: list[str], repeats: int, children: int, threads: int
) -> dict[str, Any]:
    """All figures at one number of rows per environment."""
    # The children first: they start while this process holds little.
    mib: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(children):
        for name in names:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
                mib[name].append(child.submit(measure_memory, name, rows, threads).result())
    environments = make_environments(rows)
    steps = {name: VARIANTS[name](environments) for name in names}
    seconds, apart = measure_time(steps, repeats)
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = {
            "seconds": statistics.median(seconds[name]),
            "seconds_over_erm": ratio(seconds[name], seconds[ERM]),
            "seconds_over_plain": ratio(seconds[name], seconds[PLAIN]),
        }
        if children:
            extra, plain = (statistics.median(mib[n]) for n in (name, PLAIN))
            found[name] |= {"extra_memory_mib": extra, "memory_over_plain": extra / plain}
    return {"variants": found, "largest_relative_gradient_difference": apart}


def ratio(seconds: list[float], other: list[float]) -> float:
    """Median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(seconds, other, strict=True))


def print_table(rows: int, variants: dict[str, dict[str, float]]) -> None:
    """One line per variant."""
    print(f"\n2 x {rows} rows")
    print(f"{'':28} {'seconds':>9} {'/ ERM':>7} {'/ plain':>8} {'extra MiB':>10} {'/ plain':>8}")
    for name, v in variants.items():
        line = f"{name:28} {v['seconds']:9.4f} {v['seconds_over_erm']:7.2f}"
        line += f" {v['seconds_over_plain']:8.2f}"
        if "extra_memory_mib" in v:
            line += f" {v['extra_memory_mib']:10.1f} {v['memory_over_plain']:8.2f}"
        print(line)


def main() -> None:
    """Measure all variants and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 25_000], metavar="N")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument(
        "--children", type=int, default=3, help="processes per variant for memory; 0 leaves it out"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    source = provenance(shlex.join(["python", "benchmarks/meta_step.py", *sys.argv[1:]]))
    torch.set_num_threads(args.threads)

    torchopt = torchopt_version()
    names = [name for name in VARIANTS if torchopt or not name.startswith("TorchOpt")]
    record: dict[str, Any] = {"rows_per_environment": {}}
    for rows in args.rows:
        found = measure(rows, names, args.repeats, args.children, args.threads)
        record["rows_per_environment"][str(rows)] = found
        print_table(rows, found["variants"])
        if torchopt is None:
            print(f"{'TorchOpt':28} not installed: pip install torchopt")
    print("\n'plain' is the double backward on dense images.")
    record |= {
        "threads": args.threads,
        "repeats": args.repeats,
        "processes_per_memory_figure": args.children,
        "torchopt": torchopt,
        **source,
    }
    if args.out is not None:
        args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
