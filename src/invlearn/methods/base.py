"""What competes in a comparison: what it is given, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from invlearn.features import Features
from invlearn.outputs import Outputs
from invlearn.problem import Problem
from invlearn.results import MethodInfo


def trial_seed(seed: int, trial: int) -> int:
    """Seed of a trial's data, coloring, initial weights and batches."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


@dataclass(frozen=True)
class Outcome:
    """What a method leaves on a problem.

    Attributes
    ----------
    curves : DataFrame
        What was measured at every evaluated step: environment, split, metric, value, step.
    predict : callable
        From features [n, ...] to the outputs [n, k] in double precision, at the end.
    outputs : Outputs or None
        For training and validation rows along the steps, for selection rules to read.
    chosen : {name: value}
        From training environments: how much invariance counts, and with early stopping the 'step'.
    messages : tuple of str
        What it warned of.
    failed : bool
        Whether it ended in numbers that are not finite.
    """

    curves: pd.DataFrame
    predict: Callable[[Features], Tensor]
    outputs: Outputs | None = None
    chosen: Mapping[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    failed: bool = False


Done = Callable[[Problem, Outcome], None]
"""Called with each problem's outcome as soon as there is one."""


@dataclass(frozen=True)
class Method(MethodInfo, ABC):
    """A competitor: what a report says of it, and how it learns."""

    def info(self, settings: Mapping[str, Any]) -> MethodInfo:
        """What a report says of it, once it is known how it was set."""
        return MethodInfo(self.name, self.title, self.kind, self.summary, self.source, settings)

    @abstractmethod
    def fit(self, problems: Sequence[Problem], done: Done) -> None:
        """Learn from each problem's training rows; several at once where that is faster.

        Raises
        ------
        InvlearnError
            Rows that it cannot learn from.
        """
