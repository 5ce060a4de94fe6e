"""What a comparison on a user's rows leaves: results.csv, summary.json and the report."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from invlearn.ground.files import write_whole
from invlearn.ground.machine import Provenance
from invlearn.reports.own_rows import OwnRows, write_own_rows
from invlearn.reports.verdict import Verdict, verdict
from invlearn.results import Overall
from invlearn.rows.compare import RowsComparison
from invlearn.rows.fit import FitRequest
from invlearn.rows.request import RowsRequest


def write_comparison(
    comparison: RowsComparison, request: RowsRequest, path: Path, folder: Path, made: Provenance
) -> Verdict:
    """Write the results of a comparison of the rows at `path`; returns the answer."""
    source, answer = comparison.source, verdict(comparison.found)
    seconds = f"{comparison.seconds:.1f}"
    from_here = made | {"seed": str(request.seed), "seconds": seconds}
    table = comparison.table(request)
    content = OwnRows(
        title=source.title,
        target=source.target_name,
        environment=source.environment_name,
        task=source.target.task,
        classes=tuple(map(str, source.target.classes)),
        environments=source.sizes,
        folds=comparison.folds,
        found=comparison.found,
        verdict=answer,
        findings=comparison.findings,
        columns=comparison.columns,
        notes=comparison.notes,
        settings=comparison.settings,
        next_command=next_command(path, comparison, request, answer),
        provenance=from_here,
    )
    summary: dict[str, Any] = {
        "answer": {"headline": answer.headline, "sentences": answer.sentences,
                   "recommended": answer.recommended, "outcome": answer.outcome},
        "target": source.target_name,
        "environment": source.environment_name,
        "task": source.target.task,
        "rows": source.sizes,
        "metric": comparison.found.metric.name,
        "overall": [_plain(overall) for overall in comparison.found.overall()],
        "methods": [contender._asdict() for contender in comparison.found.contenders],
        "settings": comparison.settings,
        "columns": comparison.columns,
        "findings": [
            {"name": finding.name, "level": finding.level, "sentence": finding.sentence,
             "action": finding.action}
            for finding in comparison.findings
        ],
        "notes": comparison.notes,
        "provenance": from_here,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.csv", table.to_csv(index=False))
    if len(comparison.curves):
        write_whole(folder / "curves.parquet", comparison.curves.to_parquet(index=False))
    text = json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False)
    write_whole(folder / "summary.json", text + "\n")
    write_own_rows(content, folder)
    return answer


def _plain(overall: Overall) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    text = pd.Series(asdict(overall)).to_json()
    plain: dict[str, Any] = json.loads(text)
    return plain


def next_command(
    path: Path, comparison: RowsComparison, request: RowsRequest, answer: Verdict
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
