"""A step of an objective by itself, and what its slow version makes of the same rows."""

from __future__ import annotations

import torch

from conftest import make_model, make_rows
from invlearn.losses import get_loss
from invlearn.training import Batch
from reference import slow, statistics

SIZES = {"two": (9, 14), "three": (11, 7, 12), "one row each": (1, 1, 1)}
LOSSES = ("squared", "logistic", "softmax")


def make_batch(objective, loss="logistic", sizes=(9, 14), weighted=False, seed=0):
    rows = make_rows(loss, [max(n, 2) for n in sizes], weighted, seed)
    rows = rows.take([torch.arange(n) for n in sizes])  # As a mini-batch of a single row is.
    fold = torch.cat([torch.arange(n) % 2 for n in rows.sizes]) if objective.folds == 2 else None
    return Batch(rows, fold)


def step(objective, batch, model, loss, state):
    """Terms, the gradient in every parameter, and the state afterwards."""
    terms, gradient, state = statistics.step(objective, batch, model, get_loss(loss), state)
    return terms, [*gradient.values()], state


def assert_equals_slow_version(name, objective, loss, sizes, weighted, state=None, rtol=1e-10):
    batch, model = make_batch(objective, loss, sizes, weighted), make_model(loss)
    state = objective.init(len(sizes), torch.zeros(1).double()) if state is None else state
    terms, got, _ = step(objective, batch, model, loss, state)
    total, wanted = slow.step(name, objective, batch, model, loss, state)
    torch.testing.assert_close(terms.total.detach(), total, rtol=rtol, atol=1e-13)
    largest = max(float(w.abs().max()) for w in wanted)
    for g, w in zip(got, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=rtol, atol=rtol * largest)
