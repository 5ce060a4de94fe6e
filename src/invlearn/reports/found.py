"""The numbers of a comparison on one's own rows, as its table and its record have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from invlearn.metrics import METRICS, Metric
from invlearn.reports.record import OwnRowsRecord
from invlearn.results import Estimate, MethodInfo, Overall, check_cells


@dataclass(frozen=True)
class Found:
    """Every method in every environment left out; make one with `read`.

    Attributes
    ----------
    record : OwnRowsRecord
    cells : {(environment, method): Estimate}
    """

    record: OwnRowsRecord
    cells: Mapping[tuple[str, str], Estimate]

    @classmethod
    def read(cls, record: OwnRowsRecord, results: pd.DataFrame) -> Found:
        """Take the numbers of a table of results.

        Raises
        ------
        OptionError
            A column is missing, or a cell of the results has two values.
        """
        check_cells(results)
        numbers = results[["value", "low", "high"]].astype(float).to_numpy().tolist()
        keys = zip(results["environment"], results["method"], strict=True)
        return cls(record, {key: Estimate(*row) for key, row in zip(keys, numbers, strict=True)})

    @property
    def metric(self) -> Metric:
        """What was measured."""
        return METRICS[self.record.metric]

    @property
    def methods(self) -> list[MethodInfo]:
        """The methods as every table and figure has them: the usual ones, then the invariant."""
        return self.record.ordered

    @property
    def environments(self) -> list[str]:
        """Those that were measured in."""
        return list(dict.fromkeys(environment for environment, _ in self.cells))

    def cell(self, environment: str, method: str) -> Estimate:
        """A method in an environment."""
        return self.cells[environment, method]

    def overall(self, method: str) -> Overall:
        """A method over all environments."""
        return next(overall for overall in self.record.overall if overall.method == method)

    def interval(self, estimate: Estimate) -> str:
        """Write an interval as text."""
        return f"{self.metric.show(estimate.low)} to {self.metric.show(estimate.high)}"


def has_number(estimate: Estimate) -> bool:
    """Whether the training ended in finite numbers."""
    return bool(np.isfinite(estimate.value))
