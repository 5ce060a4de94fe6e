"""The report of a comparison on a user's own rows: one HTML page, the answer first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from invlearn.diagnostics.findings import Finding
from invlearn.errors import EnvironmentsError, unknown_name
from invlearn.reports import drawing
from invlearn.reports.found import Found, has_number
from invlearn.reports.own_rows_answer import own_rows_answer
from invlearn.reports.own_rows_figures import (
    FAILED,
    by_environment,
    descriptions,
    short_names,
    worst_against_mean,
)
from invlearn.reports.page import how_made, render_page, write_page
from invlearn.reports.record import Answer, OwnRowsRecord
from invlearn.results import Estimate, MethodInfo

TASKS = ("classification", "regression")
SHORTCUTS = ("feature-effects",)
"""Findings about columns whose effect changes: a warning of theirs names the likely shortcut."""

BADGES = {"warning": "warning", "note": "note", "good": "looks good"}
"""What each level is called, the most pressing first."""


def write_own_rows(record: OwnRowsRecord, results: pd.DataFrame, folder: Path) -> Path:
    """Write ``folder/report.html`` and ``folder/figures/*.png``, each file atomically.

    Where one environment was measured in, the figure of the worst against the mean is left out.

    Parameters
    ----------
    record : OwnRowsRecord
    results : DataFrame
        Of `RESULT_COLUMNS`: every method in every environment left out.
    folder : Path
        Made if missing; an older report in it is replaced.

    Returns
    -------
    Path
        The page, which needs no other file, script or network.

    Raises
    ------
    UnknownNameError
        An environment that took no part, another task.
    EnvironmentsError
        An environment measured in is in no fold, a fold leaves none to train on, or no usual method
        ended in finite numbers.
    OutputError
        A folder that cannot be written.
    """
    found = Found.read(record, results)
    _check(found)
    drawn = {"by_environment": drawing.png(by_environment(found))}
    if len(found.environments) > 1:
        drawn["worst_against_mean"] = drawing.png(worst_against_mean(found))
    path = write_page(render(found, own_rows_answer(record), drawn), drawn, Path(folder))
    if "worst_against_mean" not in drawn:
        (path.parent / "figures" / "worst_against_mean.png").unlink(missing_ok=True)
    return path


def _check(found: Found) -> None:
    record = found.record
    if record.task not in TASKS:
        raise unknown_name("task", record.task, TASKS)
    left_out = [name for fold in record.folds for name in fold]
    for name in (*found.environments, *left_out):
        if name not in record.environments:
            raise unknown_name("environment", name, record.environments)
    never = [name for name in found.environments if name not in left_out]
    if never or any(set(fold) == set(record.environments) for fold in record.folds):
        raise EnvironmentsError(
            "Expected folds in which every environment that was measured in is left out and at "
            f"least one is trained on, got {list(map(list, record.folds))} of "
            f"{', '.join(record.environments)}. Give the folds that were trained."
        )


def render(found: Found, answer: Answer, drawn: Mapping[str, bytes]) -> str:
    """Render the page as text.

    Parameters
    ----------
    found : Found
    answer : Answer
    drawn : {'by_environment' and, of several environments, 'worst_against_mean': PNG bytes}

    Returns
    -------
    str
        A complete HTML document, figures and styles inside.
    """
    record = found.record
    ranked = sorted(record.findings, key=lambda finding: list(BADGES).index(finding.level))
    findings = [_shown(finding) for finding in ranked]
    shortcuts = [f for f in findings if f.name in SHORTCUTS and f.level == "warning"]
    return render_page(
        "own_rows.html.j2",
        drawn,
        record=record,
        answer=answer,
        found=found,
        recommended=record.method(answer.recommended),
        shortcuts=shortcuts,
        findings=[finding for finding in findings if finding not in shortcuts],
        columns=_columns(found),
        groups=_groups(found),
        alts=descriptions(found),
        others=sorted({len(record.environments) - len(fold) for fold in record.folds}),
        kinds=_kinds(record.columns),
        again=how_made(record),
    )


class Cell(NamedTuple):
    """A number of the main table."""

    value: str
    interval: str
    best: bool
    where: str = ""


def _columns(found: Found) -> list[tuple[str, str]]:
    """List the environments, each with its rows and what the picture calls it."""
    names, notes = found.environments, []
    for name, short in zip(names, short_names(names), strict=True):
        rows = found.record.environments[name]
        called = f"; in the picture: {short}" if short != " ".join(name.split()) else ""
        notes.append((name, f"{rows:,} rows{called}"))
    return notes


def _groups(found: Found) -> list[tuple[str, list[tuple[MethodInfo, list[Cell]]]]]:
    """List the main table's rows, the usual methods above the invariant ones.

    The worst and the mean come first, unless there is one environment, which is both.
    """
    several = len(found.environments) > 1
    estimates = {
        c.name: [found.overall(c.name).worst, found.overall(c.name).mean] * several
        + [found.cell(e, c.name) for e in found.environments]
        for c in found.methods
    }
    pick = max if found.metric.higher_is_better else min
    best = []
    for column in zip(*estimates.values(), strict=True):
        values = [estimate.value for estimate in column if has_number(estimate)]
        # What the table shows as equal is equally good in it.
        best.append(found.metric.show(pick(values)) if values else "")

    def cell(estimate: Estimate, top: str, where: str) -> Cell:
        if not has_number(estimate):
            return Cell(FAILED, "", False, where)
        value = found.metric.show(estimate.value)
        return Cell(value, found.interval(estimate), value == top, where)

    def cells(method: MethodInfo) -> list[Cell]:
        wheres = [f"in {found.overall(method.name).where}", ""] * several
        wheres += [""] * len(found.environments)
        return [cell(*each) for each in zip(estimates[method.name], best, wheres, strict=True)]

    return [
        (f"{kind.capitalize()} methods", [(method, cells(method)) for method in members])
        for kind, members in groupby(found.methods, key=lambda method: method.kind)
    ]


class ShownFinding(NamedTuple):
    """A finding whose numbers are text; cells are (text, whether it is a number)."""

    name: str
    title: str
    sentence: str
    action: str
    level: str
    badge: str
    head: list[tuple[str, bool]]
    rows: list[list[tuple[str, bool]]]


def _shown(finding: Finding) -> ShownFinding:
    table = finding.table
    rows = [[_text(value) for value in row] for row in table.itertuples(index=False, name=None)]
    head = [(str(column), all(row[i][1] for row in rows)) for i, column in enumerate(table.columns)]
    return ShownFinding(
        finding.name, finding.title, finding.sentence, finding.action, finding.level,
        BADGES[finding.level], head, rows,
    )  # fmt: skip


def _text(value: Any) -> tuple[str, bool]:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no", False
    if isinstance(value, float | np.floating):
        number = float(value)
        if not np.isfinite(number):
            return "–", True
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}", True
    return str(value), isinstance(value, int | np.integer)


def _kinds(columns: Mapping[str, str]) -> str:
    """Count the columns by how each was read."""
    count = Counter(kind.partition(":")[0] for kind in columns.values())
    words = {kind: kind if kind == "left out" else f"as {kind}" for kind in count}
    return ", ".join(f"{number} {words[kind]}" for kind, number in count.items())
