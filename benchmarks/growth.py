"""How the cost of one step grows with rows, environments, width and runs trained together.

Every objective takes steps on made rows of 32 features. Along each axis all of them run in this
process, in turn, and medians over the rounds are quoted. A slope is that of log seconds on log
size, by least squares over the upper half of an axis's sizes, where fixed costs no longer count;
1 is linear growth.

rows: 2 environments, one hidden layer of 64. Beside the objectives, the published loop of IRMv1
(environments forwarded whole, double backward). environments: 1,000 rows each, the same model;
meta-IRM with all pairs of environments and with one drawn for each. width: 2 environments of
2,500 rows, two hidden layers of that width, so that parameters grow with its square. runs: IRMv1,
seconds per run and step, stacked and one by one.

Memory: each figure in a process of its own; the peak of resident memory during one step, less
what was resident before, rows and model being there. 'narrow' is the rows axis's model at the
default memory budget; 'wide' has two hidden layers of 390 and a budget of 256 MiB, which its
graph exceeds from about 43,000 rows per environment.

    python benchmarks/growth.py --out DIR [--max-rows 1000000] [--max-environments 100]
        [--max-width 1024] [--max-runs 64] [--repeats 5] [--threads N]

writes DIR/growth.json and DIR/growth-*.png.
"""

from __future__ import annotations

import argparse
import math
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from scipy.stats import linregress
from torch import nn

from common import (
    gradient_difference,
    in_child,
    interleaved,
    make_parser,
    peak_rise,
    source_of,
    update,
    write,
)
from growth_figures import draw_all
from invlearn.environments import Environments
from invlearn.errors import CollapseWarning
from invlearn.models import MLP
from invlearn.objectives import get_objective
from invlearn.objectives.base import Objective
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training import PenaltySchedule, Settings, Trainer, train_many
from plain import dense_copy, dense_rows, plain_step

Axis = dict[str, dict[str, Any]]
"""By name of a line: sizes, what was measured there, and its slope."""

FEATURES, HIDDEN, WIDE = 32, (64,), (390, 390)
OBJECTIVES: dict[str, Objective] = {
    name: get_objective(name)
    for name in ("erm", "irmv1", "vrex", "mmrex", "group-dro", "iga", "meta-irm")
}
ENGINES = ("irmv1", "iga", "meta-irm")
"""One objective for each way through the engine."""
ONE_PAIR = {"meta-irm, one pair": MetaIRM(pairs=1)}
PLAIN = "irmv1, published loop"
WEIGHT, LR = 1e4, 1e-3
BUDGET = 2 << 30
SMALL_BUDGET = 256 << 20
SMALL = 256
"""Rows per environment of the step that loads code before memory is measured."""
TOLERANCE = 1e-4
"""Largest difference of two gradients, in units of their norm (float32)."""


def make_rows(rows: int, n_envs: int = 2, features: int = FEATURES) -> Environments:
    """Gaussian features and noisy labels of a linear rule, the noise growing by environment."""
    g = torch.Generator().manual_seed(0)
    parts = {}
    for e in range(n_envs):
        x = torch.randn(rows, features, generator=g)
        noise = (1 + e / n_envs) * torch.randn(rows, generator=g)
        parts[f"e{e}"] = (x, (x[:, 0] + noise > 0).long())
    return Environments.from_parts(parts)


def make_model(hidden: Sequence[int], features: int = FEATURES) -> MLP:
    """A model with the same weights at every call."""
    return MLP(features, hidden, generator=torch.Generator().manual_seed(0))


def make_trainer(
    objective: Objective,
    rows: Environments,
    hidden: Sequence[int] = HIDDEN,
    *,
    steps: int = 10**6,
    memory_budget: int = BUDGET,
    seed: int = 0,
) -> Trainer:
    """A trainer of this library; IRMv1 has the penalty weight and scale of the published loop."""
    settings = Settings(
        steps=steps,
        lr=LR,
        schedule=PenaltySchedule(at_anneal="rescale"),
        evaluate_every=steps,
        memory_budget=memory_budget,
    )
    model = make_model(hidden, rows.x.shape[1] if isinstance(rows.x, torch.Tensor) else FEATURES)
    return Trainer(model, rows, objective, "logistic", settings=settings, seed=seed)


