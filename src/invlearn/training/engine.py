"""One exact step: means over rows, a small function of them, and its gradient back to the rows.

The predictor runs over micro-batches of rows that stay in cache; what the objective reads of them
is summed, apart from their graphs. The objective is a function of the sums, differentiated there,
and the derivative goes back through each micro-batch's graph. Value and gradient are those of the
whole batch however it is cut, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from invlearn.classifier import check_features_learned, classifier_of
from invlearn.errors import DivergenceError, OptionError
from invlearn.losses import Loss
from invlearn.models import batch_norms, trainable
from invlearn.objectives.base import Objective, State, Terms
from invlearn.training.batch import Batch
from invlearn.training.bilevel import meta_step
from invlearn.training.derivatives import add_gradient
from invlearn.training.runs import OneRun
from invlearn.training.steps import Made, gradient_step, mean_step

STEPS: dict[str, Callable[..., Made]] = {
    "means": mean_step,
    "gradients": gradient_step,
    "inner steps": meta_step,
}
"""How a step is made, by what its objective needs."""

DEFAULT_MICRO_BATCH = 2500
"""Rows whose activations (a few hundred units wide) stay in a core's cache."""


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
    features : str, optional
        The module whose inputs are the features that some objectives read; default: the linear
        layer that holds the last trainable parameter.

    Raises
    ------
    OptionError
        Batch norm together with micro-batches, or with an objective that forwards the
        environments one by one; no layer to read features from, or none that makes them.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        objective: Objective,
        *,
        micro_batch: int | str | None = "auto",
        memory_budget: int = 2 << 30,
        features: str = "",
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
        objective.check_parameters(list(trainable(model)))
        self.classifier = classifier_of(model, features) if objective.reads_features else None
        if objective.shapes_features:
            check_features_learned(model, str(self.classifier), objective.title)
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
        DivergenceError
            An inner step of the objective left the finite numbers.
        """
        made = self.made(batch, state, numbers)
        if made.errors:
            raise DivergenceError(made.errors[0])
        total = made.terms.total
        # Looking at a device's number would wait for it; the trainer reads it later.
        if total.device.type != "cpu" or bool(torch.isfinite(total)):
            add_gradient(self.model, made.gradient)
        return made.terms, made.state

    def made(self, batch: Batch, state: State, numbers: Mapping[str, Any] | None = None) -> Made:
        """The same, with the gradient by name and added to nothing."""
        if batch.fold is None and self.objective.folds > 1:
            raise OptionError(
                f"{self.objective.title} asks for {self.objective.folds} folds; the batch has none."
            )
        runs = OneRun(
            self.model,
            self.loss,
            batch,
            self.objective.numbers | dict(numbers or {}),
            objective=self.objective,
            micro_batch=self.micro_batch,
            memory_budget=self.memory_budget,
            row_bytes=self._row_bytes,
            classifier=self.classifier,
        )
        made = STEPS[self.objective.needs](runs, self.objective, state)
        self._row_bytes = runs.row_bytes
        return made
