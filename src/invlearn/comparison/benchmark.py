"""Compare methods on a dataset: plan, run, select, report."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from invlearn.comparison.recipes import Recipe, get_recipe
from invlearn.comparison.record import describe_method, make_record
from invlearn.comparison.request import DEFAULT_METHODS, BenchmarkRequest
from invlearn.comparison.runner import Task, Work, run
from invlearn.comparison.similarity import Chosen, measure_similarity
from invlearn.comparison.store import Store
from invlearn.comparison.trials import Trials
from invlearn.datasets import DATASETS, load_benchmark
from invlearn.errors import OptionError, unknown_name
from invlearn.features import width
from invlearn.ground.machine import check_device, cores, provenance, run_all
from invlearn.learning import Plan
from invlearn.methods import Method, Network, Usual, get_method, trial_seed
from invlearn.objectives import OBJECTIVES
from invlearn.problem import Problem
from invlearn.reports import write_report
from invlearn.reports.answer import benchmark_answer
from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.record import to_json
from invlearn.reports.tables import table
from invlearn.selection import RULES
from invlearn.training.many_runs import small_step

TOGETHER = 64
"""Runs of one method that are trained as one at most."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` leaves in its folder, in memory."""

    results: pd.DataFrame
    curves: pd.DataFrame
    record: BenchmarkRecord
    folder: Path


