"""Every objective of the registry, on every loss, against its slow version."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from invlearn.losses import get_loss
from invlearn.means import random_folds
from invlearn.objectives import OBJECTIVES
from invlearn.training import Batch, Engine
from reference import gradients, slow

DOCS = Path(__file__).parents[2] / "docs" / "objectives.md"
LOSSES = ["squared", "logistic", "softmax"]
SIZES = {"two": (30, 41), "three": (20, 33, 27), "seven": (11, 8, 9, 20, 14, 6, 31)}


def batch_of(rows, objective):
    folds = getattr(objective, "folds", 1)
    if folds == 1:
        return Batch(rows)
    return Batch(rows, random_folds(rows.sizes, folds, torch.Generator().manual_seed(5)))


def step(model, batch, objective, loss, state, **options):
    model.zero_grad()
    engine = Engine(model, get_loss(loss), objective, **options)
    terms, new = engine.step(batch, state)
    return terms, [p.grad.clone() for p in model.parameters()], new


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_engine_equals_the_papers_formula(name, loss, sizes, weighted, rows, model):
    objective = OBJECTIVES[name]
    data, net = rows(loss, SIZES[sizes], weighted), model(loss)
    batch = batch_of(data, objective)
    objective = objective.with_numbers(dict.fromkeys(objective.numbers, 0.7))
    state = objective.init(len(data), torch.zeros(1, dtype=torch.float64))
    expected, wanted = slow.step(name, objective, batch, net, loss, state)
    for micro_batch in (None, 7):
        terms, grads, _ = step(net, batch, objective, loss, state, micro_batch=micro_batch)
        torch.testing.assert_close(terms.total, expected, rtol=1e-11, atol=1e-12)
        for got, want in zip(grads, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_streamed_equals_whole(name, rows, model):
    objective, net = OBJECTIVES[name], model()
    batch = batch_of(rows(sizes=(30, 41, 26)), objective)
    state = objective.init(3, torch.zeros(1, dtype=torch.float64))
    whole = step(net, batch, objective, "logistic", state, micro_batch=None)
    for micro_batch, memory_budget in itertools.product((1, 16, 50), (1, 2 << 30)):
        options = {"micro_batch": micro_batch, "memory_budget": memory_budget}
        cut = step(net, batch, objective, "logistic", state, **options)
        torch.testing.assert_close(cut[0].total, whole[0].total, rtol=1e-12, atol=1e-12)
        for got, want in zip(cut[1], whole[1], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in gradients.NAMES])
def test_gradient_is_the_derivative_of_the_value(name, rows, model):
    objective, net = OBJECTIVES[name], model()
    batch = batch_of(rows(sizes=(30, 41, 26)), objective)
    objective = objective.with_numbers(dict.fromkeys(objective.numbers, 0.5))
    state = objective.init(3, torch.zeros(1, dtype=torch.float64))
    if name == "group-dro":  # Its weights follow the risks but are not differentiated.
        objective = objective.with_numbers({"step_size": 0.0})
    _, grads, _ = step(net, batch, objective, "logistic", state, micro_batch=10)
    g = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=g, dtype=p.dtype) for p in net.parameters()]
    slope = sum(float((d * gr).sum()) for d, gr in zip(direction, grads, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(net.parameters(), direction, strict=True):
                p.add_(d, alpha=sign * 1e-6)
        values.append(step(net, batch, objective, "logistic", state, micro_batch=10)[0].total)
        with torch.no_grad():
            for p, d in zip(net.parameters(), direction, strict=True):
                p.add_(d, alpha=-sign * 1e-6)
    assert slope == pytest.approx(float(values[0] - values[1]) / 2e-6, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_registry_entry_is_complete(name):
    objective = OBJECTIVES[name]
    assert objective.title
    assert objective.summary.endswith(".")
    assert objective.source
    objective.check()
    hash(objective)
    assert f"| `{name}` |" in DOCS.read_text()
    assert objective.strength in ("", *objective.numbers)
    assert bool(objective.strength) == bool(objective.table_strengths)
    for number, (low, high, _) in objective.space.items():
        assert low < high
        assert low <= objective.numbers[number] <= high
