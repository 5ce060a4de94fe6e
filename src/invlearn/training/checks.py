"""What a trainer looks at before its first step and after its last."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import CollapseWarning, EnvironmentsError, OptionError
from invlearn.evaluation import forward
from invlearn.losses import Loss
from invlearn.objectives.base import Objective
from invlearn.training.settings import Settings

COLLAPSE_MARGIN = 0.005
"""A predictor whose risk is not this share below the best constant's has collapsed."""


def check_rows(
    model: nn.Module,
    loss: Loss,
    objective: Objective,
    rows: Environments,
    evaluations: Sequence[EvaluationSet],
) -> None:
    """Refuse rows that do not fit the model or the loss; warn of an environment of one class."""
    dtype = next(p for p in model.parameters() if p.requires_grad).dtype
    if rows.x.dtype != dtype:
        raise OptionError(
            f"Expected features of the model's type {dtype}, got {rows.x.dtype}. Convert "
            "one of them: model.double(), or x.float()."
        )
    z = forward(model, rows.x[:2])
    n_outputs = z.shape[1] if z.ndim == 2 else 1
    loss.check(rows.y, n_outputs)
    loss.check_values(z.to(torch.float64), rows.y[:2])
    for data in evaluations:
        for targets in data.targets:
            loss.check(targets, n_outputs)
    if loss.kind != "classes":
        return
    for name, _, y in rows:
        if len(torch.unique(y)) < 2:
            text = (
                f"Environment '{name}' holds one class only: its risk says nothing about "
                "telling classes apart. Merge it with another environment or drop it."
            )
            if objective.min_environments > 1:
                raise EnvironmentsError(text)
            warnings.warn(text, UserWarning, stacklevel=4)


def check_schedule(objective: Objective, settings: Settings) -> None:
    """Raise OptionError for a penalty that would never set in."""
    if name := objective.strength:
        full = objective.numbers[name]
        settings.schedule.check(full, settings.steps, objective.title)


def collapse(
    objective: Objective, loss: Loss, rows: Environments, risks: Sequence[float]
) -> list[str]:
    """Warn if training risks, one per environment, are no better than the best constants'."""
    risk = sum(risks) / len(risks)
    constants = [
        loss.constant_risk(rows.y[a:b], None if rows.weights is None else rows.weights[a:b])
        for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)
    ]
    constant = sum(constants) / len(constants)
    # A custom loss has no known constant: infinity.
    if constant == float("inf") or risk < (1 - COLLAPSE_MARGIN) * constant:
        return []
    remedy = "Lower the learning rate, or train for more steps."
    if (name := objective.strength) and objective.erm_at_zero:
        remedy = (
            f"Lower {name} (it is {objective.numbers[name]:g}) or train "
            "for more steps; a Trainer can also let it set in later (PenaltySchedule start)."
        )
    text = (
        f"{objective.title} collapsed: its training risk {risk:.4f} is not "
        f"{100 * COLLAPSE_MARGIN:g} % below the best constants' {constant:.4f}. {remedy}"
    )
    warnings.warn(text, CollapseWarning, stacklevel=4)
    return [text]
