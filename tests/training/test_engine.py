"""The engine: whole or streamed, kept or recomputed, the same value and gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from invlearn.environments import Environments
from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.means import random_folds
from invlearn.models import trainable
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.training import Batch, Engine
from invlearn.training.derivatives import Risk


def normed(features=4):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(features, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1))
    return layers.double()


def dropping():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1))
    return layers.double()


def convolution():
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 1)
    )
    return layers.double()


def images(sizes=(20, 33)):
    g = torch.Generator().manual_seed(1)
    return Environments.from_parts(
        {
            f"e{e}": (
                torch.randn(n, 1, 8, 8, generator=g, dtype=torch.float64),
                torch.randint(0, 2, (n,), generator=g),
            )
            for e, n in enumerate(sizes)
        }
    )


def batch_of(data, objective):
    if getattr(objective, "folds", 1) == 1:
        return Batch(data)
    return Batch(data, random_folds(data.sizes, 2, torch.Generator().manual_seed(3)))


def step(net, data, name, **options):
    """(terms, gradients) of one step."""
    objective = get_objective(name)
    engine = Engine(net, get_loss("logistic"), objective, **options)
    net.zero_grad()
    state = objective.init(len(data), torch.zeros(1, dtype=torch.float64))
    terms, _ = engine.step(batch_of(data, objective), state)
    return terms, [p.grad.clone() for p in net.parameters()]


def test_batch_norm_with_micro_batches_is_refused():
    with pytest.raises(
        OptionError,
        match=r"Layer '1' is a batch norm: its statistics would change because micro-batches "
        r"forward only some rows at a time. Use group or layer norm, or micro_batch=None.",
    ):
        Engine(normed(), get_loss("logistic"), get_objective("erm"), micro_batch=10)


@pytest.mark.parametrize("micro_batch", ["auto", None])
def test_batch_norm_with_an_objective_that_forwards_environments_apart_is_refused(micro_batch):
    with pytest.raises(OptionError, match=r"because IGA forwards only some rows at a time") as e:
        Engine(normed(), get_loss("logistic"), get_objective("iga"), micro_batch=micro_batch)
    assert "micro_batch" not in str(e.value)  # It would not help.
    assert str(e.value).endswith("Use group or layer norm.")


@pytest.mark.parametrize("options", [{}, {"micro_batch": None}])
def test_batch_norm_is_allowed_whole(options, rows):
    net = normed()
    terms, grads = step(net, rows(), "irmv1", **options)
    assert math.isfinite(terms.total)
    assert all(bool(torch.isfinite(g).all()) for g in grads)


@pytest.mark.parametrize("micro_batch", [0, -5, "whole"])
def test_bad_micro_batch_is_refused(micro_batch, model):
    with pytest.raises(
        OptionError, match=rf"micro_batch of 1 or more, None or 'auto', got {micro_batch!r}"
    ):
        Engine(model(), get_loss("logistic"), get_objective("erm"), micro_batch=micro_batch)


def test_trap_batch_norm_statistics_come_from_all_environments_together(rows):
    data, net = rows(sizes=(30, 41)), normed()
    with torch.no_grad():
        hidden = net[0](data.x)

        def losses(x, y):
            normal = nn.functional.batch_norm(net[0](x), None, None, training=True)
            return get_loss("logistic").value(net[3](torch.relu(normal)), y)

        together = losses(data.x, data.y)
        apart = torch.stack([losses(x, y).mean() for _, x, y in data])
    terms, _ = step(net, data, "erm")
    expected = torch.stack([together[:30].mean(), together[30:].mean()])
    torch.testing.assert_close(terms.risks, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(terms.risks, apart, rtol=1e-3)
    assert int(net[1].num_batches_tracked) == 1
    torch.testing.assert_close(net[1].running_mean, 0.1 * hidden.mean(0))


@pytest.mark.parametrize("name", ["irmv1", "vrex"])
def test_trap_penalty_of_the_whole_is_not_the_mean_of_the_shards_penalties(name, rows, model):
    data, net = rows(sizes=(40, 60)), model()
    whole, whole_grads = step(net, data, name, micro_batch=None)
    streamed, streamed_grads = step(net, data, name, micro_batch=25)
    shards = [
        step(net, data.take([torch.arange(n // 2) + k * (n // 2) for n in data.sizes]), name)
        for k in (0, 1)
    ]
    torch.testing.assert_close(streamed.total, whole.total, rtol=1e-12, atol=0)
    torch.testing.assert_close(streamed.penalty, whole.penalty, rtol=1e-12, atol=1e-14)
    averaged = (shards[0][0].penalty + shards[1][0].penalty) / 2
    assert float(averaged) > 1.01 * float(whole.penalty)
    shard_grads = [(a + b) / 2 for a, b in zip(shards[0][1], shards[1][1], strict=True)]
    for got, want, wrong in zip(streamed_grads, whole_grads, shard_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
        assert not torch.allclose(got, wrong, rtol=1e-2)


@pytest.mark.parametrize("name", ["erm", "irmv1", "irmv1-split"])
@pytest.mark.parametrize("make", [dropping, None], ids=["dropout", "mlp"])
def test_recomputed_graphs_give_bit_equal_gradients_to_kept_ones(name, make, rows, model):
    data, net = rows(), make() if make else model()
    results, forwards = [], []
    for memory_budget in (2 << 30, 1):
        calls = []
        hook = net.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        torch.manual_seed(7)
        results.append(step(net, data, name, micro_batch=10, memory_budget=memory_budget))
        hook.remove()
        forwards.append(len(calls))
    assert forwards == [8, 15]  # All but the first micro-batch, measured, are recomputed.
    assert torch.equal(results[0][0].total, results[1][0].total)
    for kept, recomputed in zip(results[0][1], results[1][1], strict=True):
        assert torch.equal(kept, recomputed)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("memory_budget", [1, 2 << 30])
def test_any_module_on_image_tensors_streams_exactly(name, memory_budget):
    data, net = images(), convolution()
    whole, whole_grads = step(net, data, name, micro_batch=None)
    cut, cut_grads = step(net, data, name, micro_batch=8, memory_budget=memory_budget)
    torch.testing.assert_close(cut.total, whole.total, rtol=1e-11, atol=1e-12)
    for got, want in zip(cut_grads, whole_grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-9)


def test_gradients_are_added_to_those_already_there(rows, model):
    data, net = rows(), model()
    _, once = step(net, data, "irmv1")
    engine = Engine(net, get_loss("logistic"), get_objective("irmv1"))
    engine.step(Batch(data), None)
    for p, grad in zip(net.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * grad, rtol=1e-12, atol=1e-14)


def test_split_objective_without_folds_is_refused(rows, model):
    objective = get_objective("irmv1-split")
    engine = Engine(model(), get_loss("logistic"), objective)
    with pytest.raises(OptionError, match="IRMv1 asks for 2 folds; the batch has none"):
        engine.step(Batch(rows()), None)


def test_trap_environment_with_fewer_rows_than_folds_is_refused():
    with pytest.raises(OptionError, match=r"Expected at least 2 rows of every environment"):
        random_folds((5, 1), 2, torch.Generator())


def test_trap_odd_halves_differ_by_one_row_and_none_is_empty():
    fold = random_folds((5, 3, 2), 2, torch.Generator().manual_seed(0))
    counts = [torch.bincount(part, minlength=2).tolist() for part in fold.split([5, 3, 2])]
    assert [sorted(c) for c in counts] == [[2, 3], [1, 2], [1, 1]]


@pytest.mark.parametrize("micro_batch", [None, 7])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_hessian_product_equals_double_backward(loss, weighted, micro_batch, rows, model):
    data, net = rows(loss, weights=weighted), model(loss)
    params = dict(net.named_parameters())
    g = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in params.items()}
    for e, (_, x, y) in enumerate(data):
        part = slice(data.offsets[e], data.offsets[e + 1])
        w = torch.ones(len(y)) if data.weights is None else data.weights[part]
        risk = (w * get_loss(loss).value(net(x), y)).sum() / w.sum()
        grads = torch.autograd.grad(risk, list(params.values()), create_graph=True)
        slope = sum((grad * direction[n]).sum() for n, grad in zip(params, grads, strict=True))
        wanted = torch.autograd.grad(slope, list(params.values()))
        at = Risk(net, get_loss(loss), data, e, micro_batch)
        got = at.hessian_product(trainable(net), direction)
        for name, want in zip(params, wanted, strict=True):
            torch.testing.assert_close(got[name], want, rtol=1e-9, atol=1e-11)


def test_a_total_that_is_not_finite_leaves_no_gradient(rows, model):
    data, net = rows("squared"), model("squared")
    with torch.no_grad():
        net.layers[-1].bias.fill_(1e200)
    engine = Engine(net, get_loss("squared"), get_objective("erm"))
    terms, _ = engine.step(Batch(data), None)
    assert not math.isfinite(terms.total)
    assert all(p.grad is None for p in net.parameters())
