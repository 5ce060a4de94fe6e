"""One update of a single run: gradient, L2 term, optimizer and the moving average."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.means import replayed, seeded_generator
from invlearn.objectives.base import Terms
from invlearn.training.history import Update

if TYPE_CHECKING:
    from invlearn.training.trainer import Trainer

_LAYERS = 2  # Stream of random numbers for dropout and its like.


def make_update(trainer: Trainer, update: Update) -> Terms:
    """Make an update of a run alone; what the objective says of the step before it."""
    if update.resets:
        trainer.optimizer.state.clear()
    if trainer.settings.lr_factor is not None:
        for group in trainer.optimizer.param_groups:
            group["lr"] = update.lr
    start_state = trainer._state
    terms: Terms | None = None

    def closure() -> Tensor:
        nonlocal terms
        trainer.optimizer.zero_grad()
        seed = seeded_generator(trainer.seed, _LAYERS, update.step).initial_seed()
        with replayed(seed), trainer.settings.products(trainer.device):
            terms, trainer._state = trainer._engine.step(update.batch, start_state, update.numbers)
        if not trainer._lazy:
            update.check(terms)
        return update.scale * (terms.total + _finish_gradient(trainer, update.scale))

    trainer.optimizer.step(closure)  # type: ignore[arg-type]
    if trainer.average is not None:
        trainer.average.update_parameters(trainer.model)
    if terms is None:
        name = trainer.settings.optimizer
        raise OptionError(f"torch.optim.{name} never evaluated the objective.")
    return terms


def _finish_gradient(trainer: Trainer, scale: float) -> Tensor:
    """Add the L2 term's gradient and scale all of it; returns the L2 term."""
    l2 = trainer.settings.l2
    term = torch.zeros((), dtype=torch.float64, device=trainer.device)
    for p in trainer.model.parameters():
        if p.grad is None:
            continue
        if l2:
            p.grad.add_(p.detach(), alpha=2 * l2)
            term += l2 * p.detach().square().sum()
        if scale != 1.0:
            p.grad.mul_(scale)
    return term
