"""Methods compared, on a benchmark or on one's own rows: asked, run, measured, written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from invlearn.comparison.benchmark import prepare_benchmark
from invlearn.comparison.contest import AnyRecord, Comparison, Contest, Progress
from invlearn.comparison.own_rows import prepare_rows
from invlearn.comparison.requests import (
    BenchmarkRequest,
    Request,
    RowsRequest,
    check_amount,
    refuse,
)
from invlearn.comparison.runner import Work, run
from invlearn.comparison.store import Store
from invlearn.errors import OptionError
from invlearn.ground.machine import check_device, cores, provenance
from invlearn.reports.record import to_json


def compare(
    request: Request[AnyRecord],
    out: str | Path | None = None,
    *,
    jobs: int | None = None,
    resume: bool = False,
    command: str = "",
    progress: Progress = lambda done, total, what: None,
    agree: Callable[[str], bool] = refuse,
) -> Comparison[AnyRecord]:
    """Train every method on some environments and measure it in ones it was not trained on.

    On a benchmark over its trials, and every selection rule is applied. On one's own rows each
    environment is left out in turn: columns are encoded and penalty strengths chosen on the
    others alone.

    Parameters
    ----------
    request : BenchmarkRequest or RowsRequest
    out : path, optional
        A folder that holds no results yet. It then holds results.csv, summary.json, report.html,
        figures/, and curves.parquet where steps were evaluated; without it nothing is written.
    jobs : int, optional
        Runs at a time, each on one thread; default: one per core.
    resume : bool
        Go on with the unfinished runs in `out`.
    command : str
        For the record.
    progress : callable
        ``progress(runs done, runs in all, what was done last)``.
    agree : callable
        Asked before more than 10,000 runs, with a text that says how many and how long; by default
        they are refused.

    Raises
    ------
    InvlearnError
        Anything wrong with the request, the rows or the folder; nothing has been written then.

    Notes
    -----
    With more than one job, runs go to other processes: in a script, call this below
    ``if __name__ == "__main__":``.

    Examples
    --------
    >>> sizes = {"rows_per_environment": 100, "validation_rows": 50, "test_rows": 50}
    >>> request = BenchmarkRequest(
    ...     "colored-digits", ["erm"], trials=1, steps=2, dataset_options=sizes
    ... )
    >>> sorted(compare(request, jobs=1).results["split"].unique())
    ['test', 'train', 'validation']

    >>> from invlearn.rows.example import hospitals
    >>> request = RowsRequest(hospitals(rows=20), "ill", "hospital", ["vrex"], steps=2)
    >>> made = compare(request, jobs=1)
    >>> made.record.metric, [method.name for method in made.record.methods]
    ('accuracy', ['linear', 'boosting', 'vrex'])
    """
    if not isinstance(request, Request):
        raise OptionError(
            f"Expected a BenchmarkRequest or RowsRequest, got {type(request).__name__}. For "
            "instance RowsRequest(rows, target, environment)."
        )
    source, clock = provenance(command or request.command()), time.monotonic()
    processes = cores() if jobs is None else jobs
    if processes < 1:
        raise OptionError(f"Expected one or more runs at a time, got jobs={processes}.")
    if resume and out is None:
        raise OptionError("Expected the folder of the unfinished runs with resume, got no out.")
    check_device(request.device)
    trials, methods = request.numbers.stop - request.numbers.start, len(request.competitors)
    check_amount(trials * methods, f"{trials:,} trials, {methods} methods", processes, agree)
    store = None if out is None else Store.check(Path(out), resume=resume)
    contest = _contest(request)
    if store is not None:
        store.begin(contest.plan)
    workers = processes if request.device == "cpu" else 1
    runs, resumed = run(
        Work(contest.problems, contest.methods, store),
        contest.tasks,
        processes=workers,
        progress=progress,
        arrange=partial(contest.arrange, processes=processes),
    )
    facts = {
        "jobs": workers,
        "threads": 1,
        "seconds": round(time.monotonic() - clock, 1),
        "seconds_of_all_runs": round(sum(kept.seconds for kept in runs.values()), 1),
        "runs_resumed": resumed,
    }
    made = contest.measured(list(runs.values()), {**source, **facts}, processes, progress)
    if store is None:
        return made
    contest.report(made, store.folder)
    _write(store, made)
    keeps = isinstance(request, BenchmarkRequest) and request.keep_outputs
    store.finish(keep_outputs=keeps)
    return replace(made, folder=store.folder)


def _contest(request: Request[AnyRecord]) -> Contest[AnyRecord]:
    contest: Any
    if isinstance(request, BenchmarkRequest):
        contest = prepare_benchmark(request)
    else:
        assert isinstance(request, RowsRequest)
        contest = prepare_rows(request)
    return cast(Contest[AnyRecord], contest)


def _write(store: Store, made: Comparison[AnyRecord]) -> None:
    """The tables; the summary comes last."""
    tables = {**made.tables, "curves.parquet": made.curves, "results.csv": made.results}
    for name, table in tables.items():
        if name.endswith(".csv"):
            store.write(name, table.to_csv(index=False, float_format="%.10g"))
        elif len(table):
            store.write(name, table.to_parquet(index=False))
    store.write("summary.json", to_json(made.record, made.answer))
