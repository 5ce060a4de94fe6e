"""One run of a comparison, from its names to its table; and many of them over the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark
from invlearn.environments import Environments, EvaluationSet
from invlearn.experiments.methods import get_method
from invlearn.experiments.recipes import Plan, get_recipe
from invlearn.features import width
from invlearn.models import MLP
from invlearn.training import Trainer
from invlearn.training.means import seeded_generator


@dataclass(frozen=True)
class Job:
    """One run: plain data, so that it can be sent to another process and compared."""

    dataset: str
    dataset_options: tuple[tuple[str, str | int | float | bool], ...]
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
    """What a run leaves: its measurements at every evaluated step, and what it said."""

    job: Job
    curves: pd.DataFrame
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
    method = get_method(job.method)
    plan = get_recipe(job.dataset, job.recipe).plan(
        method, steps=job.steps, hyper=dict(job.hyper)
    )
    if method.reference:
        benchmark = without_shortcut(benchmark)
    sets = [EvaluationSet.from_environments(benchmark.train, "train")]
    if benchmark.validation is not None:
        sets.append(EvaluationSet.from_environments(benchmark.validation, "validation"))
    curves, messages = _train(plan, benchmark, benchmark.train, [*sets, benchmark.test], seed)
    tables = [curves]
    if job.leave_one_out:
        for name in benchmark.train.names:
            rest = benchmark.train.select([n for n in benchmark.train.names if n != name])
            held = EvaluationSet.from_environments(benchmark.train.select([name]), "held-out")
            table, said = _train(plan, benchmark, rest, [held], seed)
            tables.append(table)
            messages += tuple(f"without {name}: {text}" for text in said)
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "objective", job.method)
    table.insert(1, "trial", job.trial)
    return Outcome(job, table, messages, time.perf_counter() - started)


def _train(
    plan: Plan,
    benchmark: Benchmark,
    rows: Environments,
    sets: Sequence[EvaluationSet],
    seed: int,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    model = MLP(
        width(rows.x), plan.hidden, benchmark.n_outputs, generator=seeded_generator(seed, 1)
    )
    trainer = Trainer(
        model,
        rows,
        plan.objective,
        benchmark.loss,
        hyper=plan.hyper,
        settings=plan.settings,
        seed=seed,
        evaluations=sets,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The run's messages carry them, with method and trial.
        run = trainer.run()
    if run.reason == "interrupted":
        raise KeyboardInterrupt
    return run.curves, run.messages


def without_shortcut(benchmark: Benchmark) -> Benchmark:
    """The benchmark over features that cannot hold the shortcut."""
    from dataclasses import replace

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


def run_jobs(
    jobs: Sequence[Job], *, processes: int, done: Callable[[Outcome], None]
) -> None:
    """Run the jobs, each on one thread, over so many processes; `done` gets each as it ends.

    On Ctrl-C the runs under way are dropped and KeyboardInterrupt goes on to the caller.
    """
    if processes <= 1 or len(jobs) <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for job in jobs:
                done(run_job(job))
        finally:
            torch.set_num_threads(threads)
        return
    context = multiprocessing.get_context("spawn")
    workers = min(processes, len(jobs))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_worker) as pool:
        futures = [pool.submit(run_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
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
