"""What competes in a comparison: what it is given, and what it leaves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from torch import Tensor

from invlearn.datasets.base import Benchmark
from invlearn.features import Features
from invlearn.outputs import Outputs


def trial_seed(seed: int, trial: int) -> int:
    """Seed of a trial's data, coloring, initial weights and batches."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])


@dataclass(frozen=True)
class Problem:
    """What a method is given: a trial of a benchmark, or one's own rows less some environments.

    Attributes
    ----------
    key : str
        Names it among a comparison's, and in files.
    seed : int
        Of whatever a method draws.
    data : Benchmark
        Rows to learn from, rows to choose by if there are some, environments to be measured in.
    """

    key: str
    seed: int
    data: Benchmark


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
class Method(ABC):
    """A competitor.

    Attributes
    ----------
    name, title, summary, source : str
    kind : 'usual', 'invariant' or 'reference'
        What one would use anyway; a method of the IRM family; or a bound that was given what
        nobody has of new data, features from which the shortcut was removed.
    """

    name: str
    title: str
    summary: str
    source: str
    kind: str

    @abstractmethod
    def fit(self, problems: Sequence[Problem], done: Done) -> None:
        """Learn from each problem's training rows; several at once where that is faster.

        Raises
        ------
        InvlearnError
            Rows that it cannot learn from.
        """
