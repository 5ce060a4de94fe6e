"""Means over trials, as frames, as table rows and on the console."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from invlearn.metrics import METRICS, Metric
from invlearn.reports.benchmark import BenchmarkRecord, Rule
from invlearn.reports.notes import notes, numbered, unsatisfied
from invlearn.results import MethodInfo

MISSING = "–"
REFERENCE_BADGE = "reference, not a competitor"
KEYS = ["method", "selection", "environment", "split", "metric"]


@dataclass(frozen=True)
class Stat:
    """Mean and population standard deviation over `count` trials."""

    mean: float
    std: float
    count: int


@dataclass(frozen=True)
class Row:
    """One method: its training environments' mean, then each shown test environment."""

    method: MethodInfo
    train: Stat
    test: tuple[Stat, ...]
    target: Stat


@dataclass(frozen=True)
class Table:
    """One selection rule's table."""

    rule: Rule
    metric: Metric
    environments: tuple[str, ...]
    rows: tuple[Row, ...]
    trials: int

    def cells(self, row: Row) -> list[str]:
        """Write the row's numbers as text, the number of finished trials last."""
        numbers = [text(stat, self.metric) for stat in (row.train, *row.test)]
        count = min(stat.count for stat in (row.train, row.target))
        whole = count == self.trials
        return [*numbers, str(count) if whole else f"{count} of {self.trials}"]

    def frame(self) -> pd.DataFrame:
        """All of it as text; the rule that chose the steps names the columns."""
        return pd.DataFrame(
            [self.cells(row) for row in self.rows],
            index=pd.Index([row.method.title for row in self.rows], name=self.metric.name),
            columns=pd.Index(["training", *self.environments, "trials"], name=self.rule.title),
        )


def aggregate(results: pd.DataFrame) -> pd.DataFrame:
    """Compute mean, population standard deviation and count over trials.

    Values that are not finite (diverged runs) are left out and not counted.

    Parameters
    ----------
    results : DataFrame
        One row per (method, problem, environment, split, metric, selection).

    Returns
    -------
    DataFrame
        One row per (method, selection, environment, split, metric) with the
        columns mean, std and count; mean and std are NaN where count is 0.
    """
    finite = results.assign(value=results["value"].where(np.isfinite(results["value"])))
    groups = finite.groupby(KEYS, sort=False)["value"]
    table = pd.DataFrame(
        {"mean": groups.mean(), "std": groups.std(ddof=0), "count": groups.count()}
    )
    return table.reset_index()


def wide(results: pd.DataFrame, *, selection: str, split: str, metric: str) -> pd.DataFrame:
    """Write methods by environments as text: '66.9 ± 2.5', accuracy in percent.

    Returns
    -------
    DataFrame
        Index: methods; columns: environments, both in order of appearance.
    """
    table = aggregate(results)
    chosen = table[
        (table["selection"] == selection) & (table["split"] == split) & (table["metric"] == metric)
    ]
    wanted = ("method", "environment", "mean", "std", "count")
    columns = [chosen[name].tolist() for name in wanted]
    cells = {
        (method, environment): text(Stat(mean, std, count), METRICS[metric])
        for method, environment, mean, std, count in zip(*columns, strict=True)
    }
    methods = list(dict.fromkeys(chosen["method"]))
    environments = list(dict.fromkeys(chosen["environment"]))
    body = [[cells.get((m, e), MISSING) for e in environments] for m in methods]
    return pd.DataFrame(
        body,
        index=pd.Index(methods, name="method"),
        columns=pd.Index(environments, name="environment"),
    )


def shown_metric(results: pd.DataFrame) -> Metric:
    """Choose the accuracy where there is any, else the risk (regression)."""
    accuracy = results.loc[results["metric"] == "accuracy", "value"]
    return METRICS["accuracy" if accuracy.notna().any() else "risk"]


def text(stat: Stat, metric: Metric) -> str:
    """Write a mean with its spread; one trial has no spread, so it says 'n=1'.

    Examples
    --------
    >>> accuracy = METRICS["accuracy"]
    >>> text(Stat(0.669, 0.025, 3), accuracy), text(Stat(0.669, 0.0, 1), accuracy)
    ('66.9 ± 2.5', '66.9 (n=1)')
    """
    if stat.count == 0 or math.isnan(stat.mean):
        return MISSING
    mean = f"{100 * stat.mean:.1f}" if metric.percent else _digits(stat.mean)
    if stat.count == 1:
        return f"{mean} (n=1)"
    return f"{mean} ± {100 * stat.std:.1f}" if metric.percent else f"{mean} ± {stat.std:.2g}"


