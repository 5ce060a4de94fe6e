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


FEWEST_LOOKS = 4
"""Before a run is said to be ERM: a mask may let everything through for a few steps."""


class Effect:
    """Compares the gradient of some steps with that of ERM, until they differ once.

    That is nearly always at the first step at which the strength is not 0, so a run pays for two
    gradients. Further looks come after 1, 2, 4 ... steps more.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.shares: list[float] = []
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
        share = proportion(made, plain)
        self.shares.append(share)
        # The same step of an adaptive optimizer comes of a gradient that is ERM's times a constant.
        # Where few directions are left, any penalty's is ERM's times something that varies.
        self.seen = not (share > 0 and math.isclose(share, self.shares[0], rel_tol=1e-3))

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
        if self.seen or len(self.steps) < FEWEST_LOOKS:
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


def proportion(a: Tensor, b: Tensor) -> float:
    """How many times b the gradient a is; NaN where it has another direction.

    Examples
    --------
    >>> proportion(torch.tensor([2.0, 4.0]), torch.tensor([1.0, 2.0]))
    2.0
    """
    if not bool(a.any()) or not bool(b.any()):
        return 1.0 if not bool(a.any()) and not bool(b.any()) else math.nan
    share = (a @ b) / (b @ b)
    return float(share) if (a - share * b).norm() <= ROUNDING * a.norm() else math.nan
