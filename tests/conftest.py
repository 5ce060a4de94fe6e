"""Shared material for the tests."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import pytest

# Tests share the machine with each other, and so do the libraries and processes that they start.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from matplotlib.figure import Figure

from invlearn.environments import Environments
from invlearn.models import MLP

sys.path.insert(0, str(Path(__file__).parent))

# Small tensors: a second thread costs more than it brings, and one thread reruns bit for bit.
torch.set_num_threads(1)


def make_rows(loss="logistic", sizes=(30, 41), weights=False, seed=0, features=4):
    """Random float64 environments whose targets fit the loss."""
    g = torch.Generator().manual_seed(seed)
    parts = {}
    for e, n in enumerate(sizes):
        x = torch.randn(n, features, generator=g, dtype=torch.float64) * (1 + 0.3 * e)
        if loss == "squared":
            y = x[:, 0] + torch.randn(n, generator=g, dtype=torch.float64)
        else:
            y = torch.randint(0, 3 if loss == "softmax" else 2, (n,), generator=g)
        w = (torch.rand(n, generator=g, dtype=torch.float64) + 0.1,) if weights else ()
        parts[f"e{e}"] = (x, y, *w)
    return Environments.from_parts(parts)


def make_model(loss="logistic", features=4, hidden=(7, 5), seed=0):
    """A float64 MLP that fits the loss."""
    g = torch.Generator().manual_seed(seed)
    model = MLP(features, hidden, 3 if loss == "softmax" else 1, generator=g).double()
    for layer in model.layers:  # At zero biases a dead row sits exactly on ReLU's kink.
        layer.bias.data.uniform_(-0.5, 0.5, generator=g)
    return model


@pytest.fixture(scope="session")
def server():
    """Where worker processes come from that have the library imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["invlearn.cli"])
    return context


@pytest.fixture
def forked_workers(server, monkeypatch):
    """Worker processes without the seconds of imports that each one costs.

    They get what a spawned process gets, pickled, and know as little of this process;
    tests/ground/test_machine.py spawns its own.
    """
    asked = []

    def context(method):
        asked.append(method)
        return server

    monkeypatch.setattr(multiprocessing, "get_context", context)
    yield
    assert asked == ["spawn"]


@pytest.fixture(scope="module")
def undrawn():
    """Reports whose figures are composed but not drawn; tests/reports and the commands' draw."""

    def save(figure, file, **options):
        file.write(b"\x89PNG")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture
def rows():
    return make_rows


@pytest.fixture
def model():
    return make_model
