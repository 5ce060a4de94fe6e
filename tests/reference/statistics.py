"""A step by loops over environments and folds: outer products formed, autograd over all rows."""

from __future__ import annotations

import torch

from invlearn.features import ChannelImages
from invlearn.objectives.base import Outer


def features_of(model, x):
    """Outputs of an MLP, and the inputs of its last layer."""
    h = x.dense() if isinstance(x, ChannelImages) else x
    for layer in model.layers[:-1]:
        h = torch.relu(h @ layer.weight.T + layer.bias)
    return h @ model.layers[-1].weight.T + model.layers[-1].bias, h


def means_of(objective, batch, model, loss):
    """{name: [E, ...]}, or [E, folds, ...], differentiable in the model's parameters."""
    rows, means = batch.rows, {}
    for e, (a, b) in enumerate(zip(rows.offsets, rows.offsets[1:], strict=False)):
        z, h = features_of(model, rows.x[a:b])
        moments = objective.moments(loss, z, rows.y[a:b], h if objective.reads_features else None)
        moments["mass"] = torch.ones(b - a, dtype=torch.float64)
        weights = moments["mass"] if rows.weights is None else rows.weights[a:b]
        for fold in range(objective.folds):
            there = weights if objective.folds == 1 else weights * (batch.fold[a:b] == fold)
            for name, values in moments.items():
                if isinstance(values, Outer):
                    values = values.left[:, :, None] * values.right[:, None, :]
                total = sum(w * v for w, v in zip(there, values, strict=True))
                mean = total if name == "mass" else total / there.sum()
                means.setdefault(name, {}).setdefault(e, []).append(mean)
    stacked = {n: torch.stack([torch.stack(v) for v in m.values()]) for n, m in means.items()}
    return stacked if objective.folds > 1 else {n: m[:, 0] for n, m in stacked.items()}


def step(objective, batch, model, loss, state):
    """(terms, gradient by parameter's name, state)."""
    leaves = dict(model.named_parameters())
    means = means_of(objective, batch, model, loss)

    def gradient(scalar, **options):
        return torch.autograd.grad(
            scalar, [*leaves.values()], retain_graph=True, materialize_grads=True, **options
        )

    if objective.needs == "means":
        terms, state = objective.value(means, state)
        return terms, dict(zip(leaves, gradient(terms.total), strict=True)), state
    scalars, state = objective.scalars(means, state)
    each = [gradient(value) for value in scalars.values]
    stacked = {n: torch.stack([g[i] for g in each]) for i, n in enumerate(leaves)}
    made, state = objective.combine(scalars, stacked, state)
    total = dict(made.gradient)
    for e in range(len(batch.rows)) if made.directions else ():
        own = gradient(means["risk"][e], create_graph=True)
        slope = sum((g * made.directions[n][e]).sum() for n, g in zip(leaves, own, strict=True))
        for name, product in zip(leaves, gradient(slope), strict=True):
            total[name] = total[name] + product
    return made.terms, total, state
