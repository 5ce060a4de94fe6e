"""One exact step: means over rows, a small function of them, and its gradient back to the rows.

The predictor runs over micro-batches of rows that stay in cache. Its outputs (a few numbers a
row) are gathered and cut off from their graphs; on them the objective is evaluated whole and
differentiated; the resulting weights go back through each micro-batch's graph. Value and
gradient are those of the whole batch however it is cut, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.features import ChannelImages
from invlearn.losses import Loss
from invlearn.models import batch_norms
from invlearn.objectives.base import GradientObjective, MeanObjective, Objective, State, Terms
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training.bilevel import meta_step
from invlearn.training.derivatives import Risk, add_gradient, trainable
from invlearn.training.means import environment_means
from invlearn.training.streaming import Streamed

DEFAULT_MICRO_BATCH = 2500
"""Rows whose activations (a few hundred units wide) stay in a core's cache."""


@dataclass(frozen=True)
class Batch:
    """The rows of one step.

    fold [n]: numbers their random parts, where an objective asks for some; seed: of all that
    is drawn while the step is computed (DropGrad's noise, sampled pairs, dropout).
    """

    rows: Environments
    fold: Tensor | None = None
    seed: int = 0

    def part(self, fold: int) -> Environments:
        """The rows of one fold."""
        assert self.fold is not None
        bounds = zip(self.rows.offsets, self.rows.offsets[1:], strict=False)
        return self.rows.take([torch.nonzero(self.fold[a:b] == fold)[:, 0] for a, b in bounds])


