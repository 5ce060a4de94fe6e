"""The report's figures, drawn without pyplot: they touch no global state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.curves import agreement, training_curves
from invlearn.reports.drawing import (
    WIDTH,
    heading,
    meaning,
    method_label,
    method_style,
    numeric_axis,
    one_axes,
    plain,
    value_axis,
)
from invlearn.reports.similarity import draw_similarity
from invlearn.reports.statistic import selection_statistic
from invlearn.reports.tables import aggregate, shown_metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_by_environment",
    "agreement",
    "draw_all",
    "selection_statistic",
    "training_curves",
]


def accuracy_by_environment(
    results: pd.DataFrame, record: BenchmarkRecord, selection: str
) -> Figure:
    """Draw means over trials in every test environment, one line per method, bars one deviation."""
    rule = record.rule(selection)
    metric = shown_metric(results)
    names = record.dataset.everywhere
    axis = numeric_axis(names)
    where = axis[1] if axis else [float(i) for i in range(len(names))]
    gap = min(np.diff(sorted(set(where))), default=1.0)
    figure, ax = one_axes(height=5.2)
    training = set(record.dataset.training_environments)
    for i, x in enumerate(x for x, name in zip(where, names, strict=True) if name in training):
        label = "" if i else "trained on"
        ax.axvspan(x - 0.3 * gap, x + 0.3 * gap, color="#dddddd", zorder=0, label=label)
    target = where[names.index(record.dataset.target)]
    ax.axvspan(target - 0.3 * gap, target + 0.3 * gap, fill=False, hatch="///", label="target",
               edgecolor="#cccccc", linewidth=0, zorder=0)  # fmt: skip
    chance = record.dataset.chance(metric)
    if chance is not None:
        ax.axhline(100 * chance, color="#888888", linewidth=1, dashes=(1, 2), label="guessing")
    table = aggregate(results)
    table = table[(table["selection"] == selection) & (table["metric"] == metric.name)]
    table = table[table["split"] == "test"]
    methods = record.ordered
    scale = 100.0 if metric.percent else 1.0
    for i, method in enumerate(methods):
        mine = table[table["method"] == method.name].set_index("environment").reindex(names)
        shift = 0.3 * gap * (i - (len(methods) - 1) / 2) / max(len(methods), 1)
        spread = mine["std"].where(mine["count"] > 1)
        ax.errorbar([x + shift for x in where], scale * mine["mean"], yerr=scale * spread,
                    capsize=2.5, **method_style(i, method), label=method_label(method))  # fmt: skip
    if axis is None or len(names) <= 11:
        ax.set_xticks(where, [plain(n.partition("=")[2] if axis else n) for n in names])
    key = axis[0] if axis else ""
    ax.set_xlabel("test environment" + meaning(key))
    value_axis(ax, metric)
    first = f"{metric.name.capitalize()} in every test environment"
    title = heading(first, f"selection rule: {rule.heading}", width=WIDTH)
    ax.set_title(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def draw_all(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    record: BenchmarkRecord,
    statistics: pd.DataFrame | None = None,
    similarity: pd.DataFrame | None = None,
) -> dict[str, Figure]:
    """Draw every figure of the report by file name, those that there is something to draw of.

    Whether the environments agree is drawn where the headline rule has no statistic of its own.
    """
    chosen = record.main_rule(results).name
    drawn = {"by_environment": accuracy_by_environment(results, record, chosen)}
    if len(curves):
        drawn["training_curves"] = training_curves(curves, record, results)
    validation = curves[(curves["metric"] == "risk") & (curves["split"] == "validation")]
    if statistics is not None and (statistics["selection"] == chosen).any():
        drawn["selection_statistic"] = selection_statistic(statistics, record, results)
    elif validation["environment"].nunique() > 1:
        drawn["agreement"] = agreement(curves, record, results)
    return drawn | ({} if similarity is None else draw_similarity(similarity, record))
