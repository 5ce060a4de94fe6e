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

import math
import statistics
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from common import (
    gradient_difference,
    in_child,
    interleaved,
    make_environments,
    make_parser,
    median_ratio,
    peak_rise,
    source_of,
    update,
    write,
)
from invlearn.environments import Environments
from invlearn.models import MLP
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training import Settings, Trainer
from invlearn.training.settings import draw_batch
from plain import dense_copy, dense_rows, mean_loss

PIXELS, HIDDEN = 196, 390
META_IRM = MetaIRM(inner_lr=1.2, std_weight=0.3, dropgrad=0.5)
SETTINGS = Settings(steps=10**6, lr=0.0005, evaluate_every=10**6)
SMALL = 256
"""Rows per environment of the step that loads code; a color's share takes the large path."""
TOLERANCE = 1e-4
"""Largest difference of two gradients, in units of their norm (float32)."""


def make_model() -> MLP:
    """The library's model, with the same weights at every call."""
    return MLP(2 * PIXELS, (HIDDEN,), generator=torch.Generator().manual_seed(0))


class LibraryStep:
    """A step of this library's trainer."""

    def __init__(self, objective: str, rows: Environments) -> None:
        self.model = make_model()
        found = META_IRM if objective == "meta-irm" else objective
        self.trainer = Trainer(self.model, rows, found, "logistic", settings=SETTINGS)

    def load(self, rows: Environments) -> None:
        """Make these the rows of the coming steps."""
        self.trainer.environments = rows

    def step(self, number: int) -> None:
        """Update the parameters once."""
        update(self.trainer, number)


class DoubleBackwardStep:
    """meta-IRM as its paper writes it, differentiated by torch as a whole."""

    def __init__(self, dense: bool, rows: Environments) -> None:
        self.dense = dense
        self.model: nn.Module = dense_copy(make_model()) if dense else make_model()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=SETTINGS.lr)
        self.load(rows)

    def load(self, rows: Environments) -> None:
        """Make these the rows of the coming steps."""
        self.rows = rows
        self.parts: list[tuple[Any, Tensor]] = [(x, y.float()) for _, x, y in rows]
        if self.dense:
            self.parts = [*dense_rows(rows)]

    def step(self, number: int) -> None:
        """Update the parameters once, with the noise that the library draws at this step."""
        seed = draw_batch(self.rows, SETTINGS, 1, 0, number).seed
        generator = torch.Generator().manual_seed(seed)
        losses = torch.stack(self.meta_losses(generator))
        deviation = losses - losses.mean()
        total = losses.sum() + META_IRM.std_weight * deviation.square().mean().sqrt()
        self.optimizer.zero_grad()
        torch.autograd.backward(total)
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
                name: p - META_IRM.inner_lr * dropgrad(g, generator) * g
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
        return mean_loss(z, y)


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
                self.model, torchopt.chain(drop, torchopt.sgd(META_IRM.inner_lr))
            )
            inner.step(self.risk(i))
            losses.append(self.risk(1 - i))
            torchopt.recover_state_dict(self.model, start)
        return losses


def dropgrad(like: Tensor, generator: torch.Generator) -> Tensor:
    """Factors 1 + N(0, p / (1 − p))."""
    scale = math.sqrt(META_IRM.dropgrad / (1 - META_IRM.dropgrad))
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


def measure_time(steps: dict[str, Step], repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each variant's steps, and how far the meta-gradients of step 0 lie apart."""
    for step in steps.values():
        step.step(0)
    apart = {
        name: gradient_difference(step.model, steps[PLAIN].model)
        for name, step in steps.items()
        if name != ERM
    }
    if not max(apart.values()) <= TOLERANCE:  # Nor NaN.
        raise SystemExit(f"Expected equal gradients up to {TOLERANCE:g}, got {apart}.")
    calls = {name: partial(next, map(step.step, count(1))) for name, step in steps.items()}
    return interleaved(calls, repeats, warmup=1), max(apart.values())


def measure_memory(name: str, rows: int, threads: int) -> float:
    """MiB that one step of a variant adds to this process; call it in a fresh one."""
    torch.set_num_threads(threads)
    step = VARIANTS[name](make_environments(SMALL, pixels=PIXELS))
    step.step(0)
    step.load(make_environments(rows, pixels=PIXELS))
    return peak_rise(lambda: step.step(1))


def measure(
    rows: int, names: list[str], repeats: int, children: int, threads: int
) -> dict[str, Any]:
    """All figures at one number of rows per environment."""
    # The children first: they start while this process holds little.
    mib: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(children):
        for name in names:
            mib[name].append(in_child(measure_memory, name, rows, threads))
    environments = make_environments(rows, pixels=PIXELS)
    steps = {name: VARIANTS[name](environments) for name in names}
    seconds, apart = measure_time(steps, repeats)
    found: dict[str, dict[str, float]] = {}
    for name in names:
        found[name] = {
            "seconds": statistics.median(seconds[name]),
            "seconds_over_erm": median_ratio(seconds[name], seconds[ERM]),
            "seconds_over_plain": median_ratio(seconds[name], seconds[PLAIN]),
        }
        if children:
            extra, plain = (statistics.median(mib[n]) for n in (name, PLAIN))
            found[name] |= {"extra_memory_mib": extra, "memory_over_plain": extra / plain}
    return {"variants": found, "largest_relative_gradient_difference": apart}


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
    parser = make_parser(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[2_000, 25_000], metavar="N")
    parser.add_argument(
        "--children", type=int, default=3, help="processes per variant for memory; 0 leaves it out"
    )
    args = parser.parse_args()
    source = source_of(__file__)
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
    write(record, args.out)


if __name__ == "__main__":
    main()
