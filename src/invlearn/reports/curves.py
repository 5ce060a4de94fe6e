"""Figures of what happened while training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from invlearn.reports.benchmark import BenchmarkRecord
from invlearn.reports.drawing import (
    COLORS,
    MARKERS,
    WIDTH,
    heading,
    method_label,
    method_style,
    one_axes,
    plain,
    shared_legend,
    small_axes,
)
from invlearn.reports.tables import shown_metric
from invlearn.results import MethodInfo

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curves(
    curves: pd.DataFrame, record: BenchmarkRecord, results: pd.DataFrame | None = None
) -> Figure:
    """Draw target (test) and training values against the step, one panel per method.

    Thin lines are trials, thick lines their mean; with `results` the steps the headline
    rule chose are marked on the target's curve.
    """
    metric = shown_metric(curves)
    rule = record.rule(record.headline)
    if results is not None:
        rule = record.main_rule(results)
    target = record.dataset.target
    training = list(record.dataset.training_environments)
    methods = record.ordered
    figure, panels = small_axes(methods)
    mine = curves[curves["metric"] == metric.name]
    if metric.percent:
        mine = mine.assign(value=100 * mine["value"])
    for ax, method in zip(panels, methods, strict=True):
        runs = mine[mine["method"] == method.name]
        test = _by_step(runs[runs["split"] == "test"], [target])
        train = _by_step(runs[runs["split"] == "train"], training)
        drawn = ((train, "--", COLORS[1], "training environments (mean)"),
                 (test, "-", COLORS[0], f"target {plain(target)} (test)"))  # fmt: skip
        for frame, line, color, label in drawn:
            ax.plot(frame.index, frame.to_numpy(), line, color=color, linewidth=0.6, alpha=0.4)
            ax.plot(frame.index, frame.mean(axis=1), line, color=color, linewidth=1.8, label=label)
        steps = _chosen(results, method, rule.name, target)
        found = [(s, test[t].get(s, math.nan)) for t, s in steps.items() if t in test.columns]
        ax.plot([s for s, _ in found], [v for _, v in found], "o", markerfacecolor="white",
                markeredgecolor="black", markersize=6, label="chosen step, per trial")  # fmt: skip
    used = (
        "ORACLE: these test curves were looked at for choosing"
        if rule.oracle
        else "the test curves were not used for choosing"
    )
    first = f"{metric.name.capitalize()} while training; {used}"
    title = heading(first, f"selection rule: {rule.heading}", width=figure.get_figwidth())
    figure.suptitle(title, fontsize=11)
    figure.supylabel(metric.heading, fontsize=10)
    shared_legend(figure, panels)
    return figure


def agreement(
    curves: pd.DataFrame, record: BenchmarkRecord, results: pd.DataFrame | None = None
) -> Figure:
    """Draw how far the training environments' validation risks lie apart at every step.

    Their standard deviation, averaged over trials, one line per method; with `results` the
    steps the headline rule chose are marked.
    """
    figure, ax = one_axes(height=4.6)
    training = list(record.dataset.training_environments)
    mine = curves[(curves["metric"] == "risk") & (curves["split"] == "validation")]
    target = record.dataset.target
    rule = None if results is None else record.main_rule(results)
    positive = True
    for i, method in enumerate(record.ordered):
        runs = mine[mine["method"] == method.name]
        spread = _by_step(runs, training, how="std").mean(axis=1)
        positive &= bool((spread.dropna() > 0).all())
        style = method_style(i, method) | {"marker": ""}
        ax.plot(spread.index, spread.to_numpy(), **style, label=method_label(method))
        chosen = [
            s
            for s in _chosen(results, method, rule.name if rule else "", target).values()
            if s in spread.index
        ]
        ax.plot(chosen, spread.reindex(chosen).to_numpy(), MARKERS[i % len(MARKERS)],
                color=style["color"], markeredgecolor="black", markersize=6)  # fmt: skip
    if positive and len(mine):
        ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("standard deviation of validation risks")
    lines = ["Do the training environments agree? Low is agreement (mean over trials)"]
    if rule:
        lines.append(f"marks: steps chosen by {rule.heading}")
    ax.set_title(heading(*lines, width=WIDTH), fontsize=11)
    ax.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _by_step(runs: pd.DataFrame, environments: list[str], how: str = "mean") -> pd.DataFrame:
    """Tabulate steps by trials: the mean or population deviation over environments."""
    cells = runs.groupby(["step", "problem", "environment"])["value"].mean()
    table = cells.unstack("environment").reindex(columns=environments)
    values = table.mean(axis=1, skipna=False)
    if how == "std":
        values = table.std(axis=1, ddof=0, skipna=False)
    return values.unstack("problem")


def _chosen(
    results: pd.DataFrame | None, method: MethodInfo, rule: str, target: str
) -> dict[Any, Any]:
    """Find the step of each trial that the rule chose."""
    if results is None:
        return {}
    mine = results[(results["method"] == method.name) & (results["selection"] == rule)]
    mine = mine[mine["environment"] == target].drop_duplicates("problem")
    return dict(zip(mine["problem"], mine["step"], strict=True))
