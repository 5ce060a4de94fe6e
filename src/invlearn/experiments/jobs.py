"""Runs of a comparison, from their names to their tables."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from invlearn.datasets import load
from invlearn.datasets.base import Benchmark
from invlearn.environments import EvaluationSet
from invlearn.experiments.methods import Method, get_method
from invlearn.experiments.recipes import Recipe, get_recipe
from invlearn.experiments.references import shared_reference
from invlearn.experiments.selecting import Selected, select_all
from invlearn.experiments.store import Store
from invlearn.experiments.trials import DatasetOptions, trial_seed, without_shortcut
from invlearn.learning import Plan, evaluation_sets, make_trainer, train_all
from invlearn.learning.reference import Reference, reference_within
from invlearn.outputs import Outputs
from invlearn.training import Run, Trainer


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
    keep_outputs: bool = False
    device: str = "cpu"
    precision: str = "float32"

    @property
    def key(self) -> str:
        """A file name for the run."""
        return f"{self.method}-{self.trial:03d}"


@dataclass(frozen=True)
class Outcome:
    """What a run leaves.

    curves: its measurements at every evaluated step; selected: what the rules chose; outputs: if
    they were asked for; messages: what it warned of.
    """

    job: Job
    curves: pd.DataFrame
    selected: Selected
    outputs: Outputs | None
    messages: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Prepared:
    """A job with its data.

    trainers: of its own run, then of those with an environment left out.
    """

    job: Job
    method: Method
    recipe: Recipe
    plan: Plan
    benchmark: Benchmark
    trainers: list[Trainer]


def run_jobs(jobs: Sequence[Job], store: Store | None = None) -> list[Outcome]:
    """Build the data, train, measure, select.

    Several jobs are trained together where that is faster, and share the time it took.

    Parameters
    ----------
    jobs : sequence of Job
    store : Store, optional
        Where each finished run is kept, and where the runs of other processes leave the
        references of their trials.
    """
    started = time.perf_counter()
    prepared = [_prepare(job) for job in jobs]
    owner = [one for one in prepared for _ in one.trainers]
    runs: dict[int, Run] = {}
    outcomes: dict[Job, Outcome] = {}

    def ended(i: int, run: Run) -> None:
        one, runs[i] = owner[i], run
        mine = [k for k, other in enumerate(owner) if other is one]
        if run.reason == "interrupted" or not all(k in runs for k in mine):
            return
        seconds = (time.perf_counter() - started) / len(jobs)
        outcome = _finish(one, [runs[k] for k in mine], store, seconds)
        outcomes[one.job] = outcome
        if store is not None:
            save(store, outcome)

    train_all([trainer for one in prepared for trainer in one.trainers], done=ended)
    return [outcomes[job] for job in jobs]


def save(store: Store, outcome: Outcome) -> None:
    """Keep a finished run."""
    selected = outcome.selected
    tables = {
        "curves": outcome.curves,
        "results": selected.results,
        "statistics": selected.statistics,
    }
    facts = {
        "rules": selected.rules,
        "unsatisfied": selected.unsatisfied,
        "notes": selected.notes,
        "messages": outcome.messages,
        "seconds": outcome.seconds,
    }
    store.save_run(outcome.job.key, tables, facts, outcome.outputs)


def load_outcome(store: Store, job: Job) -> Outcome | None:
    """A run kept earlier, without its outputs, or None."""
    found = store.load_run(job.key)
    if found is None:
        return None
    tables, facts = found
    selected = Selected(
        job.method,
        job.trial,
        tuple(facts["rules"]),
        tables["results"],
        tables["statistics"],
        facts["unsatisfied"],
        facts["notes"],
    )
    messages = tuple(facts["messages"])
    return Outcome(job, tables["curves"], selected, None, messages, facts["seconds"])


def _prepare(job: Job) -> _Prepared:
    seed = trial_seed(job.seed, job.trial)
    benchmark = load(job.dataset, seed=seed, **dict(job.dataset_options))
    method, recipe = get_method(job.method), get_recipe(job.dataset, job.recipe)
    plan = recipe.plan(method, steps=job.steps, hyper=dict(job.hyper))
    plan = plan.on(job.device, job.precision)
    if method.reference:
        benchmark = without_shortcut(benchmark)
    there = benchmark.to(job.device)
    train, loss, n_outputs = there.train, there.loss, there.n_outputs
    sets = [*evaluation_sets(train, there.validation), there.test]
    trainers = [
        make_trainer(plan, train, loss, n_outputs, seed, evaluations=sets, keep_outputs=True)
    ]
    if job.leave_one_out:
        for name in train.names:
            rest = train.select([n for n in train.names if n != name])
            held = EvaluationSet.from_environments(train.select([name]), "held-out")
            trainers.append(make_trainer(plan, rest, loss, n_outputs, seed, evaluations=[held]))
    return _Prepared(job, method, recipe, plan, benchmark, trainers)


def _finish(one: _Prepared, runs: list[Run], store: Store | None, seconds: float) -> Outcome:
    job, outputs, messages = one.job, runs[0].outputs, runs[0].messages
    if outputs is not None:
        outputs = outputs.with_reference(_reference(one, outputs, store))
    for name, left in zip(one.benchmark.train.names, runs[1:], strict=job.leave_one_out):
        messages += tuple(f"without {name}: {text}" for text in left.messages)
    curves = pd.concat([run.curves for run in runs], ignore_index=True)
    curves.insert(0, "method", job.method)
    curves.insert(1, "problem", job.trial)
    selected = select_all(curves, outputs, one.recipe, one.benchmark.target)
    kept = outputs if job.keep_outputs else None
    return Outcome(job, curves, selected, kept, messages, seconds)


def _reference(one: _Prepared, outputs: Outputs, store: Store | None) -> Reference:
    """The trial's reference: from this run, from another process, or trained."""
    job, removed = one.job, one.method.reference
    key = f"reference-{job.trial:03d}" + ("-without-shortcut" if removed else "")
    erm = one.recipe.plan(get_method("erm"), steps=job.steps).on(job.device, job.precision)
    found = reference_within(erm, one.plan, outputs)
    if found is None and store is not None:
        found = store.load_reference(key)
        if found is not None:
            return found
    if found is None:
        seed = trial_seed(job.seed, job.trial)
        found = shared_reference(
            job.dataset,
            job.dataset_options,
            job.recipe,
            job.steps,
            seed,
            removed,
            job.device,
            job.precision,
        )
    if store is not None:
        store.save_reference(key, found)
    return found
