"""One update of several runs at once: gradient, L2 term, Adam and the moving average, stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invlearn.errors import DivergenceError
from invlearn.objectives.base import Terms
from invlearn.training.history import Update
from invlearn.training.risks import Parameters
from invlearn.training.stack import Stack, stacked_parameters
from invlearn.training.stacked_engine import StackedEngine
from invlearn.training.trainer import Trainer

ADAM_OPTIONS: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
"""The options of torch's Adam that a stack knows, and their defaults."""


class StackedAdam:
    """`torch.optim.Adam` of R runs with a learning rate and a count of steps each.

    Kingma & Ba 2015, arXiv 1412.6980, as torch computes it.

    Parameters
    ----------
    trainers : sequence of Trainer
        Whose optimizers' states it takes over; `release` gives them back.
    parameters : {name: Tensor [R, ...]}
    """

    def __init__(self, trainers: Sequence[Trainer], parameters: Parameters) -> None:
        self.trainers = list(trainers)
        options = ADAM_OPTIONS | dict(trainers[0].settings.optimizer_options)
        self.betas, self.eps = options["betas"], options["eps"]
        self.weight_decay = options["weight_decay"]
        states = [_adam_states(trainer) for trainer in trainers]
        self.mean = {
            name: torch.stack([own[name]["exp_avg"] for own in states]) for name in parameters
        }
        self.square = {
            name: torch.stack([own[name]["exp_avg_sq"] for own in states]) for name in parameters
        }
        first = next(iter(parameters))
        device = parameters[first].device
        self.count = torch.stack([own[first]["step"].to(torch.float64) for own in states])
        self.count = self.count.to(device)

    def step(self, parameters: Parameters, gradient: Parameters, lr: Tensor, keep: Tensor) -> None:
        """Move the parameters in place; lr [R]; keep [R]: 0 where a run's state is emptied."""
        b1, b2 = self.betas
        self.count = self.count * keep + 1
        size = lr / (1 - b1**self.count)
        root = (1 - b2**self.count).sqrt()
        for name, p in parameters.items():
            g = gradient[name] if not self.weight_decay else gradient[name] + self.weight_decay * p
            mean, square = self.mean[name], self.square[name]
            kept = along(keep, p)
            mean.mul_(kept).lerp_(g, 1 - b1)
            square.mul_(kept * b2).addcmul_(g, g, value=1 - b2)
            denominator = (square.sqrt() / along(root, p)).add_(self.eps)
            p.sub_(along(size, p) * (mean / denominator))

    def release(self, r: int) -> None:
        """Give a run's state back to its optimizer."""
        optimizer, model = self.trainers[r].optimizer, self.trainers[r].model
        for name, p in model.named_parameters():
            optimizer.state[p] = {
                "step": self.count[r].to(torch.float32).cpu(),
                "exp_avg": self.mean[name][r].clone(),
                "exp_avg_sq": self.square[name][r].clone(),
            }


def _adam_states(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    """A run's state of Adam by parameter, empty ones filled in."""
    found = {}
    for name, p in trainer.model.named_parameters():
        state = trainer.optimizer.state.get(p) or {
            "step": torch.zeros(()),
            "exp_avg": torch.zeros_like(p),
            "exp_avg_sq": torch.zeros_like(p),
        }
        found[name] = {key: state[key].detach() for key in ("step", "exp_avg", "exp_avg_sq")}
    return found


class StackedTrainers:
    """The trainers of several runs while they are updated as one.

    Their models and averages live in the stack until `release`.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        first = trainers[0]
        self.trainers = list(trainers)
        self.stack = Stack(
            [trainer.model for trainer in trainers],
            micro_batch=first.settings.micro_batch,
            memory_budget=first.settings.memory_budget,
            classifier=first._engine.classifier,
        )
        self.adam = StackedAdam(trainers, self.stack.parameters)
        self.engine = StackedEngine(self.stack, first.loss, first.objective)
        self.averages: Parameters = {}
        averages = [t.average for t in trainers if t.average is not None]
        if averages:
            self.averages = stacked_parameters([average.module for average in averages])
            for r, average in enumerate(averages):
                for name, p in average.module.named_parameters():
                    p.data = self.averages[name][r]

    def make(self, updates: Sequence[Update]) -> list[Terms | DivergenceError]:
        """Make one update of every run; what to send each run's loop."""
        parameters, device = self.stack.parameters, self.trainers[0].device
        with self.trainers[0].settings.products(device):
            made = self.engine.step(
                [update.batch for update in updates],
                [trainer._state for trainer in self.trainers],
                [update.numbers for update in updates],
            )
        l2, scale, lr, keep = (
            torch.tensor(row, dtype=torch.float64).to(device, non_blocking=True)
            for row in (
                [trainer.settings.l2 for trainer in self.trainers],
                [update.scale for update in updates],
                [update.lr for update in updates],
                [0.0 if update.resets else 1.0 for update in updates],
            )
        )
        gradient = {
            name: (g + along(2 * l2, g) * parameters[name]) * along(scale, g)
            for name, g in made.gradient.items()
        }
        self.adam.step(parameters, gradient, lr, keep)
        self._average(parameters)
        terms = zip(*(term.unbind() for term in made.terms), strict=True)
        out: list[Terms | DivergenceError] = []
        for r, (trainer, own) in enumerate(zip(self.trainers, terms, strict=True)):
            if made.state is not None:
                trainer._state = made.state[r]
            error = made.errors.get(r)
            out.append(Terms(*own) if error is None else DivergenceError(error))
        return out

    def _average(self, parameters: Parameters) -> None:
        averages = [t.average for t in self.trainers if t.average is not None]
        if not averages:
            return
        decay = torch.tensor(
            # The first update is a copy, as torch's.
            [
                trainer.settings.averaging if int(average.n_averaged) else 0.0
                for trainer, average in zip(self.trainers, averages, strict=True)
            ],
            dtype=torch.float64,
        ).to(self.trainers[0].device, non_blocking=True)
        for name, p in parameters.items():
            mine = self.averages[name]
            mine.lerp_(p, along(1 - decay, p))
        for average in averages:
            average.n_averaged += 1

    def release(self) -> None:
        """Give every run memory and an optimizer's state of its own."""
        for r, trainer in enumerate(self.trainers):
            self.stack.release(r)
            self.adam.release(r)
            if trainer.average is not None:
                for p in trainer.average.module.parameters():
                    p.data = p.data.clone()


def along(factor: Tensor, p: Tensor) -> Tensor:
    """A number per run [R], shaped and typed to multiply [R, ...]."""
    return factor.to(p.dtype).reshape(-1, *[1] * (p.ndim - 1))
