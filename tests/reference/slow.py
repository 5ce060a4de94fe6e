"""A step of every objective of the registry, by its slow version."""

from __future__ import annotations

import torch

from reference import features, gradients, naive


def step(name, objective, batch, model, loss, state):
    """(total, gradients in the model's parameters) of the whole batch."""
    if name in features.TOTALS:
        return features.step(name, objective, batch, model, loss, state)
    if name in gradients.NAMES:
        return gradients.step(name, objective, batch, model, loss)
    total = naive.total(name, batch, model, loss, objective, log_q=state)
    return total.detach(), torch.autograd.grad(total, list(model.parameters()))
