"""The record of a comparison on a benchmark: its data, recipe and rules, and what those said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from invlearn.errors import unknown_name
from invlearn.metrics import Metric
from invlearn.reports.record import Record
from invlearn.results import ORACLE_SUFFIX
from invlearn.selection import Note

ORACLE_BADGE = "oracle: looked at the test environment"


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
        """The title, saying 'oracle' where the test environment was looked at."""
        return f"{self.title} [{ORACLE_BADGE}]" if self.oracle else self.title


@dataclass(frozen=True)
class DatasetInfo:
    """A benchmark's data."""

    name: str
    summary: str
    source: str
    options: Mapping[str, Any]
    description: Mapping[str, Any]
    target: str
    training_environments: tuple[str, ...]
    test_environments: tuple[str, ...]
    loss: str

    def kind(self, environment: str) -> str:
        """What a test environment is: 'trained on', 'target' or 'new'."""
        if environment in self.training_environments:
            return "trained on"
        return "target" if environment == self.target else "new"

    @property
    def everywhere(self) -> list[str]:
        """Every test environment in order, the target among them."""
        names = list(self.test_environments)
        return names if self.target in names else [*names, self.target]

    @property
    def shown(self) -> list[str]:
        """The columns of a table: up to four test environments, else the trained and the target."""
        names = self.everywhere
        kept = {*self.training_environments, self.target}
        return names if len(names) <= 4 else [name for name in names if name in kept]

    def chance(self, metric: Metric) -> float | None:
        """A guess's accuracy among equally likely classes; None of what else, or is unknown."""
        if metric.name != "accuracy":
            return None
        if self.loss == "logistic":
            return 0.5
        classes = self.description.get("classes")
        return 1 / classes if isinstance(classes, int) and classes > 1 else None


@dataclass(frozen=True)
class RecipeInfo:
    """The settings a benchmark's methods share; of an oracle, chosen in the test environment.

    `notice` is what is to be known before any result: that they are a file's, or mere defaults.
    """

    name: str
    oracle: bool
    note: str
    settings: Mapping[str, Any]
    notice: str = ""


@dataclass(frozen=True)
class Unsatisfied:
    """Trials of a method in which no step satisfied a rule."""

    selection: str
    method: str
    problems: tuple[int, ...]


@dataclass(frozen=True)
class Said:
    """What a rule noted of some trials of a method."""

    selection: str
    method: str
    problems: tuple[int, ...]
    note: Note


@dataclass(frozen=True)
class Warned:
    """A warning of a trial's training."""

    method: str
    problem: int
    message: str


@dataclass(frozen=True, kw_only=True)
class BenchmarkRecord(Record):
    """A comparison on a benchmark.

    Attributes
    ----------
    dataset : DatasetInfo
    recipe : RecipeInfo
    rules : tuple of Rule
        Those applied, by their own names.
    headline : str
        Name of the rule of the main table.
    seeds : tuple of int
        Of the trials.
    unsatisfied : tuple of Unsatisfied
    said : tuple of Said
    warnings : tuple of Warned
    """

    dataset: DatasetInfo
    recipe: RecipeInfo
    rules: tuple[Rule, ...]
    headline: str
    seeds: tuple[int, ...] = ()
    unsatisfied: tuple[Unsatisfied, ...] = ()
    said: tuple[Said, ...] = ()
    warnings: tuple[Warned, ...] = ()

    def rule(self, name: str) -> Rule:
        """The rule of a selection in the results, which may end in the oracle suffix."""
        base = name.removesuffix(ORACLE_SUFFIX)
        found = next(
            (rule for rule in self.rules if rule.name == base), Rule(base, base, "", False)
        )
        title = found.title + name[len(base) :]
        if base == name and not self.recipe.oracle:
            return found
        explanation = (
            f"{found.explanation} The hyperparameters were chosen by looking at the test "
            "environment, which a user cannot do."
        )
        return Rule(name, title, explanation.strip(), True, found.statistic)

    def main_rule(self, table: pd.DataFrame) -> Rule:
        """The headline's rule, as a table with a column 'selection' has it.

        Raises
        ------
        UnknownNameError
            There is no such selection, with or without the oracle suffix.
        """
        present = _unique(table["selection"])
        for name in (self.headline, self.headline + ORACLE_SUFFIX):
            if name in present:
                return self.rule(name)
        raise unknown_name("headline selection", self.headline, present)

    def shown_rules(self, results: pd.DataFrame) -> list[Rule]:
        """Every rule in the results: the headline, then the honest ones, then the oracles."""
        first = self.main_rule(results)
        order = [rule.name for rule in self.rules]
        rest = [self.rule(name) for name in _unique(results["selection"]) if name != first.name]

        def place(one: Rule) -> tuple[bool, int, str]:
            base = one.name.removesuffix(ORACLE_SUFFIX)
            return one.oracle, order.index(base) if base in order else len(order), one.name

        return [first, *sorted(rest, key=place)]


def _unique(names: pd.Series) -> list[str]:
    return list(dict.fromkeys(map(str, names)))
