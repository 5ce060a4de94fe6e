"""Several runs as one program: their parameters and rows stacked, their derivatives apart.

A stack of R models is one function of parameters {name: [R, ...]} and rows [R, n, ...]. Its runs
do not touch each other, so the gradient of a sum over them is every run's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from invlearn.classifier import with_inputs
from invlearn.losses import Loss
from invlearn.models import call, trainable
from invlearn.objectives.base import Objective
from invlearn.training.batch import Batch, n_means
from invlearn.training.engine import DEFAULT_MICRO_BATCH
from invlearn.training.risks import Parameters, SummedRisk, leaves_of, slices
from invlearn.training.runs import Runs
from invlearn.training.stacked_rows import StackedRows
from invlearn.training.streaming import Outputs, Streamed

_DEVICE_ROWS = 1 << 18
"""Rows of all runs together that are forwarded at a time on a device without a small cache."""


class Stack:
    """The models of R runs as one function of stacked parameters.

    While a stack lasts, the models' parameters are views of its own, so that whatever reads or
    writes a model reads or writes the stack. `release` gives a model its own memory again.

    Parameters
    ----------
    models : sequence of nn.Module
        Alike but for the values of their parameters; without buffers and frozen parameters.
    micro_batch : int, None or 'auto'
        Rows of one run that are forwarded at a time.
    memory_budget : int
        Bytes of activations to keep for the backward pass, of all runs together.
    classifier : str or None
        The module whose inputs are read as features.
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        *,
        micro_batch: int | str | None,
        memory_budget: int,
        classifier: str | None = None,
    ) -> None:
        self.models, self.classifier = list(models), classifier
        self.parameters = stacked_parameters(models)
        for r, model in enumerate(models):
            for name, p in model.named_parameters():
                p.data = self.parameters[name][r]
        rows = micro_batch if isinstance(micro_batch, int) else 1 << 62
        if micro_batch == "auto":
            on_cpu = next(iter(self.parameters.values())).device.type == "cpu"
            rows = max((DEFAULT_MICRO_BATCH if on_cpu else _DEVICE_ROWS) // len(models), 64)
        self.rows_at_a_time = rows
        self.memory_budget = memory_budget
        self.row_bytes: float | None = None

    @classmethod
    def borrowing(cls, models: Sequence[nn.Module], classifier: str | None) -> Stack:
        """A stack of copies of the models' parameters, which stay as they are: to try it."""
        stack = cls(
            [copy.deepcopy(models[0])],
            micro_batch=None,
            memory_budget=1 << 62,
            classifier=classifier,
        )
        stack.parameters = stacked_parameters(models)
        return stack

    def release(self, r: int) -> None:
        """Give a model parameters of its own."""
        for p in self.models[r].parameters():
            p.data = p.data.clone()
            p.grad = None

    def outputs(
        self,
        parameters: Mapping[str, Tensor],
        rows: StackedRows,
        part: slice,
        *,
        features: bool = False,
    ) -> Outputs:
        """Outputs [R, m, k] of some of the rows, and their features [R, m, d] if asked for."""
        model = self.models[0]

        def one(theta: Parameters, x: Tensor) -> Outputs:
            z, *h = (
                (call(model, theta, rows.features(x, part)),)
                if not features or self.classifier is None
                else with_inputs(
                    model, self.classifier, lambda: call(model, theta, rows.features(x, part))
                )
            )
            return (z[:, None] if z.ndim == 1 else z, *h)

        found: Outputs = vmap(one)(dict(parameters), rows.x[:, part])
        return found


def stacked_parameters(models: Sequence[nn.Module]) -> Parameters:
    """Copies {name: [R, ...]} of the parameters of R models."""
    parts = [trainable(model) for model in models]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class StackedRisk(SummedRisk):
    """R_e(θ) of one environment in every run: `Risk` of [R] runs."""

    stack: Stack
    loss: Loss
    rows: StackedRows
    environment: int

    def parts(self) -> Iterator[slice]:
        """The environment's rows, so many at a time."""
        start, stop = self.rows.offsets[self.environment : self.environment + 2]
        return slices(start, stop, self.stack.rows_at_a_time)

    def share(self, part: slice, parameters: Parameters) -> Tensor:
        """The part's share of the risks [R]."""
        rows = self.rows
        (z,) = self.stack.outputs(parameters, rows, part)
        y = rows.y[:, part].flatten(0, 1)
        losses = self.loss.value(z.to(torch.float64).flatten(0, 1), y).reshape(z.shape[:2])
        return (rows.weights[:, part] * losses).sum(1) / rows.mass[:, self.environment]


class ManyRuns(Runs):
    """The runs of a stack, and the rows of their step."""

    def __init__(
        self,
        stack: Stack,
        loss: Loss,
        rows: StackedRows,
        batches: Sequence[Batch],
        own: Sequence[Mapping[str, float]],
        *,
        objective: Objective,
    ) -> None:
        self.stack, self.rows, self.loss = stack, rows, loss
        self.folds, self.n_means = objective.folds, n_means(objective, batches[0].rows)
        self.batches, self.own, self.shape = batches, own, (len(batches),)
        device = rows.x.device
        self.numbers = {
            name: torch.tensor([o[name] for o in own], dtype=torch.float64).to(
                device, non_blocking=True
            )
            for name in own[0]
        }
        self.offsets, self.y, self.index = rows.offsets, rows.y, rows.index
        self.weights, self.fold = rows.weights, rows.fold
        self.group = rows.group if objective.reads_groups else None
        self.leaves = leaves_of(stack.parameters)
        self._sides: dict[int, StackedRows] = {}

    def each(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function mapped over the runs."""
        dims = tuple(None if argument is None else 0 for argument in arguments)
        return vmap(function, in_dims=dims)(*arguments)

    def forward(
        self, look: Callable[[slice, Outputs], None], *, features: bool, apart: bool
    ) -> Streamed:
        """Forward all rows of every run."""
        stack = self.stack
        streamed = Streamed(
            lambda part: stack.outputs(self.leaves, self.rows, part, features=features),
            list(self.parts(stack.rows_at_a_time, apart)),
            look,
            budget=stack.memory_budget,
            row_bytes=stack.row_bytes,
            own=[self.rows.x, *self.leaves.values()],
        )
        stack.row_bytes = streamed.row_bytes
        return streamed

    def risk(self, e: int, fold: int | None = None, draw: int = 0) -> StackedRisk:
        """R_e of every run; no random layers are stacked."""
        if fold is not None and fold not in self._sides:
            assert self.rows.fold is not None
            self._sides[fold] = self.rows.select(self.rows.fold == fold)
        rows = self.rows if fold is None else self._sides[fold]
        return StackedRisk(self.stack, self.loss, rows, e)

    def holds(self, gradients: int) -> bool:
        """Always: only runs whose gradients fit are stacked."""
        return True
