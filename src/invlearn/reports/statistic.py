"""The figure of what the headline rule read at every step."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from invlearn.errors import OptionError
from invlearn.reports import notes
from invlearn.reports.benchmark import BenchmarkRecord, Rule
from invlearn.reports.drawing import COLORS, heading, plain, shared_legend, small_axes
from invlearn.results import MethodInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOSEN = "chosen step, per trial"
UNSATISFIED = "no step satisfied the rule: last step"


@dataclass(frozen=True)
class Words:
    """The figure in words.

    statistic: what is drawn; sentences: which steps are marked, by method; crosses: whether
    the statistic has both signs; bounded: whether there is a band to stay in.
    """

    statistic: str
    sentences: tuple[str, ...]
    crosses: bool
    bounded: bool


def selection_statistic(
    statistics: pd.DataFrame, record: BenchmarkRecord, results: pd.DataFrame | None = None
) -> Figure:
    """Draw the headline rule's statistic against the step, one panel per method.

    Thin lines are trials; the band, between the bounds' means over trials, is where the
    statistic is small enough for the rule; marks are the chosen steps. The vertical axis is
    linear inside the band and logarithmic outside. Runs of which the rule noted something are
    left out, with the note instead: another rule chose there, by a statistic of its own.

    Parameters
    ----------
    statistics : DataFrame
        Columns method, problem, selection, step, value, bound (NaN: none), chosen.
    record : BenchmarkRecord
    results : DataFrame, optional
        Says whether the headline rule's name has the suffix of oracle hyperparameters;
        default: as in `statistics`.

    Raises
    ------
    OptionError
        Nothing of the headline rule.
    UnknownNameError
        No selection of the headline's name.
    """
    rule = record.main_rule(statistics if results is None else results)
    mine = _rows(statistics, rule)
    said = notes.notes(rule, record)
    drawn = _own(mine, said)
    fallen = notes.unsatisfied(rule, record)
    methods = _methods(mine, record)
    figure, panels = small_axes(methods)
    for ax, method in zip(panels, methods, strict=True):
        shown = drawn[drawn["method"] == method.name]
        ax.axhline(0, color="#888888", linewidth=0.8)
        if len(shown):
            _draw(ax, shown, fallen.get(method.name, ()), _crosses(drawn))
        lines = [_left_out(note) for note in said if note.method == method.name]
        if lines:
            words = "\n".join(textwrap.fill(plain(line), 28) for line in lines)
            where = (0.05, 0.05, "bottom") if len(shown) else (0.2, 0.5, "center")
            ax.text(*where[:2], words, transform=ax.transAxes, fontsize=8.5, va=where[2],
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    _scale(panels[0], drawn)
    who = (
        "ORACLE: the test environment was looked at for choosing"
        if rule.oracle
        else "only training environments were read"
    )
    title = heading(
        f"What the rule sees while training; {who}",
        f"selection rule: {rule.heading}",
        width=figure.get_figwidth(),
    )
    figure.suptitle(title, fontsize=11)
    label = textwrap.fill(plain(_name(rule)), int(10 * figure.get_figheight()))
    label += "\n(logarithmic outside the band)" if panels[0].get_yscale() == "symlog" else ""
    figure.supylabel(label, fontsize=10)
    shared_legend(figure, panels)
    return figure


def describe(
    statistics: pd.DataFrame, record: BenchmarkRecord, results: pd.DataFrame | None = None
) -> Words:
    """Say in words what `selection_statistic` draws of the same arguments."""
    rule = record.main_rule(statistics if results is None else results)
    mine = _rows(statistics, rule)
    said = notes.notes(rule, record)
    drawn = _own(mine, said)
    fallen = notes.unsatisfied(rule, record)
    sentences = []
    for method in _methods(mine, record):
        marks = drawn[drawn["chosen"] & (drawn["method"] == method.name)]
        parts = []
        if len(marks):
            first, last = int(marks["step"].min()), int(marks["step"].max())
            parts.append(f"step {first}" if first == last else f"steps {first} to {last}")
            if lost := int(marks["problem"].isin(fallen.get(method.name, ())).sum()):
                parts.append(f"no step satisfied the rule in {lost} of {len(marks)} trials")
        parts += [_left_out(note) for note in said if note.method == method.name]
        sentences.append(f"{method.title}: {'; '.join(parts) or 'no step'}.")
    return Words(_name(rule), tuple(sentences), _crosses(drawn), bool(drawn["bound"].notna().any()))


def _name(rule: Rule) -> str:
    return rule.statistic or "the rule's statistic"


def _left_out(note: notes.Gathered) -> str:
    return f"not drawn, {notes.numbered(note.trials)}: {note.note.gist}"


def _methods(mine: pd.DataFrame, record: BenchmarkRecord) -> list[MethodInfo]:
    present = set(mine["method"])
    return [method for method in record.ordered if method.name in present]


def _own(mine: pd.DataFrame, said: Sequence[notes.Gathered]) -> pd.DataFrame:
    """Take the runs that the rule chose in by its own statistic."""
    other = {(note.method, trial) for note in said for trial in note.trials}
    runs = zip(mine["method"], mine["problem"], strict=True)
    return mine[[run not in other for run in runs]]


def _crosses(drawn: pd.DataFrame) -> bool:
    return bool((drawn["value"] < 0).any())


def _rows(statistics: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """Take one rule's rows, numbers as numbers; what is not finite is missing."""
    mine = statistics[statistics["selection"] == rule.name].reset_index(drop=True)
    if mine.empty:
        raise OptionError(
            f"Expected the statistic of the rule '{rule.name}' along the steps, found none. "
            "Leave this figure out."
        )
    numbers = {name: pd.to_numeric(mine[name]) for name in ("step", "value", "bound")}
    numbers = {name: column.where(np.isfinite(column)) for name, column in numbers.items()}
    return mine.assign(**numbers, chosen=mine["chosen"].astype(bool))


