"""The report of a comparison on a user's own rows: one HTML page, the answer first."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.held_out import Contender, Estimate, HeldOut
from invlearn.errors import OutputError, unknown_name
from invlearn.reports import drawing, figures
from invlearn.reports.own_rows_figures import (
    by_environment,
    in_order,
    short_names,
    worst_against_mean,
)
from invlearn.reports.verdict import Verdict

TASKS = ("classification", "regression")
SHORTCUTS = ("feature-effects",)
"""Findings about columns whose effect changes: a warning of theirs names the likely shortcut."""

BADGES = {"warning": "warning", "note": "note", "good": "looks good"}
"""What each level is called, the most pressing first."""

MANY = 60
"""Numbers that a picture's description holds; past that it has the worst and the means."""

METRICS = {
    "accuracy": "the share of rows whose class was predicted right",
    "balanced accuracy": "the share predicted right of each class, averaged over the classes, "
    "so that a rare class counts as much as a frequent one",
    "RMSE": "the root of the mean squared error: the typical size of an error, in the unit of the "
    "target; lower is better",
}


@dataclass(frozen=True)
class OwnRows:
    """What a comparison on a user's own rows found.

    Attributes
    ----------
    title : str
        Of the page, for instance the file's name.
    target, environment : str
        Names of columns.
    task : 'classification' or 'regression'
    classes : tuple of str
        Empty for a regression.
    found : HeldOut
        Every method in every environment, each trained on the others.
    verdict : Verdict
    findings : tuple of Finding
        Of the data, or of a model of the recommended kind; may be empty.
    columns : {column: 'number', 'category', 'date', 'text' or 'left out: reason'}
    notes : tuple of str
        Things to know: rows dropped, environments set aside.
    settings : {method's name: {what: how it was set}}
    next_command : str
        The command that goes on from here.
    provenance : {what: value}
        Such as command, version, commit, machine, started, seconds, seed; empty values are
        left out.
    """

    title: str
    target: str
    environment: str
    task: str
    classes: tuple[str, ...]
    found: HeldOut
    verdict: Verdict
    findings: tuple[Finding, ...]
    columns: Mapping[str, str]
    notes: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]]
    next_command: str
    provenance: Mapping[str, str]


