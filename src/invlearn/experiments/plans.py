"""A plan and a benchmark made into training runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from invlearn.datasets.base import Benchmark
from invlearn.environments import Environments, EvaluationSet
from invlearn.experiments.recipes import Plan
from invlearn.features import width
from invlearn.models import MLP
from invlearn.training import Run, Stopping, Trainer, train_together
from invlearn.training.means import seeded_generator

DatasetOptions = tuple[tuple[str, str | int | float | bool], ...]


def trial_seed(seed: int, trial: int) -> int:
    """Seed of a trial's data, coloring, initial weights and batches."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def training_sets(benchmark: Benchmark) -> list[EvaluationSet]:
    """The evaluation sets that rules may read: training and, if there are some, validation rows."""
    sets = [EvaluationSet.from_environments(benchmark.train, "train")]
    if benchmark.validation is not None:
        sets.append(EvaluationSet.from_environments(benchmark.validation, "validation"))
    return sets


def plan_trainer(
    plan: Plan,
    benchmark: Benchmark,
    rows: Environments,
    sets: Sequence[EvaluationSet],
    seed: int,
    *,
    keep_outputs: bool = False,
    stopping: Stopping | None = None,
) -> Trainer:
    """A fresh model that is to be trained by a plan, measured on the sets.

    With `keep_outputs`, the outputs on training and validation rows are kept, if there are
    validation rows: no rule reads them otherwise.
    """
    model = MLP(
        width(rows.x), plan.hidden, benchmark.n_outputs, generator=seeded_generator(seed, 1)
    )
    keep = ("train", "validation") if keep_outputs and benchmark.validation is not None else ()
    return Trainer(
        model.to(rows.device),
        rows,
        plan.objective,
        benchmark.loss,
        settings=plan.settings,
        seed=seed,
        evaluations=sets,
        keep_outputs=keep,
        stopping=stopping,
    )


def train_plan(
    plan: Plan,
    benchmark: Benchmark,
    rows: Environments,
    sets: Sequence[EvaluationSet],
    seed: int,
    *,
    keep_outputs: bool = False,
    until: int | None = None,
) -> Run:
    """Train by a plan, up to a step if asked; KeyboardInterrupt on Ctrl-C."""
    trainer = plan_trainer(plan, benchmark, rows, sets, seed, keep_outputs=keep_outputs)
    with _quietly():
        run = trainer.run(until=until)
    return _whole([run])[0]


def train_all(trainers: Sequence[Trainer], *, done: Callable[[int, Run], None]) -> list[Run]:
    """Train several at once where that is faster; KeyboardInterrupt on Ctrl-C."""
    with _quietly():
        return _whole(train_together(trainers, done=done))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings: the runs' messages carry them, with method and trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _whole(runs: list[Run]) -> list[Run]:
    if any(run.reason == "interrupted" for run in runs):
        raise KeyboardInterrupt
    return runs


def without_shortcut(benchmark: Benchmark) -> Benchmark:
    """The benchmark over features that cannot hold the shortcut."""
    view = benchmark.without_shortcut
    if view is None:
        raise ValueError(f"{benchmark.name} has no features without the shortcut")
    validation = benchmark.validation
    return replace(
        benchmark,
        train=benchmark.train.with_features(view(benchmark.train.x)),
        validation=None if validation is None else validation.with_features(view(validation.x)),
        test=benchmark.test.with_features(view(benchmark.test.x)),
    )
