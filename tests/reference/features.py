"""Objectives of outputs and features as their papers write them: loops over rows, autograd.

A step is (total, gradients in the model's parameters) of a whole batch; `objective` is read for
its numbers and its convention only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reference.naive import dummy_gradient, row_losses


def environments_of(batch, model):
    """(z, y, weights, h, fold) of each environment; h are the last layer's inputs."""
    rows = batch.rows
    for a, b in zip(rows.offsets, rows.offsets[1:], strict=False):
        h = rows.x[a:b]
        for layer in model.layers[:-1]:
            h = torch.relu(h @ layer.weight.T + layer.bias)
        z = h @ model.layers[-1].weight.T + model.layers[-1].bias
        weights = torch.ones(b - a, dtype=z.dtype) if rows.weights is None else rows.weights[a:b]
        yield z, rows.y[a:b], weights, h, None if batch.fold is None else batch.fold[a:b]


def mean(values, weights):
    """Σ w v / Σ w, row by row."""
    total = 0.0
    for value, weight in zip(values, weights, strict=True):
        total = total + weight * value
    return total / weights.sum()


def variance(values, weights, ddof):
    """Of the rows' values; with ddof = 1 weights count rows, and a single row has none."""
    centre, total = mean(values, weights), 0.0
    for value, weight in zip(values, weights, strict=True):
        total = total + weight * (value - centre) ** 2
    n = weights.sum()
    return total / (n - ddof if n > 1 else n)


def covariance(values, weights, ddof):
    centre, total = mean(values, weights), 0.0
    for value, weight in zip(values, weights, strict=True):
        total = total + weight * torch.outer(value - centre, value - centre)
    n = weights.sum()
    return total / (n - ddof if n > 1 else n)


def risk_of(z, y, w, loss):
    return mean(row_losses(z, y, loss), w)


def sd(objective, batch, model, loss, state):
    total = 0.0
    for z, y, w, _, _ in environments_of(batch, model):
        if objective.convention == "sd-paper":
            size = [0.5 * sum(output**2 for output in row) for row in z]
        else:
            size = [sum(output**2 for output in row) / len(row) for row in z]
        total = total + risk_of(z, y, w, loss) + objective.penalty_weight * mean(size, w)
    return total / len(batch.rows)


def bottleneck(objective, batch, model):
    """Mean variance of the features: inside environments, or of all rows together."""
    envs = list(environments_of(batch, model))
    if objective.convention == "ib-paper":
        rows, weights = torch.cat([e[3] for e in envs]), torch.cat([e[2] for e in envs])
        return variance(rows, weights, 1).mean()
    ddof = 0 if objective.convention == "mean" else 1
    return sum(variance(h, w, ddof).mean() for _, _, w, h, _ in envs) / len(envs)


def ib_erm(objective, batch, model, loss, state):
    envs = list(environments_of(batch, model))
    if objective.convention == "ib-paper":
        losses = torch.cat([row_losses(z, y, loss) for z, y, *_ in envs])
        risk = mean(losses, torch.cat([e[2] for e in envs]))
    else:
        risk = sum(risk_of(z, y, w, loss) for z, y, w, _, _ in envs) / len(envs)
    return risk + objective.penalty_weight * bottleneck(objective, batch, model)


def ib_irm(objective, batch, model, loss, state):
    envs = list(environments_of(batch, model))
    total = 0.0
    for z, y, w, _, fold in envs:
        if objective.convention == "mean":
            penalty = dummy_gradient(z, y, loss, w) ** 2
        else:
            halves = [
                dummy_gradient(z[fold == k], y[fold == k], loss, w[fold == k]) for k in (0, 1)
            ]
            penalty = halves[0] * halves[1]
        total = total + risk_of(z, y, w, loss) + objective.penalty_weight * penalty
    gamma = objective.penalty_weight * objective.bottleneck
    return total / len(envs) + gamma * bottleneck(objective, batch, model)


def coral(objective, batch, model, loss, state):
    envs = list(environments_of(batch, model))
    ddof = 0 if objective.convention == "mean" else 1
    centres = [mean(h, w) for _, _, w, h, _ in envs]
    spreads = [covariance(h, w, ddof) for _, _, w, h, _ in envs]
    penalty, pairs = 0.0, 0
    for e in range(len(envs)):
        for f in range(e + 1, len(envs)):
            apart = ((spreads[e] - spreads[f]) ** 2).mean()
            if objective.convention == "coral-paper":
                apart = apart / 4
            else:
                apart = apart + ((centres[e] - centres[f]) ** 2).mean()
            penalty, pairs = penalty + apart, pairs + 1
    risk = sum(risk_of(z, y, w, loss) for z, y, w, _, _ in envs) / len(envs)
    return risk + objective.penalty_weight * penalty / pairs


def row_gradients(z, y, h, last, loss):
    """Each row's gradient in the last layer's weights and bias, by autograd, one at a time."""
    out = []
    for i in range(len(z)):
        own = row_losses(F.linear(h[i : i + 1], last.weight, last.bias), y[i : i + 1], loss)
        w, b = torch.autograd.grad(own.sum(), [last.weight, last.bias], create_graph=True)
        out.append(torch.cat([w, b[:, None]], 1))
    return out


def fishr(objective, batch, model, loss, state):
    envs = list(environments_of(batch, model))
    ddof = 1 if objective.convention == "fishr-paper" else 0
    found = []
    for e, (z, y, w, h, _) in enumerate(envs):
        v = variance(row_gradients(z, y, h, model.layers[-1], loss), w, ddof)
        average = objective.ema * state[e] + (1 - objective.ema) * v
        found.append(average / (1 - objective.ema))
    centre = sum(found) / len(found)
    distances = [((v - centre) ** 2).sum() for v in found]
    if objective.convention in ("mean", "domainbed"):
        distances = [d / centre.numel() for d in distances]
    penalty = sum(distances) / (1 if objective.convention == "fishr-cmnist" else len(envs))
    risk = sum(risk_of(z, y, w, loss) for z, y, w, _, _ in envs) / len(envs)
    return risk + objective.penalty_weight * penalty


TOTALS = {"sd": sd, "ib-erm": ib_erm, "ib-irm": ib_irm, "coral": coral, "fishr": fishr}


def step(name, objective, batch, model, loss, state):
    """The total and its gradient in every parameter of the model."""
    total = TOTALS[name](objective, batch, model, loss, state)
    return total.detach(), torch.autograd.grad(total, list(model.parameters()))