def table(results: pd.DataFrame, record: BenchmarkRecord, rule: Rule) -> Table:
    """Make one rule's table: every method of the record, references last."""
    metric = shown_metric(results)
    mine = results[(results["selection"] == rule.name) & (results["metric"] == metric.name)]
    dataset = record.dataset
    training, shown = list(dataset.training_environments), dataset.shown
    rows = []
    for method in record.ordered:
        runs = mine[mine["method"] == method.name]
        test = {name: _stat(runs[runs["split"] == "test"], [name]) for name in shown}
        train = _stat(runs[runs["split"] == "train"], training)
        rows.append(Row(method, train, tuple(test.values()), test[dataset.target]))
    return Table(rule, metric, tuple(shown), tuple(rows), record.trials)


def footnotes(rule: Rule, record: BenchmarkRecord) -> list[str]:
    """Note what a reader of this rule's table must know.

    Runs that fell back to the last step, and what the rule said about runs.
    """
    lines = []
    if fallen := unsatisfied(rule, record):
        runs = sum(len(trials) for trials in fallen.values())
        names = "; ".join(
            f"{record.method(name).title}: {numbered(trials)}" for name, trials in fallen.items()
        )
        lines.append(
            f"In {runs} {'run' if runs == 1 else 'runs'} no step satisfied the rule and the "
            f"last step was taken ({names})."
        )
    said = [f"{one.title}, {numbered(one.trials)}: {one.text}." for one in notes(rule, record)]
    return lines + said


def console(
    results: pd.DataFrame, record: BenchmarkRecord, console: Console, *, all_rules: bool = False
) -> None:
    """Print the table of the headline rule; or one per rule, each with what it said of runs.

    What the headline rule said is in the answer.
    """
    for rule in record.shown_rules(results) if all_rules else [record.main_rule(results)]:
        one = table(results, record, rule)
        shown = RichTable(
            box=box.SIMPLE_HEAD,
            title=Text(f"{rule.heading}\n{one.metric.heading}", style="bold"),
            title_justify="left",
        )
        shown.add_column("method", min_width=10)
        shown.add_column("train", justify="right", no_wrap=True)
        for name in one.environments:
            words = f"test {name}\n{record.dataset.kind(name)}"
            shown.add_column(Text(words), justify="right", no_wrap=True)
        shown.add_column("n", justify="right", no_wrap=True)
        for i, row in enumerate(one.rows):
            reference = row.method.kind == "reference"
            if reference and i and one.rows[i - 1].method.kind != "reference":
                shown.add_section()
            shown.add_row(Text(row.method.title + "*" * reference), *one.cells(row))
        console.print(shown)
        if any(row.method.kind == "reference" for row in one.rows):
            console.print(Text(f"  * {REFERENCE_BADGE}", style="dim"))
        for note in footnotes(rule, record) if all_rules else ():
            console.print(Text(f"  {note}", style="dim"))
    if count := len(record.warnings):
        word = "warning was" if count == 1 else "warnings were"
        console.print(Text(f"{count} {word} raised while training; the report lists them."))
    # What differs from run to run is numbers: the first sentence is enough here.
    said = ((one.method, one.message.split(":")[0].split(". ")[0]) for one in record.warnings)
    for (name, text), runs in Counter(said).items():
        text = f"  {record.method(name).title}, {runs} of {record.trials}: {text.rstrip('.')}."
        console.print(Text(text, style="dim"))


def _digits(value: float) -> str:
    """Write three significant digits, the trailing zeros kept so that columns line up."""
    plain = 1e-3 <= abs(value) < 1000
    return f"{value:#.3g}".rstrip(".") if plain else f"{value:.3g}"


def _stat(runs: pd.DataFrame, environments: list[str]) -> Stat:
    """Average over environments, then trials; a trial that lacks one of them is left out."""
    per_trial = runs.groupby(["problem", "environment"])["value"].mean().unstack("environment")
    values = per_trial.reindex(columns=environments).to_numpy(dtype=float).mean(axis=1)
    values = values[np.isfinite(values)]
    if not len(values):
        return Stat(math.nan, math.nan, 0)
    return Stat(float(values.mean()), float(values.std()), len(values))
