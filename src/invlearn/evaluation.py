"""How a predictor does in each environment, by every metric that is tracked along a run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from invlearn.environments import EvaluationSet
from invlearn.features import Features, InMemory, as_rows
from invlearn.losses import Loss
from invlearn.metrics import METRICS
from invlearn.models import MLP

BATCH_ROWS, BATCH_VALUES = 5000, 2**21
"""Rows that go through a model together where nothing is learned, and numbers in them."""


class Measurement(NamedTuple):
    """One number of one environment: a row of the results table, less the run it is of."""

    environment: str
    split: str
    metric: str
    value: float


def forward(model: nn.Module, x: Features) -> Tensor:
    """Outputs [m, k] of all rows, without graphs, in evaluation mode (restored after)."""
    with evaluating(model), torch.no_grad():
        return torch.cat([model(part) for part in batches(x)])


def batches(x: Features) -> Iterator[InMemory]:
    """The rows a few thousand at a time, images fewer."""
    rows = max(1, min(BATCH_ROWS, BATCH_VALUES // max(as_rows(x).n_features, 1)))
    for start in range(0, len(x), rows):
        yield x[start : start + rows]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in evaluation mode; afterwards its modules are in those they had."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """Outputs [m, k] of a fitted network for rows [m, ...], in double precision on the CPU.

    An `MLP` computes in double precision too: its products then do not depend on which rows are
    predicted together. Other networks may hold layers that only know their own type.
    """
    parameter = next(network.parameters())
    if isinstance(network, MLP):
        network, dtype = copy.deepcopy(network).double(), torch.float64
    else:
        dtype = parameter.dtype
    z = forward(network, x.to(parameter.device, dtype)).reshape(len(x), -1)
    return z.cpu().to(torch.float64)


def evaluate(model: nn.Module, sets: Sequence[EvaluationSet], loss: Loss) -> list[Measurement]:
    """Measure a predictor in every environment of every set.

    Returns
    -------
    list of Measurement
        The tracked `METRICS`: 'risk', 'dummy_gradient_norm' (Euclidean norm of the mean dummy
        gradient) and, of classes, 'accuracy' (a fraction). Weighted means over the environment's
        rows, in double precision. On validation rows also what selection rules need:
        'risk_standard_error' and 'constant_risk', the best constant predictor's risk.

    Examples
    --------
    >>> from invlearn.environments import Environments
    >>> from invlearn.losses import get_loss
    >>> envs = Environments.from_arrays([[-1.0], [1.0]], [0, 1], ["a", "a"])
    >>> sets = [EvaluationSet.from_environments(envs, "test")]
    >>> [m.value for m in evaluate(nn.Identity(), sets, get_loss("logistic"))][-1]
    1.0
    """
    return [m for data in sets for m in measure(forward(model, data.x), data, loss)]


def measure(z_all: Tensor, data: EvaluationSet, loss: Loss) -> list[Measurement]:
    """The same from the outputs [m, k] of one set's distinct rows."""
    found: list[tuple[str, str, Tensor]] = []
    z_all = z_all.to(torch.float64)
    for e, (name, rows, y) in enumerate(zip(data.names, data.rows, data.targets, strict=True)):
        z = z_all[rows]
        weights = None if data.weights is None else data.weights[e]
        share = row_shares(y, weights)
        metrics: dict[str, Tensor] = {
            metric.name: metric.of_mean(share @ metric.of_rows(loss, z, y))
            for metric in METRICS.values()
            if metric.tracked and loss.kind in metric.kinds
        }
        if data.split == "validation":
            losses = loss.value(z, y)
            metrics["risk_standard_error"] = (share * (losses - share @ losses)).norm()
            metrics["constant_risk"] = z.new_tensor(loss.constant_risk(y, weights))
        found += [(name, metric, value) for metric, value in metrics.items()]
    # All at once: each look at a device's numbers waits for it.
    values = torch.stack([value for _, _, value in found]).tolist()
    return [
        Measurement(name, data.split, metric, value)
        for (name, metric, _), value in zip(found, values, strict=True)
    ]


def row_shares(y: Tensor, weights: Tensor | None) -> Tensor:
    """Row weights [n] scaled to sum to 1, in double precision; equal ones where there are none."""
    if weights is None:
        return torch.full((len(y),), 1 / len(y), dtype=torch.float64, device=y.device)
    return weights.to(torch.float64) / weights.sum(dtype=torch.float64)