def _draw(ax: Axes, runs: pd.DataFrame, fallen: tuple[int, ...], two_sided: bool) -> None:
    """Draw one method's lines, band and marks."""
    bound = runs.groupby("step")["bound"].mean().dropna()
    if len(bound):
        low = -bound if two_sided else 0 * bound
        ax.fill_between(bound.index, low, bound, color="#bbbbbb", alpha=0.6, linewidth=0,
                        label="small enough for the rule")  # fmt: skip
    lines = runs.pivot(index="step", columns="problem", values="value")
    ax.plot(lines.index, lines.to_numpy(), color=COLORS[0], linewidth=0.8, alpha=0.6)
    ax.plot([], [], color=COLORS[0], linewidth=0.8, label="one trial")
    marks = runs[runs["chosen"]]
    lost = marks["problem"].isin(fallen)
    ax.plot(marks["step"][~lost], marks["value"][~lost], "o", color=COLORS[1],
            markeredgecolor="black", markersize=6, label=CHOSEN, zorder=3)  # fmt: skip
    if lost.any():
        ax.plot(marks["step"][lost], marks["value"][lost], "X", color="white",
                markeredgecolor="black", markersize=7, label=UNSATISFIED, zorder=3)  # fmt: skip


def _scale(ax: Axes, drawn: pd.DataFrame) -> None:
    """Set the shared vertical axis so that the band and what is far from it can both be read."""
    values = drawn["value"].dropna()
    if values.empty:
        return
    # Single steps far away would squash the rest.
    marks = drawn.loc[drawn["chosen"], "value"]
    band = float(drawn["bound"].quantile(0.9))
    if not band > 0:
        low, high = min(values.min(), marks.min()), max(values.quantile(0.9), marks.max())
        pad = 0.06 * (high - low) or 0.05
        ax.set_ylim(low - pad, high + pad)
        return
    low = min(values.quantile(0.005), marks.min(), 0)
    high = max(values.quantile(0.995), marks.max(), 0)
    low = min(low, -2 * band) if low < 0 else -0.15 * band
    high = max(high, 2 * band)
    decades = 10.0 ** np.arange(np.ceil(np.log10(1.3 * band)), np.log10(max(high, -low)) + 1)
    ax.set_yscale("symlog", linthresh=band, linscale=0.6)
    ticks = np.array([*-decades[::-1], 0, *decades])
    ax.set_yticks(ticks[(ticks > 1.5 * low) & (ticks < 1.5 * high)])
    ax.set_yticks([], minor=True)
    ax.set_ylim(1.5 * low, 1.5 * high)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
