"""meta-IRM as its paper writes it: inner steps with create_graph=True, one double backward."""

from __future__ import annotations

import math

import torch
from torch.func import functional_call


def parts(batch, objective):
    """(x, y, weights) of each environment, for the inner and for the outer losses."""
    rows, inner, outer = batch.rows, [], []
    for a, b in zip(rows.offsets, rows.offsets[1:], strict=False):
        weights = None if rows.weights is None else rows.weights[a:b]
        env = (rows.x[a:b], rows.y[a:b], weights)
        if objective.rows == "shared":
            inner.append(env)
            outer.append(env)
            continue
        fold = batch.fold[a:b]
        for k, side in enumerate((inner, outer)):
            keep = fold == k
            side.append((env[0][keep], env[1][keep], None if weights is None else weights[keep]))
    return inner, outer


def call(model, parameters, x):
    """functional_call, which mixes up a module that is used under two names if it ties."""
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    once = len(modules) == len(set(modules))
    return functional_call(model, parameters, (x,), tie_weights=once)


def total(objective, batch, model, risk):
    """Σ L + λ std(L), differentiable in the model's parameters through the inner steps.

    Draws what the engine draws in its order: the pairs, then the noise by environment, inner
    step and parameter.
    """
    generator = torch.Generator().manual_seed(batch.seed)
    inner, outer = parts(batch, objective)
    n_envs = len(inner)
    pairs = objective.draw_pairs(n_envs, generator)
    theta = {n: p for n, p in model.named_parameters() if p.requires_grad}
    adapted = objective.adapted(list(theta))
    ends = []
    for i in range(n_envs):
        at = dict(theta)
        for _ in range(objective.inner_steps):
            x, y, w = inner[i]
            value = risk(call(model, at, x), y, w)
            grads = torch.autograd.grad(
                value,
                [at[name] for name in adapted],
                create_graph=not objective.first_order,
                materialize_grads=True,
            )
            if objective.rate == "normalized":
                length = torch.sqrt(sum((g**2).sum() for g in grads))
                grads = [g / length for g in grads]
            for name, g in zip(adapted, grads, strict=True):
                noise = 1.0
                if objective.dropgrad:
                    scale = math.sqrt(objective.dropgrad / (1 - objective.dropgrad))
                    noise = 1 + scale * torch.randn(g.shape, generator=generator, dtype=g.dtype)
                at[name] = at[name] - objective.inner_lr * noise * g
        ends.append(at)
    losses = []
    for i, j in pairs:
        x, y, w = outer[j]
        losses.append(risk(call(model, ends[i], x), y, w))
    losses = torch.stack(losses)
    deviation = losses - losses.mean()
    std = torch.sqrt((deviation**2).mean())
    every = n_envs if objective.same_environment else n_envs * (n_envs - 1)
    value = losses.mean() * (1 if objective.convention == "mean" else every)
    return value + objective.std_weight * std
