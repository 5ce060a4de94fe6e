"""What the two levels do to a chosen model: its representations, compared by PWCCA.

The models of a comparison are not kept. A run repeats bit for bit, so the chosen step's model
is trained again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor, nn

from invlearn.comparison.runner import Problems
from invlearn.diagnostics import activations, pwcca, representation
from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.learning import train
from invlearn.losses import get_loss
from invlearn.methods import Network
from invlearn.models import trainable
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.problem import Problem
from invlearn.training.bilevel import adapt
from invlearn.training.derivatives import Risk

ROWS = 5000
"""Rows that are compared at most; a few hundred units need a few thousand."""


class Chosen(NamedTuple):
    """A run and the step that a rule chose in it."""

    method: Network
    problem: str
    step: int


def measure_similarity(problems: Problems, chosen: Chosen) -> pd.DataFrame:
    """Train a run again up to its chosen step, and compare the model's representations.

    Returns
    -------
    DataFrame
        Columns method, problem, kind, layer, environment, value. Of kind 'inner-step' (meta-IRM
        only): each layer before and after the inner steps, without noise, on a training
        environment, over validation rows. Of kind 'representation': the classifier's input in
        the first test environment against that in each other; row by row the same images.
        Where PWCCA says nothing (a constant layer, fewer rows than units), the value is NaN.
    """
    problem, plan = problems.make(chosen.problem), chosen.method.planned
    run = train(
        plan,
        problem.train,
        problem.loss,
        problem.n_outputs,
        problem.seed,
        until=chosen.step,
    )
    rows, objective = [*_representations(run.model, problem)], cast(MetaIRM, plan.objective)
    if plan.objective.needs == "inner steps" and problem.validation is not None:
        rows += _inner_steps(run.model, problem, problem.validation, objective)
    table = pd.DataFrame(rows, columns=["kind", "layer", "environment", "value"])
    table.insert(0, "method", chosen.method.name)
    table.insert(1, "problem", int(problem.key))
    return table


def _inner_steps(
    model: nn.Module,
    benchmark: Problem,
    validation: Environments,
    objective: MetaIRM,
) -> Iterator[tuple[str, str, str, float]]:
    loss, theta = get_loss(benchmark.loss), trainable(model)
    for e, name in enumerate(benchmark.train.names):
        risk = Risk(model, loss, benchmark.train, e, micro_batch=2500)
        after = adapt(risk, objective, theta)
        start, stop = validation.offsets[e : e + 2]
        x = validation.x[start : min(stop, start + ROWS)]
        before, moved = activations(model, x), activations(model, x, parameters=after)
        for layer in before:
            yield "inner-step", layer, name, _pwcca(before[layer], moved[layer])


def _representations(model: nn.Module, benchmark: Problem) -> Iterator[tuple[str, str, str, float]]:
    test = benchmark.test
    if not all(torch.equal(test.targets[0], y) for y in test.targets):
        return  # Other rows in every environment: there is nothing to compare row by row.
    every = representation(model, test.x)
    first = every[test.rows[0][:ROWS]]
    for name, rows in zip(test.names[1:], test.rows[1:], strict=True):
        yield "representation", "representation", name, _pwcca(first, every[rows[:ROWS]])


def _pwcca(a: Tensor, b: Tensor) -> float:
    try:
        return pwcca(a, b)
    except OptionError:
        return float("nan")
