"""Rows with something to learn."""

from __future__ import annotations

import pytest
import torch

from invlearn.environments import Environments
from invlearn.models import MLP


def make_learnable(sizes=(40, 60), loss="logistic", seed=0):
    """Float64 environments whose target follows the first feature, with noise."""
    g = torch.Generator().manual_seed(seed)
    parts = {}
    for e, n in enumerate(sizes):
        x = torch.randn(n, 3, generator=g, dtype=torch.float64)
        noisy = x[:, 0] + 0.5 * (1 + e) * torch.randn(n, generator=g, dtype=torch.float64)
        parts[f"e{e}"] = (x, noisy if loss == "squared" else (noisy > 0).to(torch.int64))
    return Environments.from_parts(parts)


def make_net(hidden=(5,), seed=0):
    net = MLP(3, hidden, 1, generator=torch.Generator().manual_seed(seed))
    return net.double()


@pytest.fixture
def learnable():
    return make_learnable


@pytest.fixture
def net():
    return make_net
