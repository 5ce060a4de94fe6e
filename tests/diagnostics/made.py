"""Environments with a cause and a shortcut, and models of which it is known what they use."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from invlearn.diagnostics.findings import PredictedRows
from invlearn.environments import Environments

NAMES = ["cause", "shortcut", "noise"]


def make_environments(task="squared", strengths=(1.0, 0.5, -1.0), n=800, seed=0, weights=False):
    """y = cause + noise; shortcut = strength y + noise. Columns: cause, shortcut, noise."""
    generator = torch.Generator().manual_seed(seed)
    parts = {}
    for e, strength in enumerate(strengths):
        cause, own, other, nothing = torch.randn(4, n, generator=generator, dtype=torch.float64)
        y = cause + 0.7 * own
        x = torch.stack([cause, strength * y + 0.7 * other, nothing], 1)
        target = {"squared": y, "logistic": (y > 0).long()}.get(task)
        if target is None:
            target = (y > -0.5).long() + (y > 0.5).long()
        w = (torch.rand(n, generator=generator, dtype=torch.float64) + 0.1,) if weights else ()
        parts[f"e{e}"] = (x, target, *w)
    return Environments.from_parts(parts)


def linear(weight, bias=0.0):
    """A linear model of one output (or as many as there are rows of weights)."""
    weight = torch.atleast_2d(torch.as_tensor(weight, dtype=torch.float64))
    model = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.as_tensor(bias, dtype=torch.float64))
    return model


def two_layers(hidden, weight, bias=0.0):
    """Linear, then tanh of a tenth (nearly the identity), then linear."""
    return nn.Sequential(linear(hidden), SmallTanh(), linear(weight, bias))


class SmallTanh(nn.Module):
    def forward(self, x):
        return 10 * torch.tanh(x / 10)


def make_rows(z, y, name="a", shares=None, x=None, new=False):
    """Rows with given outputs."""
    z = torch.as_tensor(z, dtype=torch.float64)
    y = torch.as_tensor(y)
    if shares is None:
        shares = np.full(len(y), 1 / len(y))
    return PredictedRows(
        name=name,
        x=torch.zeros(len(y), 1) if x is None else x,
        y=y,
        shares=torch.as_tensor(shares, dtype=torch.float64),
        z=z.reshape(len(y), -1),
        new=new,
    )
