"""The report as one HTML page that needs no other file, script or network."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from invlearn.reports import layout, tables
from invlearn.reports.answer import answer
from invlearn.reports.drawing import png
from invlearn.reports.layout import Summary
from invlearn.reports.statistic import describe
from invlearn.reports.tables import Table


def render(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    summary: Summary,
    figures: Mapping[str, Figure | bytes],
    statistics: pd.DataFrame | None = None,
) -> str:
    """Render the page as text.

    Parameters
    ----------
    results, curves : DataFrame
        As `write_report`.
    summary : mapping
        As `write_report`.
    figures : mapping of str to Figure or PNG bytes
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
    environment = Environment(
        loader=PackageLoader("invlearn.reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if statistics is None:
        figures = {name: figures[name] for name in figures if name != "selection_statistic"}
    shown = [tables.table(results, summary, rule) for rule in layout.rules(results, summary)]
    page = environment.get_template("report.html.j2")
    return page.render(
        summary=summary,
        dataset=summary["dataset"],
        provenance=summary["provenance"],
        answer=answer(shown[0], summary),
        main=_section(shown[0], summary),
        honest=[_section(table, summary) for table in shown[1:] if not table.rule.oracle],
        oracles=[_section(table, summary) for table in shown[1:] if table.rule.oracle],
        everywhere=_everywhere(results, summary, shown[0]),
        methods=layout.methods(results, summary),
        figures={name: _data_uri(figure) for name, figure in figures.items()},
        statistic=describe(statistics, summary, results)
        if statistics is not None and "selection_statistic" in figures
        else None,
        evaluations=len(curves[["method", "problem", "step"]].drop_duplicates()),
        accuracy=shown[0].metric == "accuracy",
        chance=layout.chance(summary),
        numeric_key=(layout.numeric_axis(layout.all_environments(summary)) or ("", []))[0],
        duration=_duration(float(summary["provenance"]["seconds"])),
        warnings=_grouped(summary),
        oracle_badge=layout.ORACLE_BADGE,
        reference_badge=layout.REFERENCE_BADGE,
    )


def _section(table: Table, summary: Summary) -> dict[str, Any]:
    dataset = summary["dataset"]
    trained = set(dataset["training_environments"])
    kinds = [
        "trained on" if name in trained else "target" if name == dataset["target"] else "new"
        for name in table.environments
    ]
    return {
        "rule": table.rule,
        "columns": list(zip(table.environments, kinds, strict=True)),
        "rows": [(row.method, table.cells(row)) for row in table.rows],
        "notes": tables.footnotes(table.rule, summary),
    }


def _everywhere(results: pd.DataFrame, summary: Summary, main: Table) -> dict[str, Any] | None:
    """Tabulate the figure's numbers, where the main table leaves some out."""
    names = layout.all_environments(summary)
    if len(names) == len(main.environments):
        return None
    cells = tables.wide(results, selection=main.rule.name, split="test", metric=main.metric)
    methods = layout.methods(results, summary)
    cells = cells.reindex(index=[method.name for method in methods], columns=names)
    return {
        "columns": names,
        "rows": [
            (method, [cell if isinstance(cell, str) else tables.MISSING for cell in row])
            for method, row in zip(methods, cells.to_numpy().tolist(), strict=True)
        ],
    }


def _grouped(summary: Summary) -> list[tuple[str, str, list[str]]]:
    """List warnings as (method's title, message, trials), one entry per distinct message."""
    titles = {entry["name"]: entry["title"] for entry in summary["methods"]}
    found: dict[tuple[str, str], list[str]] = {}
    for entry in summary["warnings"]:
        name = titles.get(entry["method"], entry["method"])
        found.setdefault((str(name), str(entry["message"])), []).append(str(entry["problem"]))
    return [(name, message, trials) for (name, message), trials in found.items()]


def _data_uri(figure: Figure | bytes) -> str:
    content = figure if isinstance(figure, bytes) else png(figure)
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
