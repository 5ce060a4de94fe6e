"""What competes on what, and what is made of it: a benchmark's side, or that of one's own rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd

from invlearn.comparison.runner import Kept, Problems, Task
from invlearn.methods import Method
from invlearn.reports.record import Answer, Record

AnyRecord = TypeVar("AnyRecord", bound=Record)

Progress = Callable[[int, int, str], None]
"""Called with what is done, how much there is, and what was done last."""


@dataclass(frozen=True, repr=False)
class Comparison(Generic[AnyRecord]):
    """What was found.

    Attributes
    ----------
    results : DataFrame
        Of `RESULT_COLUMNS`: a row per method, problem, environment, split, metric and selection.
    curves : DataFrame
        Of `CURVE_COLUMNS`: the same at every step that was evaluated; empty where none was.
    record : BenchmarkRecord or OwnRowsRecord
        What was compared, how, and what was found beside the table.
    answer : Answer
        In words.
    overview : DataFrame
        The main table, as text.
    tables : {file name: DataFrame}
        What else was measured.
    folder : Path or None
        Where all of it was written.
    """

    results: pd.DataFrame
    curves: pd.DataFrame
    record: AnyRecord
    answer: Answer
    overview: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    folder: Path | None = None

    def __repr__(self) -> str:
        where = "" if self.folder is None else f", in '{self.folder}'"
        methods = ", ".join(method.name for method in self.record.methods)
        return f"Comparison({self.answer.headline} Methods: {methods}{where})"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        words = "".join(f"<p>{escape(sentence)}</p>" for sentence in self.answer.sentences)
        return f"<h4>{escape(self.answer.headline)}</h4>{words}{self.overview.to_html()}"


@dataclass(frozen=True)
class Contest(ABC, Generic[AnyRecord]):
    """Methods and the problems that they meet on.

    Attributes
    ----------
    problems : Problems
    methods : {name: Method}
    tasks : tuple of Task
        In the order in which they are kept, and by default begun.
    plan : {what: plain data}
        All that makes the results what they are.
    """

    problems: Problems
    methods: Mapping[str, Method]
    tasks: tuple[Task, ...]
    plan: Mapping[str, Any]

    def arrange(self, tasks: Sequence[Task], processes: int) -> list[tuple[Task, ...]]:
        """Tasks in the units that are done as one, in the order in which they begin."""
        return [(task,) for task in tasks]

    @abstractmethod
    def measured(
        self,
        runs: Sequence[Kept],
        provenance: Mapping[str, str | int | float],
        processes: int,
        progress: Progress,
    ) -> Comparison[AnyRecord]:
        """What the finished tasks come to."""

    @abstractmethod
    def report(self, made: Comparison[AnyRecord], folder: Path) -> None:
        """Write the page and its figures."""