def compare(
    request: BenchmarkRequest,
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
    request : BenchmarkRequest
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
    >>> request = BenchmarkRequest(
    ...     "colored-digits", ["erm"], trials=1, steps=2, dataset_options=sizes
    ... )
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
    plans = {name: asdict(describe_method(method)) for name, method in methods.items()}
    store = Store.check(out, resume=resume)
    store.begin({"plans": plans, "request": asdict(request)})
    trials = Trials(
        request.dataset,
        tuple(sorted(request.dataset_options.items())),
        recipe.name,
        request.seed,
        request.steps,
        request.device,
        request.precision,
        request.keep_outputs,
    )
    tasks = [Task(name, f"{t:03d}") for t in range(request.trials) for name in methods]
    workers = processes if request.device == "cpu" else 1
    found, resumed = run(
        Work(trials, methods, store),
        tasks,
        processes=workers,
        progress=progress,
        arrange=partial(arrange, methods=methods, benchmark=benchmark, processes=processes),
    )
    runs = list(found.values())
    curves, results, statistics = (
        pd.concat([kept.tables[name] for kept in runs], ignore_index=True)
        for name in ("curves", "results", "statistics")
    )
    applied = {name for kept in runs for name in kept.facts["rules"]}
    rules = [rule for name, rule in RULES.items() if name in applied]
    facts = {
        "jobs": workers,
        "threads": 1,
        "seconds": round(time.monotonic() - clock, 1),
        "seconds_of_all_runs": round(sum(kept.seconds for kept in runs), 1),
        "runs_resumed": resumed,
    }
    record = make_record(
        request, benchmark, recipe, methods.values(), rules, runs, {**source, **facts}
    )
    similarity = _similarity(request, trials, methods, results, processes, progress)
    made = Comparison(results, curves, record, out)
    _write(store, made, statistics, similarity)
    store.finish(keep_outputs=request.keep_outputs)
    return made


def _write(
    store: Store, made: Comparison, statistics: pd.DataFrame, similarity: pd.DataFrame | None
) -> None:
    """The report and the tables; the summary comes last."""
    results, record = made.results, made.record
    write_report(results, made.curves, record, made.folder, statistics, similarity)
    if similarity is not None:
        store.write("similarity.csv", similarity.to_csv(index=False, float_format="%.8g"))
    store.write("statistics.parquet", statistics.to_parquet(index=False))
    store.write("curves.parquet", made.curves.to_parquet(index=False))
    store.write("results.csv", results.to_csv(index=False, float_format="%.10g"))
    answer = benchmark_answer(table(results, record, record.main_rule(results)), record)
    store.write("summary.json", to_json(record, answer))


def _resolve(request: BenchmarkRequest) -> tuple[Recipe, dict[str, Method], Problem]:
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
    methods = {name: get_method(name) for name in request.methods}
    for name in request.hyper:
        if name not in methods:
            raise unknown_name("method in a hyperparameter", name, methods)
    for name in request.dataset_options:
        known = DATASETS[request.dataset].options
        if name not in known:
            raise unknown_name(f"option of {request.dataset}", name, known)
    recipe = get_recipe(request.dataset, request.recipe)
    seed = trial_seed(request.seed, 0)
    first = load_benchmark(request.dataset, seed=seed, **request.dataset_options)
    for name, method in methods.items():
        if isinstance(method, Usual):
            method.table(first)
        if isinstance(method, Network):
            methods[name] = _planned(method, recipe, request)
            _check_environments(method, request, first)
    return recipe, methods, first


def _planned(method: Network, recipe: Recipe, request: BenchmarkRequest) -> Network:
    plan = recipe.plan(method, steps=request.steps, hyper=request.hyper.get(method.name))
    plan = plan.on(request.device, request.precision)
    return replace(method, plan=plan, leave_one_out=request.leave_one_out)


def _check_environments(method: Network, request: BenchmarkRequest, benchmark: Problem) -> None:
    left_out = 1 if request.leave_one_out else 0
    needed = method.objective.min_environments
    if len(benchmark.train) - left_out < needed:
        purpose = method.title + (" with an environment left out" if left_out else "")
        benchmark.train.require(needed + left_out, purpose)
    if method.kind == "reference" and benchmark.without_shortcut is None:
        raise OptionError(
            f"'{method.name}' needs features without the shortcut; {benchmark.name} with "
            "these options has none. Leave it out of --objectives."
        )


def arrange(
    tasks: Sequence[Task], *, methods: Mapping[str, Method], benchmark: Problem, processes: int
) -> list[tuple[Task, ...]]:
    """Tasks in the units that are run as one, the units in the order in which they begin.

    First those that leave references for others; then long ones, so that the cores end together.
    Small runs of one method, and all of one method's on a GPU, are one unit, or one a process.
    """
    units: list[tuple[tuple[bool, float], tuple[Task, ...]]] = []
    for name in dict.fromkeys(task.method for task in tasks):
        own, method = [task for task in tasks if task.method == name], methods[name]
        size, length, leaves = 1, 0, False
        if isinstance(method, Network):
            plan = method.planned
            parameters = count_parameters(plan, benchmark)
            length = plan.settings.steps * parameters
            leaves = method.objective == OBJECTIVES["erm"]
            if plan.device != "cpu":
                size = TOGETHER
            elif small_step(benchmark.train.sizes, plan.settings.batch_size, parameters):
                size = min(-(-len(own) // processes), TOGETHER)
        parts = [tuple(own[a : a + size]) for a in range(0, len(own), size)]
        units += [((not leaves, -len(part) * length), part) for part in parts]
    return [part for _, part in sorted(units, key=lambda unit: unit[0])]


def count_parameters(plan: Plan, benchmark: Problem) -> int:
    """Numbers that the plan's model holds."""
    model = plan.network(width(benchmark.train.x), benchmark.n_outputs, 0)
    return sum(p.numel() for p in model.parameters())


def _similarity(
    request: BenchmarkRequest,
    trials: Trials,
    methods: Mapping[str, Method],
    results: pd.DataFrame,
    processes: int,
    progress: Callable[[int, int, str], None],
) -> pd.DataFrame | None:
    """Train the first trials' chosen models again and compare their representations."""
    if not request.similarity:
        return None
    first = results["selection"].iloc[0]  # The headline rule's come first.
    steps = results[results["selection"] == first].groupby(["method", "problem"])["step"].first()
    chosen = [
        Chosen(method, f"{trial:03d}", int(steps[method.name, trial]))
        for trial in range(min(request.similarity, request.trials))
        for method in methods.values()
        if isinstance(method, Network) and method.kind != "reference"
    ]
    if not chosen:
        return None
    tables: list[pd.DataFrame] = []

    def done(table: pd.DataFrame) -> None:
        tables.append(table)
        progress(len(tables), len(chosen), "comparing representations")

    run_all(partial(measure_similarity, trials), chosen, processes=processes, done=done)
    return pd.concat(tables).sort_values(["method", "problem", "kind"], kind="stable")


__all__ = ["DEFAULT_METHODS", "BenchmarkRequest", "Comparison", "compare"]
