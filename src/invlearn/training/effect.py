"""Whether an objective's strength changes what is learned, or a run is ERM under another name."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from invlearn.errors import NoEffectWarning
from invlearn.means import replayed
from invlearn.objectives.erm import ERM
from invlearn.training.engine import Engine
from invlearn.training.history import Update

if TYPE_CHECKING:
    from invlearn.training.trainer import Trainer

ROUNDING = 1e-6
"""Of a gradient's length: two gradients that differ by less are the same in single precision."""


class Effect:
    """Compares the gradient of some steps with that of ERM, until they differ once.

    That is nearly always at the first step at which the strength is not 0, so a run pays for two
    gradients. Further looks come after 1, 2, 4 ... steps more.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.seen = False

    def look(self, trainer: Trainer, update: Update) -> None:
        """Compare before an update is made."""
        objective, weight = trainer.objective, update.penalty_weight
        due = self.steps[-1] + 2 ** (len(self.steps) - 1) if self.steps else 0
        if self.seen or update.step < due or math.isnan(weight):
            return
        if weight == 0 if objective.erm_at_zero else objective.needs == "inner steps":
            return
        self.steps.append(update.step)
        made = self._gradient(trainer, trainer._engine, update, update.numbers)
        if objective.erm_at_zero:
            without = {**update.numbers, objective.strength: 0.0}
            plain = self._gradient(trainer, trainer._engine, update, without)
        else:
            engine = Engine(
                trainer.model, trainer.loss, ERM(), micro_batch=trainer._engine.micro_batch
            )
            plain = self._gradient(trainer, engine, update, {})
        self.seen = not parallel(made, plain)

    def _gradient(
        self, trainer: Trainer, engine: Engine, update: Update, numbers: Mapping[str, float]
    ) -> Tensor:
        """The gradient of a step that is not made, flat."""
        buffers = [(b, b.clone()) for b in trainer.model.buffers()]
        state = trainer._state if engine is trainer._engine else None
        with replayed(update.batch.seed), trainer.settings.products(trainer.device):
            found = engine.made(update.batch, state, numbers).gradient
        for buffer, before in buffers:  # A batch norm's statistics are those of the steps made.
            buffer.copy_(before)
        parts = [
            found.get(name, torch.zeros_like(p)).flatten().double()
            for name, p in trainer.model.named_parameters()
            if p.requires_grad
        ]
        return torch.cat(parts)

    def said(self, trainer: Trainer) -> list[str]:
        """Warn if none of several looks saw a difference."""
        if self.seen or len(self.steps) < 2:
            return []
        objective = trainer.objective
        name = objective.strength
        text = (
            f"{objective.title} trained as ERM. In each of {len(self.steps)} steps looked at, "
            f"{self.steps[0]} to {self.steps[-1]}, its gradient was ERM's, to {ROUNDING:g} of its "
            "length. Look whether the environments hold the same rows, or the features are "
            f"constant; else raise {name}, which is {objective.numbers[name]:g}."
        )
        warnings.warn(text, NoEffectWarning, stacklevel=5)
        return [text]


def parallel(a: Tensor, b: Tensor) -> bool:
    """Whether two gradients have the same direction, to rounding.

    Examples
    --------
    >>> parallel(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
    True
    """
    size = b @ b
    share = torch.where(size > 0, (a @ b) / torch.where(size > 0, size, 1.0), 0.0)
    return bool((a - share * b).norm() <= ROUNDING * a.norm())
