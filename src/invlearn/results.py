"""What a comparison leaves, on benchmarks and on one's own rows alike: columns and entries.

`docs/results.md` says what every column holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pandas as pd
from pydantic import BeforeValidator

from invlearn.errors import OptionError

CURVE_COLUMNS = ("method", "problem", "environment", "split", "metric", "value", "step")
RESULT_COLUMNS = (
    "method", "problem", "environment", "split", "metric", "value", "low", "high", "step",
    "selection",
)  # fmt: skip
STATISTIC_COLUMNS = ("method", "problem", "selection", "step", "value", "bound", "chosen")
SIMILARITY_COLUMNS = ("method", "problem", "kind", "layer", "environment", "value")

ORACLE_SUFFIX = " (oracle hyperparameters)"
"""Ends the name of a selection whose hyperparameters were chosen in a test environment."""

_EARLIER = {"objective": "method", "trial": "problem"}
"""Columns of the committed tables of benchmarks, by what they are called now."""


Number = Annotated[float, BeforeValidator(lambda value: float("nan") if value is None else value)]
"""A number, which JSON has as null where it is NaN."""


class Estimate(NamedTuple):
    """A number with its interval."""

    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class MethodInfo:
    """What a report says of a method that took part.

    Attributes
    ----------
    name, title : str
    kind : 'usual', 'invariant' or 'reference'
        What one would use anyway; a method of the IRM family; or one that was given what a user
        lacks, which does not compete.
    summary, source : str
    settings : {what: how it was set}
    """

    name: str
    title: str
    kind: str
    summary: str = ""
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Overall:
    """A method over all environments left out: derived from its rows of the table and their draws.

    Attributes
    ----------
    method : str
    failed : tuple of str
        The environments without which its training diverged; numbers are NaN then.
    where : str
        The environment in which it does worst.
    worst, mean : Estimate
        In that environment, and on average over environments, each counted alike.
    worst_gain, mean_gain : Estimate or None
        How much better than the best usual method it is, each where it does worst, and on average;
        intervals widened for the comparisons made. None of a usual method, or where one failed.
    """

    method: str
    failed: tuple[str, ...]
    where: str
    worst: Estimate
    mean: Estimate
    worst_gain: Estimate | None = None
    mean_gain: Estimate | None = None


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table that a comparison left, an earlier one's columns under their names of today.

    Parameters
    ----------
    path : path
        Of results.csv, similarity.csv, search.csv, curves.parquet or statistics.parquet.
    """
    path = Path(path)
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if "draw" in table:  # A search's rows are of trials still.
        return table.rename(columns={"objective": "method"})
    table = table.rename(columns=_EARLIER)
    return table.reindex(columns=list(RESULT_COLUMNS)) if path.name == "results.csv" else table


def check_columns(name: str, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    """Refuse a table that lacks a column.

    Raises
    ------
    OptionError
        Names the columns that are missing.

    Examples
    --------
    >>> check_columns("curves", pd.DataFrame(columns=["method", "value"]), ("method", "value"))
    """
    if missing := [column for column in columns if column not in table.columns]:
        raise OptionError(
            f"Expected {name} with the columns {', '.join(columns)}; missing: "
            f"{', '.join(missing)}. Pass the table as it was made, or read it by read_table."
        )


def check_cells(results: pd.DataFrame) -> None:
    """Refuse results that lack a column, or hold two values for one cell.

    Raises
    ------
    OptionError
        Names the columns that are missing, or the first such cell.
    """
    check_columns("results", results, RESULT_COLUMNS)
    cell = [c for c in RESULT_COLUMNS if c not in {"value", "low", "high", "step"}]
    if (twice := results.duplicated(cell)).any():
        first = results.loc[twice, cell].iloc[0].to_dict()
        raise OptionError(
            f"Expected one value per ({', '.join(cell)}), got two or more for {first}. "
            "Pass the selected steps only; every evaluated step belongs in curves."
        )
