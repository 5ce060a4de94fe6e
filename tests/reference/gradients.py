"""Objectives that combine gradients, coordinate by coordinate and from the linear program.

A step is (total, gradients in the model's parameters) of a whole batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.optimize import linprog

from reference.features import environments_of, risk_of
from reference.naive import dummy_gradient


def mask_of(objective, name, values):
    """The mask of one coordinate, from its derivative in every environment."""
    n = len(values)
    signs = [math.copysign(1.0, v) if v else 0.0 for v in values]
    agreement = abs(sum(signs)) / n
    if name == "and-mask":
        return 1.0 if agreement >= objective.agreement - 1e-6 else 0.0
    if agreement <= objective.agreement:
        return 0.0
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    if variance == 0:
        return 1.0
    return math.tanh(objective.sharpness * (agreement - objective.agreement) / variance)


def masked(name, objective, batch, model, loss):
    parameters = list(model.parameters())
    risks = [risk_of(z, y, w, loss) for z, y, w, _, _ in environments_of(batch, model)]
    found = [torch.autograd.grad(risk, parameters, retain_graph=True) for risk in risks]
    out = []
    for i, parameter in enumerate(parameters):
        flat = [gradient[i].reshape(-1).tolist() for gradient in found]
        masks, steps = [], []
        for values in zip(*flat, strict=True):
            masks.append(mask_of(objective, name, values))
            steps.append(masks[-1] * sum(values) / len(values))
        if name == "sand-mask" or objective.convention != "mean":
            share = sum(masks) / len(masks)
            steps = [step / (share + 1e-10) for step in steps]
        out.append(torch.tensor(steps, dtype=parameter.dtype).reshape(parameter.shape))
    return torch.stack(risks).mean().detach(), out


def pareto_weights(values, gram, preference, tolerance):
    """The published linear programs, by HiGHS; each is scaled, which changes no solution."""
    values, gram = np.asarray(values), np.asarray(gram)
    r = np.asarray(preference) / np.sum(preference)
    weighted = r * values
    if not (weighted > 0).all():
        return r
    share = weighted / weighted.sum()
    distance = sum(p * math.log(3 * p) for p in share)
    anchor = np.array([r[j] * (math.log(3 * share[j]) - distance) for j in range(3)])
    balance = gram @ anchor
    if distance > tolerance:
        goal, rows = balance, []
        for j in range(3):
            if weighted[j] == weighted.max():
                rows.append((gram[j], 0.0))
            elif balance[j] <= 0:
                rows.append((gram[j], balance[j]))
    else:
        goal = gram.sum(0)
        rows = [(gram[j], 0.0) for j in range(3)] + [(balance, min(balance.max(), 0.0))]
    scales = [max(np.abs(row).max(), abs(bound)) for row, bound in rows]
    found = linprog(
        -goal / np.abs(goal).max(),
        A_ub=[-row / scale for (row, _), scale in zip(rows, scales, strict=True)] or None,
        b_ub=[-bound / scale for (_, bound), scale in zip(rows, scales, strict=True)] or None,
        A_eq=[[1.0, 1.0, 1.0]],
        b_eq=[1.0],
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found.x if found.status == 0 else r


def pair(objective, batch, model, loss):
    envs, parameters = list(environments_of(batch, model)), list(model.parameters())
    risks = [risk_of(z, y, w, loss) for z, y, w, _, _ in envs]
    squares = [dummy_gradient(z, y, loss, w) ** 2 for z, y, w, _, _ in envs]
    risk, invariance = sum(risks) / len(envs), sum(squares) / len(envs)
    spread = sum((r - risk) ** 2 for r in risks)
    spread = spread / (len(envs) - (1 if objective.convention == "pair-code" else 0))
    scalars = [risk, invariance, spread]
    flat = []
    for scalar in scalars:
        gradient = torch.autograd.grad(scalar, parameters, retain_graph=True)
        flat.append(torch.cat([g.reshape(-1) for g in gradient]))
    gram = [[(a @ b).item() for b in flat] for a in flat]
    preference = [1.0, objective.irm_share * objective.preference, objective.preference]
    alpha = pareto_weights([s.item() for s in scalars], gram, preference, objective.tolerance)
    total = sum(float(weight) * scalar for weight, scalar in zip(alpha, scalars, strict=True))
    return total.detach(), torch.autograd.grad(total, parameters)


NAMES = ("and-mask", "sand-mask", "pair")


def step(name, objective, batch, model, loss):
    """The total that is reported, and the gradient that is followed."""
    if name == "pair":
        return pair(objective, batch, model, loss)
    return masked(name, objective, batch, model, loss)
