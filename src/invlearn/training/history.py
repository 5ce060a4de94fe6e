"""What is known of the steps of a run: what they are to be, what came of them, what is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from invlearn.errors import DivergenceError
from invlearn.objectives.base import Terms
from invlearn.outputs import Outputs
from invlearn.selection import Choice
from invlearn.training.batch import Batch


@dataclass(frozen=True)
class Update:
    """A step that is to be made: its rows, and the numbers its schedules give.

    numbers: the objective's hyperparameters; penalty_weight: its strength, NaN for an objective
    without one; scale: factor on the whole loss, the L2 term included; resets: whether the
    optimizer's state is emptied before it.
    """

    step: int
    batch: Batch
    numbers: Mapping[str, float]
    penalty_weight: float
    scale: float
    lr: float
    resets: bool

    def check(self, terms: Terms) -> None:
        """Raise DivergenceError unless the objective is finite."""
        if not bool(torch.isfinite(terms.total)):
            remedy = "Lower the learning rate"
            if not math.isnan(self.penalty_weight):
                remedy += " or the penalty weight, or use at_anneal='rescale'"
            raise DivergenceError(f"the objective is not a finite number. {remedy}")


@dataclass(frozen=True, repr=False)
class Run:
    """What a training run leaves.

    Attributes
    ----------
    model : nn.Module
        Trained in place, or with `Settings.averaging` the averaged copy; after a divergence, as
        it was at the last finite evaluation.
    history : DataFrame
        A row per step: step, total, penalty, penalty_weight (the strength), and a
        'risk <environment>' for each.
    curves : DataFrame
        A row per evaluated step, environment, split and metric: environment, split, metric,
        value, step. Step t is the model after t updates.
    stop_reason : 'finished', 'stopped', 'interrupted' or 'diverged'
        A diverged trainer cannot go on: make a new one.
    steps : int
        Updates made.
    messages : tuple of str
        The warnings the run gave.
    outputs : Outputs or None
        What was kept of the predictions.
    choice : Choice or None
        What the stopping rule chose, with its statistic along the steps. Once training is over,
        the model is that of its step if it was satisfied.
    """

    model: nn.Module
    history: pd.DataFrame
    curves: pd.DataFrame
    stop_reason: str
    steps: int
    messages: tuple[str, ...]
    outputs: Outputs | None = None
    choice: Choice | None = None

    def __repr__(self) -> str:
        risks = self.history.filter(like="risk ").tail(1).to_numpy()
        risk = f", mean training risk {risks.mean():.4g}" if risks.size else ""
        said = f", messages: {len(self.messages)}" if self.messages else ""
        return f"Run({self.stop_reason} after {self.steps} steps{risk}{said})"


class History:
    """The terms of the updates made, looked at together: each look at a device waits for it.

    Attributes
    ----------
    rows : list of dict
        A row per update that was read.
    pending : list of (Update, Terms)
        Made since.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.rows: list[dict[str, float]] = []
        self.pending: list[tuple[Update, Terms]] = []

    def read(self) -> tuple[Update, Terms] | None:
        """Take what is pending into the rows, up to the first that is not finite: that one."""
        pending, self.pending = self.pending, []
        if not pending:
            return None
        numbers = torch.stack(
            [torch.stack([t.total, t.penalty, *t.risks.unbind()]) for _, t in pending]
        ).tolist()
        for (update, terms), (total, penalty, *risks) in zip(pending, numbers, strict=True):
            if not math.isfinite(total):
                return update, terms
            row = {
                "step": update.step,
                "total": total,
                "penalty": penalty,
                "penalty_weight": update.penalty_weight,
            }
            named = zip(self.names, risks, strict=True)
            self.rows.append(row | {f"risk {name}": risk for name, risk in named})
        return None

    def last_risks(self) -> list[float]:
        """The last step's risks."""
        return [self.rows[-1][f"risk {name}"] for name in self.names]
