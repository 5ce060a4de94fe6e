"""The objectives as their papers write them: loops over environments, double backward."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from reference import meta


def row_losses(z, y, loss):
    if loss == "squared":
        return (z[:, 0] - y) ** 2
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(z[:, 0], y.to(z.dtype), reduction="none")
    return F.cross_entropy(z, y, reduction="none")


def risk(z, y, loss, weights=None):
    rows = row_losses(z, y, loss)
    if weights is None:
        return rows.mean()
    return (weights * rows).sum() / weights.sum()


def dummy_gradient(z, y, loss, weights=None):
    scale = torch.ones((), dtype=z.dtype, requires_grad=True)
    value = risk(z * scale, y, loss, weights)
    return torch.autograd.grad(value, scale, create_graph=True)[0]


def environments_of(batch, model):
    """(z, y, weights, fold) of each environment, forwarded one by one."""
    rows = batch.rows
    for a, b in zip(rows.offsets, rows.offsets[1:], strict=False):
        weights = None if rows.weights is None else rows.weights[a:b]
        fold = None if batch.fold is None else batch.fold[a:b]
        yield model(rows.x[a:b]), rows.y[a:b], weights, fold


def total(name, batch, model, loss, objective, log_q=None):
    """The objective's value, differentiable in the model's parameters."""
    envs = list(environments_of(batch, model))
    risks = torch.stack([risk(z, y, loss, w) for z, y, w, _ in envs])
    if name == "erm":
        return risks.mean()
    if name == "erm-pooled":
        rows = torch.cat([row_losses(z, y, loss) for z, y, _, _ in envs])
        if envs[0][2] is None:
            return rows.mean()
        weights = torch.cat([w for _, _, w, _ in envs])
        return (weights * rows).sum() / weights.sum()
    if name == "irmv1":
        penalties = [dummy_gradient(z, y, loss, w) ** 2 for z, y, w, _ in envs]
        return risks.mean() + objective.penalty_weight * torch.stack(penalties).mean()
    if name == "irmv1-split":
        penalties = []
        for z, y, w, fold in envs:
            halves = [
                dummy_gradient(
                    z[fold == k], y[fold == k], loss, None if w is None else w[fold == k]
                )
                for k in (0, 1)
            ]
            penalties.append(halves[0] * halves[1])
        return risks.mean() + objective.penalty_weight * torch.stack(penalties).mean()
    if name == "vrex":
        return risks.mean() + objective.penalty_weight * ((risks - risks.mean()) ** 2).mean()
    if name == "mmrex":
        n = len(risks)
        lambda_min = (1 - objective.penalty_weight) / n
        return (1 - n * lambda_min) * risks.max() + lambda_min * risks.sum()
    if name == "group-dro":
        q = log_q.exp() * torch.exp(objective.step_size * risks.detach())
        return ((q / q.sum()) * risks).sum()
    if name == "iga":
        params = list(model.parameters())
        grads = [torch.autograd.grad(r, params, create_graph=True) for r in risks]
        mean = torch.autograd.grad(risks.mean(), params, create_graph=True)
        penalty = 0.0
        for env_grads in grads:
            for g, m in zip(env_grads, mean, strict=True):
                penalty = penalty + ((g - m) ** 2).sum()
        return risks.mean() + objective.penalty_weight * penalty / len(risks)
    if name == "meta-irm":
        return meta.total(objective, batch, model, lambda *part: risk(*part[:2], loss, part[2]))
    raise KeyError(name)