def write_own_rows(content: OwnRows, folder: Path) -> Path:
    """Write ``folder/report.html`` and ``folder/figures/*.png``, each file atomically.

    Parameters
    ----------
    content : OwnRows
    folder : Path
        Made if missing; an older report in it is replaced.

    Returns
    -------
    Path
        The page, which needs no other file, script or network.

    Raises
    ------
    UnknownNameError
        The recommended method or one with settings took no part, or another task.
    OutputError
        A folder that cannot be written.
    """
    known = [method.name for method in content.found.contenders]
    for name in (content.verdict.recommended, *content.settings):
        if name not in known:
            raise unknown_name("method", name, known)
    if content.task not in TASKS:
        raise unknown_name("task", content.task, TASKS)
    draw = {"by_environment": by_environment, "worst_against_mean": worst_against_mean}
    drawn = {name: drawing.png(one(content.found)) for name, one in draw.items()}
    page = render(content, drawn)
    path = Path(folder) / "report.html"
    try:
        figures.save_all(drawn, path.parent / "figures")
        drawing.replace(path, page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise OutputError(
            f"Expected a folder to write the report in, '{folder}' cannot be written: "
            f"{error.strerror}. Name another folder, or free this one."
        ) from error
    return path


def render(content: OwnRows, drawn: Mapping[str, bytes]) -> str:
    """Render the page as text.

    Parameters
    ----------
    content : OwnRows
    drawn : {'by_environment' and 'worst_against_mean': PNG bytes}

    Returns
    -------
    str
        A complete HTML document, figures and styles inside.
    """
    found = content.found
    environment = Environment(
        loader=PackageLoader("invlearn.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ranked = sorted(content.findings, key=lambda finding: list(BADGES).index(finding.level))
    findings = [_shown(finding) for finding in ranked]
    shortcuts = [f for f in findings if f.name in SHORTCUTS and f.level == "warning"]
    return environment.get_template("own_rows.html.j2").render(
        content=content,
        found=found,
        recommended=found.contenders[found.number(content.verdict.recommended)],
        shortcuts=shortcuts,
        findings=[finding for finding in findings if finding not in shortcuts],
        columns=_columns(found),
        groups=_groups(found),
        alts=_descriptions(found),
        methods=in_order(found),
        figures={name: _data_uri(picture) for name, picture in drawn.items()},
        metric=METRICS[found.metric.name],
        kinds=_kinds(content.columns),
        provenance=_provenance(content.provenance),
    )


def _data_uri(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


class Cell(NamedTuple):
    """A number of the main table."""

    value: str
    interval: str
    best: bool
    where: str = ""


def _columns(found: HeldOut) -> list[tuple[str, str]]:
    """List the environments, each with its rows and what the picture calls it."""
    names, notes = found.environments, []
    for name, short, rows in zip(names, short_names(names), found.rows, strict=True):
        called = f"; in the picture: {short}" if short != " ".join(name.split()) else ""
        notes.append((name, f"{rows:,} rows{called}"))
    return notes


def _groups(found: HeldOut) -> list[tuple[str, list[tuple[Contender, list[Cell]]]]]:
    """List the main table's rows, the usual methods above the invariant ones."""
    estimates = {
        c.name: [found.worst(c.name), found.mean(c.name)]
        + [found.cell(e, c.name) for e in found.environments]
        for c in found.contenders
    }
    pick = max if found.metric.higher_is_better else min
    # What the table shows as equal is equally good in it.
    best = [
        found.metric.show(pick(column, key=lambda estimate: estimate.value).value)
        for column in zip(*estimates.values(), strict=True)
    ]

    def cells(method: Contender) -> list[Cell]:
        values = [found.metric.show(estimate.value) for estimate in estimates[method.name]]
        wheres = [f"in {found.worst_environment(method.name)}"] + [""] * (len(best) - 1)
        intervals = [_interval(found, estimate) for estimate in estimates[method.name]]
        marks = [value == top for value, top in zip(values, best, strict=True)]
        return [Cell(*cell) for cell in zip(values, intervals, marks, wheres, strict=True)]

    return [
        (f"{kind.capitalize()} methods", [(method, cells(method)) for method in found.kind(kind)])
        for kind in ("usual", "invariant")
        if found.kind(kind)
    ]


def _descriptions(found: HeldOut) -> dict[str, str]:
    """Say in words what the pictures show, numbers included."""

    def said(estimate: Estimate) -> str:
        return f"{found.metric.show(estimate.value)} ({_interval(found, estimate)})"

    sums = "; ".join(
        f"{c.title}: worst {said(found.worst(c.name))} in {found.worst_environment(c.name)}, "
        f"mean {said(found.mean(c.name))}"
        for c in in_order(found)
    )
    cells = "; ".join(
        f"{c.title}: "
        + ", ".join(f"{said(found.cell(e, c.name))} in {e}" for e in found.environments)
        for c in in_order(found)
    )
    if found.values.size > MANY:
        cells = f"{sums}. The table has every number"
    dots = f"Dot plot of the {found.metric.name} of every method in every left-out environment. "
    points = f"The {found.metric.name} of every method where it does worst against its mean. "
    return {
        "by_environment": dots + cells + ".",
        "worst_against_mean": points + sums + ".",
    }


def _interval(found: HeldOut, estimate: Estimate) -> str:
    return f"{found.metric.show(estimate.low)} to {found.metric.show(estimate.high)}"


class ShownFinding(NamedTuple):
    """A finding whose numbers are text; cells are (text, whether it is a number)."""

    name: str
    title: str
    means: str
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
        finding.name, finding.title, finding.means, finding.action, finding.level,
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


def _provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    """What the page shows beside the command."""
    shown = {key: value for key, value in provenance.items() if value and key != "command"}
    if "seconds" in shown:
        shown["took (h:m:s)"] = str(timedelta(seconds=round(float(shown.pop("seconds")))))
    return shown
