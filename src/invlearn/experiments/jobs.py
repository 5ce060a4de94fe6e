"""One run of a comparison, from its names to its table; and many of them over the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark
from invlearn.environments import Environments, EvaluationSet
from invlearn.experiments.methods import get_method
from invlearn.experiments.recipes import Plan, get_recipe
from invlearn.features import width
from invlearn.models import MLP
from invlearn.outputs import Outputs
from invlearn.selection import reference_step
from invlearn.training import Run, Trainer
from invlearn.training.means import seeded_generator

DatasetOptions = tuple[tuple[str, str | int | float | bool], ...]


@dataclass(frozen=True)
class Job:
    """One run: plain data, so that it can be sent to another process and compared."""

    dataset: str
    dataset_options: DatasetOptions
    recipe: str
    method: str
    trial: int
    seed: int
    steps: int | None = None
    hyper: tuple[tuple[str, float], ...] = ()
    leave_one_out: bool = False

    @property
    def key(self) -> str:
        """A file name for the run."""
        return f"{self.method}-{self.trial:03d}"


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: its measurements and outputs at every evaluated step, what it said."""

    job: Job
    curves: pd.DataFrame
    outputs: Outputs | None
    messages: tuple[str, ...]
    seconds: float


def trial_seed(seed: int, trial: int) -> int:
    """Seed of a trial's data, coloring, initial weights and batches."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


def run_job(job: Job) -> Outcome:
    """Build the data, train, measure."""
    started = time.perf_counter()
    seed = trial_seed(job.seed, job.trial)
    benchmark = load(job.dataset, seed=seed, **dict(job.dataset_options))
    method, recipe = get_method(job.method), get_recipe(job.dataset, job.recipe)
    plan = recipe.plan(method, steps=job.steps, hyper=dict(job.hyper))
    if method.reference:
        benchmark = without_shortcut(benchmark)
    sets = [*training_sets(benchmark), benchmark.test]
    run = train_plan(plan, benchmark, benchmark.train, sets, seed, keep_outputs=True)
    outputs = run.outputs
    if outputs is not None:
        options = (job.dataset, job.dataset_options, job.recipe, job.steps, seed, method.reference)
        outputs = outputs.with_reference(shared_reference(*options))
    tables, messages = [run.curves], run.messages
    if job.leave_one_out:
        for name in benchmark.train.names:
            rest = benchmark.train.select([n for n in benchmark.train.names if n != name])
            held = EvaluationSet.from_environments(benchmark.train.select([name]), "held-out")
            left = train_plan(plan, benchmark, rest, [held], seed)
            tables.append(left.curves)
            messages += tuple(f"without {name}: {text}" for text in left.messages)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "objective", job.method)
    table.insert(1, "trial", job.trial)
    return Outcome(job, table, outputs, messages, time.perf_counter() - started)


def training_sets(benchmark: Benchmark) -> list[EvaluationSet]:
    """The evaluation sets that rules may read: training and, if there are some, validation rows."""
    sets = [EvaluationSet.from_environments(benchmark.train, "train")]
    if benchmark.validation is not None:
        sets.append(EvaluationSet.from_environments(benchmark.validation, "validation"))
    return sets


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
    """Train a fresh model by a plan (up to a step, if asked), measured on the sets.

    With `keep_outputs`, the outputs on training and validation rows are kept, if there are
    validation rows: no rule reads them otherwise.
    """
    model = MLP(
        width(rows.x), plan.hidden, benchmark.n_outputs, generator=seeded_generator(seed, 1)
    )
    keep = ("train", "validation") if keep_outputs and benchmark.validation is not None else ()
    trainer = Trainer(
        model,
        rows,
        plan.objective,
        benchmark.loss,
        hyper=plan.hyper,
        settings=plan.settings,
        seed=seed,
        evaluations=sets,
        keep_outputs=keep,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The run's messages carry them, with method and trial.
        run = trainer.run(until=until)
    if run.reason == "interrupted":
        raise KeyboardInterrupt
    return run


def reference_outputs(plan: Plan, benchmark: Benchmark, seed: int) -> dict[str, Tensor]:
    """Outputs {split: [n, k]} of a reference ERM on training and validation rows.

    It is trained for half of its plan's steps and taken where its errors depend most on the
    environment: a quick predictor that leans on whatever predicts.
    """
    settings = replace(plan.settings, steps=max(plan.settings.steps // 2, 1))
    short = replace(plan, settings=settings)
    run = train_plan(
        short, benchmark, benchmark.train, training_sets(benchmark), seed, keep_outputs=True
    )
    assert run.outputs is not None
    chosen = run.outputs.at(reference_step(run.outputs))
    return {split: z.clone() for split, z in chosen.items()}  # Not a view of every step's.


@lru_cache(maxsize=64)  # A few bytes a row each.
def shared_reference(
    dataset: str,
    dataset_options: DatasetOptions,
    recipe: str,
    steps: int | None,
    seed: int,
    shortcut_removed: bool,
) -> dict[str, Tensor]:
    """`reference_outputs` of a recipe's ERM: runs that share the data share it in a process."""
    benchmark = load(dataset, seed=seed, **dict(dataset_options))
    if shortcut_removed:
        benchmark = without_shortcut(benchmark)
    erm = get_recipe(dataset, recipe).plan(get_method("erm"), steps=steps)
    return reference_outputs(erm, benchmark, seed)


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


Item = TypeVar("Item")
Result = TypeVar("Result")


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
