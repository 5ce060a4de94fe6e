"""The report as one HTML page that needs no other file, script or network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from invlearn.reports import tables
from invlearn.reports.answer import benchmark_answer
from invlearn.reports.benchmark import ORACLE_BADGE, BenchmarkRecord
from invlearn.reports.drawing import numeric_axis
from invlearn.reports.page import how_made, render_page
from invlearn.reports.statistic import describe
from invlearn.reports.tables import Table


def render(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    record: BenchmarkRecord,
    figures: Mapping[str, bytes],
    statistics: pd.DataFrame | None = None,
) -> str:
    """Render the page as text.

    Parameters
    ----------
    results, curves : DataFrame
        As `write_report`.
    record : BenchmarkRecord
        As `write_report`.
    figures : {name: PNG bytes}
        Those of `figures.draw_all`; what is missing is left out.
    statistics : DataFrame, optional
        As `write_report`: puts the figure 'selection_statistic', shown with it only, in words.

    Returns
    -------
    str
        A complete HTML document, figures and styles inside.

    Raises
    ------
    UnknownNameError
        The results hold no selection of the headline's name.
    """
    if statistics is None:
        figures = {name: figures[name] for name in figures if name != "selection_statistic"}
    dataset = record.dataset
    shown = [tables.table(results, record, rule) for rule in record.shown_rules(results)]
    evaluated = len(curves[["method", "problem", "step"]].drop_duplicates())
    return render_page(
        "benchmark.html.j2",
        figures,
        record=record,
        dataset=dataset,
        again=how_made(record) | ({"evaluated steps": f"{evaluated:,}"} if evaluated else {}),
        answer=benchmark_answer(shown[0], record),
        main=_section(shown[0], record),
        honest=[_section(table, record) for table in shown[1:] if not table.rule.oracle],
        oracles=[_section(table, record) for table in shown[1:] if table.rule.oracle],
        everywhere=_everywhere(results, record, shown[0]),
        methods=record.ordered,
        statistic=describe(statistics, record, results)
        if statistics is not None and "selection_statistic" in figures
        else None,
        metric=shown[0].metric,
        chance=dataset.chance(shown[0].metric),
        numeric_key=(numeric_axis(dataset.everywhere) or ("", []))[0],
        warnings=_grouped(record),
        oracle_badge=ORACLE_BADGE,
        reference_badge=tables.REFERENCE_BADGE,
    )


def _section(table: Table, record: BenchmarkRecord) -> dict[str, Any]:
    return {
        "rule": table.rule,
        "columns": [(name, record.dataset.kind(name)) for name in table.environments],
        "rows": [(row.method, table.cells(row)) for row in table.rows],
        "notes": tables.footnotes(table.rule, record),
    }


def _everywhere(
    results: pd.DataFrame, record: BenchmarkRecord, main: Table
) -> dict[str, Any] | None:
    """Tabulate the figure's numbers, where the main table leaves some out."""
    names = record.dataset.everywhere
    if len(names) == len(main.environments):
        return None
    cells = tables.wide(results, selection=main.rule.name, split="test", metric=main.metric.name)
    methods = record.ordered
    cells = cells.reindex(index=[method.name for method in methods], columns=names)
    return {
        "columns": names,
        "rows": [
            (method, [cell if isinstance(cell, str) else tables.MISSING for cell in row])
            for method, row in zip(methods, cells.to_numpy().tolist(), strict=True)
        ],
    }


def _grouped(record: BenchmarkRecord) -> list[tuple[str, str, list[str]]]:
    """List warnings as (method's title, message, trials), one entry per distinct message."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in record.warnings:
        key = record.method(one.method).title, one.message
        found.setdefault(key, []).append(str(one.problem))
    return [(name, message, trials) for (name, message), trials in found.items()]