def stepper(trainer: Trainer) -> Callable[[], object]:
    """Update a trainer's parameters at each call, with the random numbers of the next step."""
    return partial(next, map(partial(update, trainer), count()))


def plain_stepper(model: nn.Module, rows: Environments) -> Callable[[], object]:
    """The published loop's step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    return partial(plain_step, model, optimizer, dense_rows(rows), weight=WEIGHT, l2=0.0)


def check_equal(rows: Environments) -> float:
    """How far the gradients of IRMv1's two sides lie apart; far is an error."""
    objective = get_objective("irmv1", penalty_weight=WEIGHT)
    trainer, model = make_trainer(objective, rows), dense_copy(make_model(HIDDEN))
    stepper(trainer)()
    plain_stepper(model, rows)()
    apart = gradient_difference(trainer.model, model)
    if not apart <= TOLERANCE:  # Nor NaN.
        raise SystemExit(f"Expected equal gradients up to {TOLERANCE:g}, got {apart}.")
    return apart


def slope(sizes: Sequence[int], values: Sequence[float]) -> float | None:
    """Of log value on log size over the upper half of the sizes; None for fewer than two."""
    start = len(sizes) // 2
    x, y = ([math.log(v) for v in some[start:]] for some in (sizes, values))
    return float(linregress(x, y).slope) if len(x) > 1 else None


def sweep(
    axis: str,
    sizes: Sequence[int],
    make: Callable[[int], dict[str, Callable[[], object]]],
    repeats: int,
) -> Axis:
    """Seconds of all calls that belong to each size, and their slopes."""
    found: dict[str, list[float]] = {}
    for size in sizes:
        print(f"{axis}: {size}", flush=True)
        for name, seconds in interleaved(make(size), repeats).items():
            found.setdefault(name, []).append(statistics.median(seconds))
    return {
        name: {"sizes": [*sizes], "seconds": seconds, "slope": slope(sizes, seconds)}
        for name, seconds in found.items()
    }


def row_calls(size: int) -> dict[str, Callable[[], object]]:
    """The steps on two environments of so many rows."""
    rows = make_rows(size)
    calls = {name: stepper(make_trainer(o, rows)) for name, o in OBJECTIVES.items()}
    return calls | {PLAIN: plain_stepper(dense_copy(make_model(HIDDEN)), rows)}


def environment_calls(size: int) -> dict[str, Callable[[], object]]:
    """The steps on so many environments."""
    rows = make_rows(1_000, size)
    return {name: stepper(make_trainer(o, rows)) for name, o in (OBJECTIVES | ONE_PAIR).items()}


def width_calls(size: int) -> dict[str, Callable[[], object]]:
    """The steps of a model of that width."""
    rows = make_rows(2_500)
    return {name: stepper(make_trainer(o, rows, (size, size))) for name, o in OBJECTIVES.items()}


def measure_runs(sizes: Sequence[int], repeats: int, steps: int = 20) -> Axis:
    """Seconds per run and step of several runs trained together."""
    problems: dict[str, tuple[Environments, tuple[int, ...]]] = {
        "linear": (make_rows(200, features=10), ()),
        "hidden 64": (make_rows(1_000), (64,)),
    }

    def calls(size: int) -> dict[str, Callable[[], object]]:
        made: dict[str, Callable[[], object]] = {}
        for name, (rows, hidden) in problems.items():
            for arrangement in ("stacked", "one by one"):
                make = partial(make_trainer, OBJECTIVES["irmv1"], rows, hidden, steps=steps)
                # Made before the clock starts: trainers for every round.
                trainers = [[make(seed=s) for s in range(size)] for _ in range(repeats + 2)]
                train = partial(train_many, arrangement=arrangement)
                made[f"{name}, {arrangement}"] = partial(next, map(train, trainers))
        return made

    with warnings.catch_warnings():  # So few steps learn little.
        warnings.simplefilter("ignore", CollapseWarning)
        axis = sweep("runs", sizes, calls, repeats)
    for line in axis.values():
        line["seconds_per_run_step"] = [
            s / (n * steps) for n, s in zip(sizes, line["seconds"], strict=True)
        ]
    return axis


