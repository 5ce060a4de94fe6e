"""Figures of how alike representations are (PWCCA)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from invlearn.errors import OptionError
from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.drawing import (
    LINES,
    WIDTH,
    heading,
    meaning,
    method_label,
    method_style,
    numeric_axis,
    one_axes,
    plain,
)
from invlearn.results import SIMILARITY_COLUMNS, MethodInfo, check_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def inner_step_similarity(table: pd.DataFrame, record: BenchmarkRecord) -> Figure:
    """Draw how alike each layer is before and after the inner step, one line per method.

    Means over trials and training environments, bars one population standard deviation.

    Parameters
    ----------
    table : DataFrame
        Columns method, problem, kind, layer, environment, value. Those of kind
        'inner-step' hold the PWCCA of a layer before and after adapting to a training
        environment, layers in forward order.
    record : BenchmarkRecord

    Raises
    ------
    OptionError
        A missing column, or nothing of this kind.

    References
    ----------
    Bae, Choi, Lee (2021), arXiv 2103.12947, appendix A.1.
    """
    mine = _of_kind(table, "inner-step")
    layers = list(dict.fromkeys(mine["layer"]))
    figure, ax = one_axes(height=4.6)
    methods = _present(mine, record)
    for k, (i, method) in enumerate(methods):
        stats = _stats(mine[mine["method"] == method.name], "layer", layers)
        shift = 0.4 * (k - (len(methods) - 1) / 2) / len(methods)
        ax.errorbar(np.arange(len(layers)) + shift, stats["mean"], yerr=stats["std"],
                    capsize=3, **method_style(i, method), label=method_label(method))  # fmt: skip
    ax.set_xticks(range(len(layers)), [plain(str(layer)) for layer in layers])
    ax.set_xlim(-0.5, len(layers) - 0.5)
    ax.set_xlabel("layer, from the input to the output")
    what = "Similarity of every layer before and after the inner step"
    over = "mean over trials and training environments"
    return _finish(figure, ax, record, what, over)


def representation_similarity(table: pd.DataFrame, record: BenchmarkRecord) -> Figure:
    """Draw how alike the representation in the first test environment and in others is.

    Means over trials, bars one population standard deviation; one line per method, named
    with its representation.

    Parameters
    ----------
    table : DataFrame
        Columns method, problem, kind, layer, environment, value. Those of kind
        'representation' hold the PWCCA between the representation `layer` in the first
        test environment and in `environment`.
    record : BenchmarkRecord

    Raises
    ------
    OptionError
        A missing column, or nothing of this kind.

    References
    ----------
    Bae, Choi, Lee (2021), arXiv 2103.12947, appendix A.2.
    """
    mine = _of_kind(table, "representation")
    found = set(mine["environment"])
    first, *_ = every = record.dataset.everywhere
    names = [name for name in every if name in found] + sorted(found - set(every))
    axis = numeric_axis(names)
    where = axis[1] if axis else [float(i) for i in range(len(names))]
    figure, ax = one_axes(height=4.6)
    for i, method in _present(mine, record):
        rows = mine[mine["method"] == method.name]
        for k, layer in enumerate(dict.fromkeys(rows["layer"])):
            stats = _stats(rows[rows["layer"] == layer], "environment", names)
            style = method_style(i, method) | {"linestyle": LINES[(i + k) % len(LINES)]}
            ax.errorbar(where, stats["mean"], yerr=stats["std"], capsize=2.5, **style,
                        label=f"{method_label(method)}: {plain(str(layer))}")  # fmt: skip
    if axis is None or len(names) <= 11:
        ax.set_xticks(where, [plain(n.partition("=")[2] if axis else n) for n in names])
    key = axis[0] if axis else ""
    ax.set_xlabel(f"test environment compared with {plain(first)}{meaning(key)}")
    what = f"Similarity of the representations in {first} and in other test environments"
    return _finish(figure, ax, record, what, "mean over trials")


def draw_similarity(table: pd.DataFrame, record: BenchmarkRecord) -> dict[str, Figure]:
    """Draw the figures of the kinds that were measured, by file name.

    Raises
    ------
    OptionError
        A missing column.
    """
    check_columns("similarities", table, SIMILARITY_COLUMNS)
    figures = {
        "inner-step": ("inner_step_similarity", inner_step_similarity),
        "representation": ("representation_similarity", representation_similarity),
    }
    kinds = set(table["kind"])
    return {name: draw(table, record) for kind, (name, draw) in figures.items() if kind in kinds}


def _finish(figure: Figure, ax: Axes, record: BenchmarkRecord, what: str, over: str) -> Figure:
    """Add what both figures share: whole range, title with the rule, legend."""
    rule = record.rule(record.headline)
    ax.set_ylim(0, 1.05)
    ax.set_ylabel("PWCCA similarity")
    ax.grid(axis="y", alpha=0.25)
    bars = f"{over}, bars one standard deviation"
    title = heading(what, bars, f"selection rule: {rule.heading}", width=WIDTH)
    ax.set_title(title, fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _of_kind(table: pd.DataFrame, kind: str) -> pd.DataFrame:
    check_columns("similarities", table, SIMILARITY_COLUMNS)
    mine = table[table["kind"] == kind]
    if mine.empty:
        kinds = ", ".join(sorted(set(table["kind"]))) or "none"
        raise OptionError(
            f"Expected similarities of the kind '{kind}', got {kinds}. "
            "Leave this figure out, or measure them first."
        )
    return mine


def _present(mine: pd.DataFrame, record: BenchmarkRecord) -> list[tuple[int, MethodInfo]]:
    """List the methods measured, each with its place among all: its style elsewhere too."""
    found = set(mine["method"])
    listed = enumerate(record.ordered)
    return [(i, method) for i, method in listed if method.name in found]


def _stats(rows: pd.DataFrame, by: str, order: list[Any]) -> pd.DataFrame:
    """Compute mean and population deviation by layer or environment; none of one value."""
    finite = rows["value"].where(np.isfinite(rows["value"]))
    groups = finite.groupby(rows[by])
    spread = groups.std(ddof=0).where(groups.count() > 1)
    return pd.DataFrame({"mean": groups.mean(), "std": spread}).reindex(order)
