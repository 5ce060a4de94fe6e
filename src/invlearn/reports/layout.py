"""What a report shows and in which order; the one place where an oracle gets its label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from invlearn.errors import OptionError, unknown_name
from invlearn.results import (
    CURVE_COLUMNS,
    ORACLE_SUFFIX,
    STATISTIC_COLUMNS,
    check_cells,
    check_columns,
)

Summary = Mapping[str, Any]

ORACLE_BADGE = "oracle: looked at the test environment"
REFERENCE_BADGE = "reference, not a competitor"

SUMMARY_KEYS = (
    "dataset", "methods", "selections", "recipe", "headline", "trials", "seed", "provenance",
    "warnings", "unsatisfied",
)  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A selection rule as it is shown.

    `oracle` covers its hyperparameters too; `statistic` says what it reads at every step.
    """

    name: str
    title: str
    explanation: str
    oracle: bool
    statistic: str = ""

    @property
    def heading(self) -> str:
        """Give the title, saying 'oracle' where the test environment was looked at."""
        return f"{self.title} [{ORACLE_BADGE}]" if self.oracle else self.title


@dataclass(frozen=True)
class Method:
    """A method as it is shown; a reference was given what a user lacks."""

    name: str
    title: str
    summary: str = ""
    source: str = ""
    reference: bool = False
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)


def check(
    results: pd.DataFrame,
    curves: pd.DataFrame,
    summary: Summary,
    statistics: pd.DataFrame | None = None,
) -> None:
    """Refuse inputs a report cannot be made of.

    Raises
    ------
    OptionError
        A missing column or key, or two values for one cell of the results.
    """
    check_cells(results)
    check_columns("curves", curves, CURVE_COLUMNS)
    if statistics is not None:
        check_columns("statistics", statistics, STATISTIC_COLUMNS)
    if absent := [key for key in SUMMARY_KEYS if key not in summary]:
        raise OptionError(
            f"Expected a summary with the keys {', '.join(SUMMARY_KEYS)}; "
            f"missing: {', '.join(absent)}. Add them, empty where there is nothing to say."
        )


def metric(results: pd.DataFrame) -> str:
    """Choose 'accuracy' where there is any, else 'risk' (regression)."""
    accuracy = results.loc[results["metric"] == "accuracy", "value"]
    return "accuracy" if accuracy.notna().any() else "risk"


def methods(frame: pd.DataFrame, summary: Summary) -> list[Method]:
    """List competitors in the summary's order, then what only the frame names, then references."""
    known = [
        Method(
            name=str(entry["name"]),
            title=str(entry["title"]),
            summary=str(entry.get("summary", "")),
            source=str(entry.get("source", "")),
            reference=bool(entry.get("reference", False)),
            hyperparameters=dict(entry.get("hyperparameters", {})),
        )
        for entry in summary["methods"]
    ]
    names = {method.name for method in known}
    known += [Method(name, name) for name in _unique(frame["method"]) if name not in names]
    return sorted(known, key=lambda method: method.reference)


def rule(name: str, summary: Summary) -> Rule:
    """Describe the rule of a name in the results, with or without the oracle suffix."""
    base = name.removesuffix(ORACLE_SUFFIX)
    entry: Mapping[str, Any] = next((e for e in summary["selections"] if e["name"] == base), {})
    title = str(entry.get("title", base))
    explanation = str(entry.get("explanation", ""))
    oracle = bool(entry.get("oracle", False))
    if base != name or summary["recipe"]["oracle"]:
        if base != name:
            title += ORACLE_SUFFIX
        explanation += (
            " The hyperparameters were chosen by looking at the test environment, "
            "which a user cannot do."
        )
        oracle = True
    return Rule(name, title, explanation.strip(), oracle, str(entry.get("statistic", "")))


def headline(frame: pd.DataFrame, summary: Summary) -> Rule:
    """Describe the rule of the main table.

    Raises
    ------
    UnknownNameError
        The frame holds no such selection, with or without the oracle suffix.
    """
    present = _unique(frame["selection"])
    for name in (summary["headline"], summary["headline"] + ORACLE_SUFFIX):
        if name in present:
            return rule(name, summary)
    raise unknown_name("headline selection", summary["headline"], present)


def rules(results: pd.DataFrame, summary: Summary) -> list[Rule]:
    """List every rule in the results: the headline, then the honest ones, then the oracles."""
    first = headline(results, summary)
    order = [str(entry["name"]) for entry in summary["selections"]]
    rest = [rule(name, summary) for name in _unique(results["selection"]) if name != first.name]

    def place(one: Rule) -> tuple[bool, int, str]:
        base = one.name.removesuffix(ORACLE_SUFFIX)
        return one.oracle, order.index(base) if base in order else len(order), one.name

    return [first, *sorted(rest, key=place)]


def all_environments(summary: Summary) -> list[str]:
    """List every test environment in order, the target among them."""
    dataset = summary["dataset"]
    names = [str(name) for name in dataset["test_environments"]]
    return names if dataset["target"] in names else [*names, str(dataset["target"])]


def shown_environments(summary: Summary) -> list[str]:
    """Choose the columns: up to four test environments, else the trained and the target."""
    names = all_environments(summary)
    if len(names) <= 4:
        return names
    dataset = summary["dataset"]
    kept = {*dataset["training_environments"], dataset["target"]}
    return [name for name in names if name in kept]


def numeric_axis(names: Sequence[str]) -> tuple[str, list[float]] | None:
    """Read the key and the numbers of names like 'p_e=0.1', or None where they are just names.

    Examples
    --------
    >>> numeric_axis(["p_e=0.1", "p_e=0.9"])
    ('p_e', [0.1, 0.9])
    """
    found = [re.fullmatch(r"(\w+)=(-?\d+(?:\.\d+)?)", name) for name in names]
    matches = [match for match in found if match]
    if len(matches) < len(names) or len({match[1] for match in matches}) != 1:
        return None
    return matches[0][1], [float(match[2]) for match in matches]


def chance(summary: Summary) -> float | None:
    """Give a guess's accuracy among equally likely classes, None where their number is unknown."""
    if summary["dataset"]["loss"] == "logistic":
        return 0.5
    classes = summary["dataset"].get("description", {}).get("classes")
    return 1 / classes if isinstance(classes, int) and classes > 1 else None


def _unique(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values))
