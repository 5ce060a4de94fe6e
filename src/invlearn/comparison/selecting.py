"""Every selection rule applied to one run."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from invlearn.comparison.recipes import Recipe
from invlearn.metrics import METRICS
from invlearn.outputs import Outputs
from invlearn.results import ORACLE_SUFFIX, RESULT_COLUMNS, STATISTIC_COLUMNS
from invlearn.selection import Note, applicable, select


@dataclass(frozen=True)
class Selected:
    """What the rules chose in one run.

    results: measurements at each rule's step; statistics: each rule's statistic along the
    steps; unsatisfied: selections that no step satisfied; notes: by selection.
    """

    method: str
    problem: int
    rules: tuple[str, ...]
    results: pd.DataFrame
    statistics: pd.DataFrame
    unsatisfied: tuple[str, ...] = ()
    notes: dict[str, Note] = field(default_factory=dict)


def select_all(
    curves: pd.DataFrame,
    outputs: Outputs | None,
    recipe: Recipe,
    target: str,
    *,
    stepless: bool = False,
) -> Selected:
    """Apply every rule that can read the run; what has no steps is what each of them chooses."""
    method, problem = str(curves["method"].iloc[0]), int(curves["problem"].iloc[0])
    parts, statistics = [], []
    unsatisfied: list[str] = []
    notes: dict[str, Note] = {}
    rules = applicable(curves, outputs=stepless or outputs is not None)
    for rule in rules:
        label = rule.name + (ORACLE_SUFFIX if recipe.oracle else "")
        if stepless:
            parts.append(curves.assign(selection=label))
            continue
        chosen, choice = select(curves, rule, target, label, outputs)
        parts.append(chosen)
        if not choice.satisfied:
            unsatisfied.append(label)
        if choice.note:
            notes[label] = choice.note
        if rule.statistic and choice.statistic is not None:
            table = pd.DataFrame({"value": choice.statistic, "bound": choice.bound})
            table["chosen"] = table.index == choice.step
            table.index.name = "step"
            statistics.append(
                table.reset_index().assign(method=method, problem=problem, selection=label)
            )
    results = pd.concat(parts, ignore_index=True)
    shown = results["metric"].isin(list(METRICS))
    return Selected(
        method,
        problem,
        tuple(rule.name for rule in rules),
        results[shown].reindex(columns=list(RESULT_COLUMNS)).reset_index(drop=True),
        pd.concat(statistics)[list(STATISTIC_COLUMNS)]
        if statistics
        else pd.DataFrame(columns=list(STATISTIC_COLUMNS)),
        tuple(unsatisfied),
        notes,
    )