class Engine:
    """Computes an objective and its gradient over a batch of environments.

    Parameters
    ----------
    model : nn.Module
        Maps n rows of features to outputs [n, k]. Gradients are added to its parameters'.
    loss : Loss
    objective : Objective
    micro_batch : int or None, optional
        Rows forwarded at a time; None forwards all rows at once. Default: 2,500, or None
        for a model with batch norm, whose statistics depend on the rows it sees together.
    memory_budget : int, optional
        Bytes of activations to keep for the backward pass; micro-batches beyond it are
        recomputed. Default 2 GiB.

    Raises
    ------
    OptionError
        Batch norm together with micro-batches, or with an objective that forwards the
        environments one by one.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        objective: Objective,
        *,
        micro_batch: int | str | None = "auto",
        memory_budget: int = 2 << 30,
    ) -> None:
        norms = batch_norms(model)
        if micro_batch == "auto":
            micro_batch = None if norms else DEFAULT_MICRO_BATCH
        if isinstance(micro_batch, str) or (micro_batch is not None and micro_batch < 1):
            raise OptionError(
                f"Expected micro_batch of 1 or more, None or 'auto', got {micro_batch!r}."
            )
        apart = objective.needs != "means"
        if norms and (micro_batch is not None or apart):
            how = f"{objective.title} forwards" if apart else "micro-batches forward"
            raise OptionError(
                f"Layer '{norms[0]}' is a batch norm: its statistics would change because {how} "
                "only some rows at a time. Use group or layer norm"
                + ("." if apart else ", or micro_batch=None.")
            )
        if objective.needs == "inner steps":  # Complains of a name that fits nothing.
            cast(MetaIRM, objective).adapted(list(trainable(model)))
        self.model = model
        self.loss = loss
        self.objective = objective
        self.micro_batch = micro_batch
        self.memory_budget = memory_budget
        self._row_bytes: float | None = None

    def step(
        self, batch: Batch, state: State, numbers: Mapping[str, Any] | None = None
    ) -> tuple[Terms, State]:
        """Evaluate the objective on the batch and add its gradient to the parameters' `.grad`.

        Parameters
        ----------
        batch : Batch
        state : State
            What ``objective.init`` or the step before returned.
        numbers : mapping, optional
            Hyperparameters of this step in place of the objective's own.

        Returns
        -------
        (Terms, State)
            Detached terms, and the objective's state after the step.

        Raises
        ------
        OptionError
            A batch without the folds that the objective asks for, or weights that sum to 0.
        """
        if batch.fold is None and self.objective.folds > 1:
            raise OptionError(
                f"{self.objective.title} asks for {self.objective.folds} folds; the batch has none."
            )
        objective: Any = self.objective.bound(numbers or {})
        if objective.needs == "inner steps":
            return self._meta_step(objective, batch, state)
        if objective.needs == "gradients":
            return self._gradient_step(objective, batch, state)
        return self._mean_step(objective, batch, state)

    def _mean_step(
        self, objective: MeanObjective, batch: Batch, state: State
    ) -> tuple[Terms, State]:
        rows = batch.rows
        streamed = self._forward(batch)
        z = streamed.outputs.requires_grad_()
        moments = objective.moments(self.loss, z.to(torch.float64), rows.y, None)
        n_envs, folds = len(rows), objective.folds
        segment = rows.index.to(z.device)
        if folds > 1:
            assert batch.fold is not None  # Looked at in `step`.
            segment = segment * folds + batch.fold.to(z.device)
        means = environment_means(moments, segment, n_envs * folds, rows.weights)
        if folds > 1:
            means = {name: m.reshape(n_envs, folds, *m.shape[1:]) for name, m in means.items()}
        terms, state = objective.value(means, state)
        (grad_z,) = torch.autograd.grad(terms.total, z)
        # Looking at a device's number would wait for it; the trainer reads it later.
        if z.device.type != "cpu" or bool(torch.isfinite(terms.total)):
            streamed.backward(grad_z)
        return Terms(*(term.detach() for term in terms)), state

    def _forward(self, batch: Batch) -> Streamed:
        x = batch.rows.x
        streamed = Streamed(
            lambda part: self.model(x[part]),
            list(self._slices(0, batch.rows.n_rows)),
            dim=0,
            budget=math.inf if self.micro_batch is None else self.memory_budget,
            row_bytes=self._row_bytes,
            own=[x.pixels if isinstance(x, ChannelImages) else x, *self.model.parameters()],
        )
        self._row_bytes = streamed.row_bytes
        return streamed

    def _slices(self, start: int, stop: int) -> Iterator[slice]:
        size = self.micro_batch or max(stop - start, 1)
        for a in range(start, stop, size):
            yield slice(a, min(a + size, stop))

    def _gradient_step(
        self, objective: GradientObjective, batch: Batch, state: State
    ) -> tuple[Terms, State]:
        theta = trainable(self.model)
        risks = [self._risk(batch, e) for e in range(len(batch.rows))]
        found = [risk.gradient(theta) for risk in risks]
        stacked = {name: torch.stack([gradient[name] for _, gradient in found]) for name in theta}
        values = torch.stack([value for value, _ in found])
        scalars, state = objective.scalars({"risk": values}, state)
        combination, state = objective.combine(scalars, stacked, state)
        total = dict(combination.gradient)
        if combination.directions is not None:
            for e, risk in enumerate(risks):
                direction = {name: v[e] for name, v in combination.directions.items()}
                for name, product in risk.hessian_product(theta, direction).items():
                    total[name] += product
        add_gradient(self.model, total)
        return Terms(*(term.detach() for term in combination.terms)), state

    def _risk(self, batch: Batch, e: int) -> Risk:
        return Risk(self.model, self.loss, batch.rows, e, self.micro_batch, batch.seed)

    def _meta_step(self, objective: MetaIRM, batch: Batch, state: State) -> tuple[Terms, State]:
        inner = outer = batch.rows
        if objective.folds > 1:
            inner, outer = (batch.part(fold) for fold in range(2))
        return meta_step(
            self.model,
            self.loss,
            objective,
            inner,
            outer,
            state,
            seed=batch.seed,
            micro_batch=self.micro_batch,
            memory_budget=self.memory_budget,
        )
