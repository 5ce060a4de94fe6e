"""What a comparison on a user's rows leaves: results.csv, summary.json and the report."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from invlearn.ground.files import write_whole
from invlearn.ground.machine import Provenance
from invlearn.reports.own_rows import write_own_rows
from invlearn.reports.own_rows_answer import own_rows_answer
from invlearn.reports.record import Answer, OwnRowsRecord, to_json
from invlearn.rows.compare import RowsComparison
from invlearn.rows.fit import FitRequest
from invlearn.rows.request import RowsRequest


def write_comparison(
    comparison: RowsComparison, request: RowsRequest, path: Path, folder: Path, made: Provenance
) -> tuple[OwnRowsRecord, Answer]:
    """Write the results of a comparison of the rows at `path`; give its record and the answer."""
    record = make_record(comparison, request, made)
    answer = own_rows_answer(record)
    record = replace(record, next_command=next_command(path, comparison, request, answer))
    table = comparison.table(request)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.csv", table.to_csv(index=False))
    if len(comparison.curves):
        write_whole(folder / "curves.parquet", comparison.curves.to_parquet(index=False))
    write_whole(folder / "summary.json", to_json(record, answer))
    write_own_rows(record, table, folder)
    return record, answer


def make_record(
    comparison: RowsComparison, request: RowsRequest, made: Provenance
) -> OwnRowsRecord:
    """Describe a comparison for its report."""
    source, found = comparison.source, comparison.found
    return OwnRowsRecord(
        methods=tuple(
            replace(method, settings=comparison.settings.get(method.name, {}))
            for method in found.contenders
        ),
        trials=request.trials,
        seed=request.seed,
        provenance=made | {"seconds": f"{comparison.seconds:.1f}"},
        title=source.title,
        target=source.target_name,
        environment=source.environment_name,
        task=source.target.task,
        classes=tuple(map(str, source.target.classes)),
        metric=found.metric.name,
        environments=source.sizes,
        folds=comparison.folds,
        overall=found.overall(),
        draws=len(found.draws),
        findings=comparison.findings,
        columns=comparison.columns,
        notes=comparison.notes,
    )


def next_command(
    path: Path, comparison: RowsComparison, request: RowsRequest, answer: Answer
) -> str:
    """The command that fits what was measured, of the recommended kind, to all of the rows."""
    source, usual = comparison.source, FitRequest()
    words = ["invlearn", "fit", str(path)]
    if source.pixels is None:
        words += ["--target", source.target_name, "--environment", source.environment_name]
        words += ["--task", source.target.task]
        for name in source.left_out:
            words += ["--drop", name]
        if request.hidden != usual.hidden:
            words += ["--hidden", ",".join(map(str, request.hidden))]
    if request.steps != usual.steps:
        words += ["--steps", str(request.steps)]
    if request.select is not None:
        words += ["--early-stopping", request.select]
    # A linear model or trees of the pooled rows are scikit-learn's; ERM is the nearest here.
    known = answer.recommended not in ("linear", "boosting")
    words += ["--objective", answer.recommended if known else "erm-pooled"]
    return shlex.join([*words, "--output", "model"])
