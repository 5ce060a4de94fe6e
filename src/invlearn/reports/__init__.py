"""Reports: what an experiment found, on the console, as figures and as one HTML page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from invlearn.reports import drawing, figures, html
from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.page import write_page
from invlearn.reports.tables import aggregate, console, wide
from invlearn.results import CURVE_COLUMNS, STATISTIC_COLUMNS, check_cells, check_columns

__all__ = ["aggregate", "console", "wide", "write_report"]


def write_report(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    record: BenchmarkRecord,
    folder: str | Path,
    statistics: pd.DataFrame | None = None,
    similarity: pd.DataFrame | None = None,
) -> Path:
    """Write ``folder/figures/*.png`` and ``folder/report.html``, each file atomically.

    Parameters
    ----------
    results : DataFrame
        One row per (method, problem, environment, split, metric, selection) with columns
        of those names, `value` and `step`: the metric at the step the rule chose.
        Accuracies are fractions.
    curves : DataFrame
        The same without `selection`: every evaluated step.
    record : BenchmarkRecord
        What was run.
    folder : path
        Made if missing; older reports in it are replaced.
    statistics : DataFrame, optional
        What rules read at every evaluated step: columns method, problem, selection, step,
        value, bound (the value's size has to stay below it; NaN where there is none), chosen.
    similarity : DataFrame, optional
        How alike representations are: columns method, problem, kind, layer, environment,
        value, as `invlearn.reports.similarity` describes.

    Returns
    -------
    Path
        The HTML page, which needs no other file.

    Raises
    ------
    OptionError
        A column is missing, or a cell of the results has two values.
    UnknownNameError
        The results hold no selection of the headline's name.
    """
    check_cells(results)
    check_columns("curves", curves, CURVE_COLUMNS)
    if statistics is not None:
        check_columns("statistics", statistics, STATISTIC_COLUMNS)
    every = figures.draw_all(results, curves, record, statistics, similarity)
    drawn = {name: drawing.png(figure) for name, figure in every.items()}
    return write_page(html.render(results, curves, record, drawn, statistics), drawn, Path(folder))
