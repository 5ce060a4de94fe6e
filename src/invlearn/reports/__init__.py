"""Reports: what an experiment found, on the console, as figures and as one HTML page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from invlearn.ground.files import write_whole
from invlearn.reports import drawing, figures, html, layout
from invlearn.reports.layout import Summary
from invlearn.reports.tables import aggregate, console, wide

__all__ = ["aggregate", "console", "wide", "write_report"]


def write_report(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    summary: Summary,
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
    summary : mapping
        What was run: dataset, methods, selections, recipe, headline, trials, seed,
        provenance, warnings, unsatisfied; may hold notes: what rules said about runs.
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
        A column or key is missing, or a cell of the results has two values.
    UnknownNameError
        The results hold no selection of the headline's name.
    """
    layout.check(results, curves, summary, statistics)
    every = figures.draw_all(results, curves, summary, statistics, similarity)
    drawn = {name: drawing.png(figure) for name, figure in every.items()}
    page = html.render(results, curves, summary, drawn, statistics)
    figures.save_all(drawn, Path(folder) / "figures")
    path = Path(folder) / "report.html"
    write_whole(path, page.encode("utf-8"))
    return path
