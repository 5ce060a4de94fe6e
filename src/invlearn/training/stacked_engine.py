"""One exact step of several runs at once: `Engine` over a stack, for every kind of objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from invlearn.losses import Loss
from invlearn.objectives.base import Objective
from invlearn.training.batch import Batch
from invlearn.training.engine import STEPS
from invlearn.training.stack import ManyRuns, Stack
from invlearn.training.stacked_rows import StackedRows
from invlearn.training.steps import Made


class StackedEngine:
    """Computes an objective and its gradient in every run of a stack.

    Parameters
    ----------
    stack : Stack
    loss : Loss
    objective : Objective
        The same in every run; hyperparameters may differ.
    """

    def __init__(self, stack: Stack, loss: Loss, objective: Objective) -> None:
        self.stack = stack
        self.loss = loss
        self.objective = objective
        self._steps_made: int | None = None
        self._rows: tuple[tuple[int, ...], list[Batch], StackedRows] | None = None

    def step(
        self,
        batches: Sequence[Batch],
        states: Sequence[Any],
        numbers: Sequence[Mapping[str, float]],
    ) -> Made:
        """Evaluate the objective and its gradient on every run's batch, with its numbers."""
        rows, objective = self._layout(batches), self.objective
        state = None if states[0] is None else torch.stack(list(states)).to(rows.x.device)
        runs = ManyRuns(self.stack, self.loss, rows, batches, numbers, objective=objective)
        if self._steps_made is not None:
            self._steps_made += 1
        elif objective.needs == "inner steps" and state is not None:
            self._steps_made = int(state[0, 0])  # One look at a device; from then on it is known.
        runs.steps_made = self._steps_made
        made = STEPS[objective.needs](runs, objective, state)
        unused = {n: torch.zeros_like(p) for n, p in runs.leaves.items() if n not in made.gradient}
        return made._replace(gradient=made.gradient | unused)

    def _layout(self, batches: Sequence[Batch]) -> StackedRows:
        """The batches' rows; those of full batches, which stay the same, are laid out once."""
        key = tuple(id(batch.rows.y) for batch in batches)
        if self._rows is not None and self._rows[0] == key and batches[0].fold is None:
            return self._rows[2]
        rows = StackedRows.of(batches)
        self._rows = key, list(batches), rows  # The batches too, or an id might come again.
        return rows
