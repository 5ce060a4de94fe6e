"""The report of a comparison on a user's own rows: one HTML page, the answer first."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from invlearn.diagnostics.findings import Finding
from invlearn.diagnostics.held_out import Contender, HeldOut
from invlearn.errors import EnvironmentsError, OutputError, unknown_name
from invlearn.ground.files import write_whole
from invlearn.reports import drawing, figures
from invlearn.reports.own_rows_figures import (
    FAILED,
    by_environment,
    descriptions,
    has_number,
    in_order,
    interval,
    short_names,
    worst_against_mean,
)
from invlearn.reports.verdict import Verdict
from invlearn.results import Estimate

TASKS = ("classification", "regression")
SHORTCUTS = ("feature-effects",)
"""Findings about columns whose effect changes: a warning of theirs names the likely shortcut."""

BADGES = {"warning": "warning", "note": "note", "good": "looks good"}
"""What each level is called, the most pressing first."""


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
        Every method in every environment that was measured in.
    environments : {environment: rows}
        All that took part, measured in or only trained on.
    folds : tuple of tuples of str
        The environments left out together in each round; the methods were trained on all others.
    verdict : Verdict
    findings : tuple of Finding
        Of the rows of all environments; may be empty.
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
    environments: Mapping[str, int]
    folds: tuple[tuple[str, ...], ...]
    verdict: Verdict
    findings: tuple[Finding, ...]
    columns: Mapping[str, str]
    notes: tuple[str, ...]
    settings: Mapping[str, Mapping[str, str]]
    next_command: str
    provenance: Mapping[str, str]


def write_own_rows(content: OwnRows, folder: Path) -> Path:
    """Write ``folder/report.html`` and ``folder/figures/*.png``, each file atomically.

    Where one environment was measured in, the figure of the worst against the mean is left out.

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
        A method or an environment that took no part, or another task.
    EnvironmentsError
        An environment measured in is in no fold, or a fold leaves none to train on.
    OutputError
        A folder that cannot be written.
    """
    _check(content)
    drawn = {"by_environment": drawing.png(by_environment(content.found))}
    if len(content.found.environments) > 1:
        drawn["worst_against_mean"] = drawing.png(worst_against_mean(content.found))
    page = render(content, drawn)
    path = Path(folder) / "report.html"
    try:
        figures.save_all(drawn, path.parent / "figures")
        if "worst_against_mean" not in drawn:
            (path.parent / "figures" / "worst_against_mean.png").unlink(missing_ok=True)
        write_whole(path, page.encode("utf-8", errors="replace"))
    except OSError as error:
        raise OutputError(
            f"Expected a folder to write the report in, '{folder}' cannot be written: "
            f"{error.strerror}. Name another folder, or free this one."
        ) from error
    return path


def _check(content: OwnRows) -> None:
    known = [method.name for method in content.found.contenders]
    for name in (content.verdict.recommended, *content.settings):
        if name not in known:
            raise unknown_name("method", name, known)
    if content.task not in TASKS:
        raise unknown_name("task", content.task, TASKS)
    left_out = [name for fold in content.folds for name in fold]
    for name in (*content.found.environments, *left_out):
        if name not in content.environments:
            raise unknown_name("environment", name, content.environments)
    never = [name for name in content.found.environments if name not in left_out]
    if never or any(set(fold) == set(content.environments) for fold in content.folds):
        raise EnvironmentsError(
            "Expected folds in which every environment that was measured in is left out and at "
            f"least one is trained on, got {list(map(list, content.folds))} of "
            f"{', '.join(content.environments)}. Give the folds that were trained."
        )


def render(content: OwnRows, drawn: Mapping[str, bytes]) -> str:
    """Render the page as text.

    Parameters
    ----------
    content : OwnRows
    drawn : {'by_environment' and, of several environments, 'worst_against_mean': PNG bytes}

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
        alts=descriptions(found),
        others=sorted({len(content.environments) - len(fold) for fold in content.folds}),
        methods=in_order(found),
        figures={name: _data_uri(picture) for name, picture in drawn.items()},
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
    """List the main table's rows, the usual methods above the invariant ones.

    The worst and the mean come first, unless there is one environment, which is both.
    """
    several = len(found.environments) > 1
    estimates = {
        c.name: [found.worst(c.name), found.mean(c.name)] * several
        + [found.cell(e, c.name) for e in found.environments]
        for c in found.contenders
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
        return Cell(value, interval(found, estimate), value == top, where)

    def cells(method: Contender) -> list[Cell]:
        wheres = [f"in {found.worst_environment(method.name)}", ""] * several
        wheres += [""] * len(found.environments)
        return [cell(*each) for each in zip(estimates[method.name], best, wheres, strict=True)]

    return [
        (f"{kind.capitalize()} methods", [(method, cells(method)) for method in members])
        for kind, members in groupby(in_order(found), key=lambda method: method.kind)
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


def _provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    """What the page shows beside the command."""
    shown = {key: value for key, value in provenance.items() if value and key != "command"}
    if "seconds" in shown:
        shown["took (h:m:s)"] = str(timedelta(seconds=round(float(shown.pop("seconds")))))
    return shown
