"""Compare methods on a dataset: plan, run, select, report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.datasets import DATASETS, load
from invlearn.datasets.base import Benchmark
from invlearn.errors import OptionError, unknown_name
from invlearn.experiments.jobs import Job, Outcome, load_outcome, run_jobs
from invlearn.experiments.methods import Method, get_method
from invlearn.experiments.recipes import Recipe, describe_plan, get_recipe
from invlearn.experiments.request import (
    DEFAULT_METHODS,
    Request,
    describe_dataset,
    describe_method,
    describe_rule,
    overrides,
)
from invlearn.experiments.selecting import Selected
from invlearn.experiments.similarity import Chosen, measure_similarity
from invlearn.experiments.store import Store
from invlearn.experiments.trials import trial_seed
from invlearn.features import width
from invlearn.ground.machine import check_device, cores, provenance, run_all
from invlearn.learning import Plan
from invlearn.reports import write_report
from invlearn.selection import RULES
from invlearn.training.together import small_step

TOGETHER = 64
"""Runs of one method that are trained as one at most."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` leaves in its folder, in memory."""

    results: pd.DataFrame
    curves: pd.DataFrame
    summary: dict[str, Any]
    folder: Path


def compare(
    request: Request,
    out: Path,
    *,
    jobs: int | None = None,
    resume: bool = False,
    command: str = "",
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Comparison:
    """Train every method over every trial, apply every selection rule, write the folder.

    The folder then holds results.csv (long: a row per method, problem, environment, split,
    metric and selection rule), curves.parquet (the same at every evaluated step),
    summary.json, figures/ and report.html.

    Parameters
    ----------
    request : Request
    out : Path
        A folder that holds no results yet.
    jobs : int, optional
        Runs at a time, each on one thread; default: one per core.
    resume : bool
        Go on with the unfinished runs in `out`.
    command : str
        For the record.
    progress : callable
        ``progress(runs done, runs in all, what was done last)``.

    Raises
    ------
    InvlearnError
        Anything wrong with the request or the folder; nothing has been written then.

    Notes
    -----
    With more than one job, runs go to other processes: in a script, call this below
    ``if __name__ == "__main__":``.

    Examples
    --------
    >>> import tempfile
    >>> sizes = {"rows_per_environment": 100, "validation_rows": 50, "test_rows": 50}
    >>> request = Request("colored-digits", ["erm"], trials=1, steps=2, dataset_options=sizes)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     comparison = compare(request, Path(folder), jobs=1)
    >>> sorted(comparison.results["split"].unique())
    ['test', 'train', 'validation']
    """
    source, clock = provenance(command or request.command()), time.monotonic()
    recipe, methods, benchmark = _resolve(request)
    processes = cores() if jobs is None else jobs
    if processes < 1:
        raise OptionError(f"Expected one or more runs at a time, got jobs={processes}.")
    plans = {m.name: _plan(recipe, m, request) for m in methods}
    todo = [
        Job(
            request.dataset,
            tuple(sorted(request.dataset_options.items())),
            recipe.name,
            method.name,
            trial,
            request.seed,
            request.steps,
            tuple(sorted(request.hyper.get(method.name, {}).items())),
            request.leave_one_out,
            request.keep_outputs,
            request.device,
            request.precision,
        )
        for trial in range(request.trials)
        for method in methods
    ]
    record = {
        "plans": {n: describe_plan(p) for n, p in plans.items()},
        "jobs": [vars(j) for j in todo],
    }
    store = Store.check(out, record, resume=resume)
    store.begin(record)
    kept = {job.key: load_outcome(store, job) for job in todo}
    finished = resumed = sum(found is not None for found in kept.values())

    def done(outcomes: list[Outcome]) -> None:
        nonlocal finished
        for outcome in outcomes:
            kept[outcome.job.key] = replace(outcome, outputs=None)
            finished += 1
            progress(finished, len(todo), f"{outcome.job.method}, trial {outcome.job.trial}")

    missing = [job for job in todo if kept[job.key] is None]
    units = arrange(missing, plans, benchmark, processes)
    workers = processes if request.device == "cpu" else 1
    run_all(partial(run_jobs, store=store), units, processes=workers, done=done)
    runs = [found for job in todo if (found := kept[job.key]) is not None]
    curves = pd.concat([run.curves for run in runs], ignore_index=True)
    messages = [
        {"method": run.job.method, "problem": run.job.trial, "message": text}
        for run in runs
        for text in run.messages
    ]
    selected = [run.selected for run in runs]
    results = pd.concat([found.results for found in selected], ignore_index=True)
    statistics = pd.concat([found.statistics for found in selected], ignore_index=True)
    rules = [rule for rule in RULES.values() if any(rule.name in found.rules for found in selected)]
    summary = {
        "dataset": describe_dataset(request, benchmark),
        "methods": [describe_method(m, plans[m.name]) for m in methods],
        "selections": [describe_rule(rule) for rule in rules],
        "recipe": {
            "name": recipe.name,
            "oracle": recipe.oracle,
            "note": recipe.note + overrides(request),
            "settings": recipe.common,
        },
        "headline": rules[0].name,
        "trials": request.trials,
        "seed": request.seed,
        "seeds": [trial_seed(request.seed, t) for t in range(request.trials)],
        "provenance": source
        | {
            "jobs": workers,
            "threads": 1,
            "seconds": round(time.monotonic() - clock, 1),
            "seconds_of_all_runs": round(sum(run.seconds for run in runs), 1),
            "runs_resumed": resumed,
        },
        "warnings": messages,
        "unsatisfied": _by_method(selected, "unsatisfied"),
        "notes": _by_method(selected, "notes"),
    }
    similarity = _similarity(request, results, todo, processes, progress)
    write_report(results, curves, summary, out, statistics, similarity)
    if similarity is not None:
        store.write("similarity.csv", similarity.to_csv(index=False, float_format="%.8g"))
    store.write("statistics.parquet", statistics.to_parquet(index=False))
    store.write("curves.parquet", curves.to_parquet(index=False))
    store.write("results.csv", results.to_csv(index=False, float_format="%.10g"))
    store.write("summary.json", json.dumps(summary, indent=1))
    store.finish(keep_outputs=request.keep_outputs)
    return Comparison(results, curves, summary, out)


def _resolve(request: Request) -> tuple[Recipe, list[Method], Benchmark]:
    """Everything the request names, looked up; every complaint comes from here."""
    if request.trials < 1:
        raise OptionError(f"Expected at least one trial, got {request.trials}.")
    if request.similarity < 0:
        raise OptionError(
            f"Expected to compare representations in 0 or more trials, got {request.similarity}."
        )
    check_device(request.device)
    if request.similarity and request.device != "cpu":
        raise OptionError(
            f"Expected the device 'cpu' for comparing representations, got '{request.device}': the "
            "chosen models are trained again, and elsewhere they would not be the same ones. Leave "
            "out --similarity or --device."
        )
    if request.seed < 0:
        raise OptionError(f"Expected a seed of 0 or more, got {request.seed}.")
    if not request.methods:
        raise OptionError("Expected at least one method, got none. Try --objectives erm,irmv1.")
    if request.dataset not in DATASETS:
        raise unknown_name("dataset", request.dataset, DATASETS)
    methods = [get_method(name) for name in dict.fromkeys(request.methods)]
    for name in request.hyper:
        if name not in {m.name for m in methods}:
            raise unknown_name("method in a hyperparameter", name, [m.name for m in methods])
    for name in request.dataset_options:
        known = DATASETS[request.dataset].options
        if name not in known:
            raise unknown_name(f"option of {request.dataset}", name, known)
    recipe = get_recipe(request.dataset, request.recipe)
    benchmark = load(request.dataset, seed=trial_seed(request.seed, 0), **request.dataset_options)
    for method in methods:
        left = len(benchmark.train) - (1 if request.leave_one_out else 0)
        needed = method.objective.min_environments
        if left < needed:
            benchmark.train.require(
                needed + (1 if request.leave_one_out else 0),
                method.title + (" with an environment left out" if request.leave_one_out else ""),
            )
        if method.reference and benchmark.without_shortcut is None:
            raise OptionError(
                f"'{method.name}' needs features without the shortcut; {benchmark.name} with "
                "these options has none. Leave it out of --objectives."
            )
    return recipe, methods, benchmark


def arrange(
    jobs: Sequence[Job], plans: Mapping[str, Plan], benchmark: Benchmark, processes: int
) -> list[tuple[Job, ...]]:
    """Jobs in the units that are run as one, the units in the order in which they begin.

    First those that leave references for others; then long ones, so that the cores end together.
    Small runs of one method, and all of one method's on a GPU, are one unit, or one a process.
    """
    units: list[tuple[Job, ...]] = []
    for name in dict.fromkeys(job.method for job in jobs):
        own, plan = [job for job in jobs if job.method == name], plans[name]
        size = 1
        parameters = count_parameters(plan, benchmark)
        if own[0].device != "cpu":
            size = TOGETHER
        elif small_step(benchmark.train.sizes, plan.settings.batch_size, parameters):
            size = min(-(-len(own) // processes), TOGETHER)
        units += [tuple(own[a : a + size]) for a in range(0, len(own), size)]

    def order(unit: tuple[Job, ...]) -> tuple[bool, float]:
        plan = plans[unit[0].method]
        length = len(unit) * plan.settings.steps * count_parameters(plan, benchmark)
        return get_method(unit[0].method).objective != get_method("erm").objective, -length

    return sorted(units, key=order)


def count_parameters(plan: Plan, benchmark: Benchmark) -> int:
    """Numbers that the plan's model holds."""
    model = plan.network(width(benchmark.train.x), benchmark.n_outputs, 0)
    return sum(p.numel() for p in model.parameters())


def _plan(recipe: Recipe, method: Method, request: Request) -> Plan:
    plan = recipe.plan(method, steps=request.steps, hyper=request.hyper.get(method.name))
    return plan.on(request.device, request.precision)


def _similarity(
    request: Request,
    results: pd.DataFrame,
    jobs: Sequence[Job],
    processes: int,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame | None:
    """Train the first trials' chosen models again and compare their representations."""
    if not request.similarity:
        return None
    first = results["selection"].iloc[0]  # The headline rule's come first.
    steps = results[results["selection"] == first].groupby(["method", "problem"])["step"].first()
    chosen = [
        Chosen(job, int(steps[job.method, job.trial]))
        for job in jobs
        if job.trial < request.similarity and not get_method(job.method).reference
    ]
    if not chosen:
        return None
    tables: list[pd.DataFrame] = []

    def done(table: pd.DataFrame) -> None:
        tables.append(table)
        progress(len(tables), len(chosen), "comparing representations")

    run_all(measure_similarity, chosen, processes=processes, done=done)
    return pd.concat(tables).sort_values(["method", "problem", "kind"], kind="stable")


def _by_method(selected: Sequence[Selected], what: str) -> list[dict[str, Any]]:
    """Runs whose rule has something to say: trials by selection, method and text."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for one in selected:
        for label, text in getattr(one, what).items():
            found.setdefault((label, one.method, text), []).append(one.problem)
    return [
        {"selection": label, "method": method, "trials": trials} | ({"note": text} if text else {})
        for (label, method, text), trials in found.items()
    ]


__all__ = ["DEFAULT_METHODS", "Comparison", "Request", "compare"]