def measure_memory(name: str, rows: int, hidden: Sequence[int], budget: int, threads: int) -> float:
    """MiB that one step adds to this process; call it in a fresh one."""
    torch.set_num_threads(threads)
    small, full = make_rows(SMALL), make_rows(rows)
    if name == PLAIN:
        model = dense_copy(make_model(hidden))
        plain_stepper(model, small)()
        return peak_rise(plain_stepper(model, full))
    trainer = make_trainer(OBJECTIVES[name], small, hidden, memory_budget=budget)
    step = stepper(trainer)
    step()
    trainer.environments = full
    return peak_rise(step)


def memory_axis(
    names: Sequence[str], sizes: Sequence[int], hidden: Sequence[int], budget: int, threads: int
) -> Axis:
    """Extra MiB of one step at every number of rows per environment."""
    axis: Axis = {}
    for name in names:
        print(f"memory, hidden {tuple(hidden)}: {name}", flush=True)
        mib = [in_child(measure_memory, name, n, hidden, budget, threads) for n in sizes]
        axis[name] = {
            "sizes": [*sizes],
            "extra_mib": mib,
            "mib_over_budget": [max(m - budget / 2**20, 0.0) for m in mib],
        }
    return axis


def row_sizes(most: int) -> list[int]:
    """1,000, 3,000, 10,000 ... rows per environment, up to `most` in both together."""
    sizes = [factor * 10**power for power in range(3, 9) for factor in (1, 3)]
    return [*(n for n in sizes if 2 * n < most), most // 2]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = make_parser(__doc__, repeats=5)
    parser.add_argument("--max-rows", type=int, default=10**6, help="of both environments")
    parser.add_argument("--max-environments", type=int, default=100)
    parser.add_argument("--max-width", type=int, default=1024)
    parser.add_argument("--max-runs", type=int, default=64)
    parser.set_defaults(out=Path("."))
    return parser.parse_args()


def main() -> None:
    """Measure along all axes, write the record and the figures."""
    args = parse()
    source = source_of(__file__)
    torch.set_num_threads(args.threads)
    rows = row_sizes(args.max_rows)
    environments = [n for n in (2, 5, 10, 20, 50, 100) if n <= args.max_environments]
    widths = [n for n in (32, 64, 128, 256, 512, 1024) if n <= args.max_width]
    runs = [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= args.max_runs]
    # The children first: they start while this process holds little.
    memory = {
        "narrow": memory_axis([*ENGINES, PLAIN], rows, HIDDEN, BUDGET, args.threads),
        "wide": memory_axis(ENGINES, rows, WIDE, SMALL_BUDGET, args.threads),
    }
    record = {
        "largest_relative_gradient_difference": check_equal(make_rows(1_000)),
        "rows": sweep("rows", rows, row_calls, args.repeats),
        "environments": sweep("environments", environments, environment_calls, args.repeats),
        "width": sweep("width", widths, width_calls, args.repeats),
        "runs": measure_runs(runs, args.repeats),
        "memory": memory,
        "memory_budget_mib": {"narrow": BUDGET / 2**20, "wide": SMALL_BUDGET / 2**20},
        "threads": args.threads,
        "repeats": args.repeats,
        **source,
    }
    write(record, args.out / "growth.json")
    draw_all(record, args.out)


if __name__ == "__main__":
    main()
