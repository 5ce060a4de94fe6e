"""meta-IRM: the exact meta-gradient, its scale, its runs, and what it refuses."""

from __future__ import annotations

import copy
import math
import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from invlearn import kernels
from invlearn.environments import Environments
from invlearn.errors import (
    DivergenceError,
    DivergenceWarning,
    EnvironmentsError,
    OptionError,
    UnknownNameError,
)
from invlearn.features import ChannelImages
from invlearn.losses import Custom, get_loss
from invlearn.means import random_folds
from invlearn.models import MLP, trainable
from invlearn.objectives.inner_step import CURVATURE_EVERY, CURVATURE_FLOOR
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training import Batch, Engine, Settings, Trainer, bilevel
from invlearn.training.bilevel import adapt
from invlearn.training.derivatives import Risk
from invlearn.training.risks import SummedRisk
from reference import meta, naive

SIZES = {2: (30, 41), 3: (20, 33, 27), 7: (11, 8, 9, 20, 14, 6, 31)}
SEED = 11
EVERYTHING = {"inner_lr": 0.7, "std_weight": 0.6, "dropgrad": 0.5}
QUIET = EVERYTHING | {"dropgrad": 0.0}


# Models and losses.


def spread(net, seed=0):
    """The net in float64, its parameters drawn anew from a seed."""
    g = torch.Generator().manual_seed(seed)
    net = net.double()
    for p in net.parameters():
        p.data.uniform_(-0.6, 0.6, generator=g)
    return net


def convolution(n_outputs=1):
    return spread(
        nn.Sequential(
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 3, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12, n_outputs),
        )
    )


def smooth(*extra, wide=6):
    """No kinks, so that finite differences are accurate; wide: features after the extra."""
    return spread(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), *extra, nn.Linear(wide, 1)))


class Cube(torch.autograd.Function):
    """x³ / 3 without a forward-mode derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3 / 3

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * x**2


class Cubed(nn.Module):
    def forward(self, x):
        return Cube.apply(x)


class Tied(nn.Module):
    """One weight, or one whole module, under two names."""

    def __init__(self, *, module):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = self.first if module else nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x))).sum(1, keepdim=True)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.recurrent, self.last = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(self.recurrent(x.reshape(-1, 2, 2))[0][:, -1])


class LogDeterminant(nn.Module):
    def forward(self, x):
        square = x.reshape(-1, 2, 3)
        matrix = square @ square.mT + torch.eye(2, dtype=x.dtype)
        return torch.linalg.slogdet(matrix)[1][:, None]


MODELS = {
    "mlp": (4, lambda model: model("logistic")),
    "linear": (4, lambda model: model("logistic", hidden=())),
    "convolution": (16, lambda model: convolution()),
}


def log_cosh(z, y):
    return torch.log(torch.cosh(z[:, 0] - y))


def risk_of(loss):
    """The reference's risk(z, y, weights) of a loss by name."""

    def custom(z, y, weights):
        rows = torch.log(torch.cosh(z[:, 0] - y))
        return rows.mean() if weights is None else (weights * rows).sum() / weights.sum()

    return custom if loss == "custom" else lambda z, y, w: naive.risk(z, y, loss, w)


# One step of the engine, and the same by double backward.


def batch_of(data, objective, seed=SEED):
    fold = None
    if objective.folds > 1:
        fold = random_folds(data.sizes, 2, torch.Generator().manual_seed(3))
    return Batch(data, fold, seed)


def engine_of(net, loss, objective, **options):
    found = Custom(log_cosh) if loss == "custom" else get_loss(loss)
    return Engine(net, found, objective, **options)


def step(net, batch, objective, hyper=EVERYTHING, loss="logistic", **options):
    """(terms, {name: gradient}) of the trainable parameters."""
    net.zero_grad()
    terms, state = engine_of(net, loss, objective, **options).step(batch, None, hyper)
    assert state is None
    return terms, {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}


def by_double_backward(net, batch, objective, hyper=EVERYTHING, loss="logistic"):
    total = meta.total(objective.bound(hyper), batch, net, risk_of(loss))
    leaves = {n: p for n, p in net.named_parameters() if p.requires_grad}
    grads = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
    return total.detach(), dict(zip(leaves, grads, strict=True))


def distance(got, want):
    """Largest ‖g − w‖ / ‖w‖ over the parameters, Euclidean norms, 0 / 0 = 0."""
    assert got.keys() == want.keys()
    worst = 0.0
    for name, w in want.items():
        error, size = float((got[name] - w).norm()), float(w.norm())
        worst = max(worst, error / size if size else (math.inf if error else 0.0))
    return worst


def agree(net, batch, objective, hyper=EVERYTHING, loss="logistic", tolerance=1e-10, **options):
    terms, got = step(net, batch, objective, hyper, loss, **options)
    total, want = by_double_backward(net, batch, objective, hyper, loss)
    assert float(terms.total) == pytest.approx(float(total), rel=tolerance)
    assert distance(got, want) < tolerance
    return got


# Agreement with double backward.


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("n_envs", SIZES)
@pytest.mark.parametrize("inner_steps", [1, 2, 3])
@pytest.mark.parametrize("dropgrad", [0.0, 0.5])
def test_meta_gradient_is_that_of_double_backward(kind, n_envs, inner_steps, dropgrad, rows, model):
    features, make = MODELS[kind]
    data = rows(sizes=SIZES[n_envs], features=features)
    objective = MetaIRM(inner_steps=inner_steps)
    hyper = EVERYTHING | {"dropgrad": dropgrad}
    agree(make(model), batch_of(data, objective), objective, hyper, micro_batch=16)


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax", "custom"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scheme", ["shared", "separate"])
@pytest.mark.parametrize("pairs", [None, 1])
def test_losses_weights_pairs_and_separate_rows(loss, weighted, scheme, pairs, rows, model):
    kind = "squared" if loss == "custom" else loss
    data, net = rows(kind, SIZES[3], weighted), model(kind)
    objective = MetaIRM(rows=scheme, pairs=pairs, inner_steps=2)
    hyper = EVERYTHING | {"inner_lr": 0.1}
    agree(net, batch_of(data, objective), objective, hyper, loss, micro_batch=7)


OPTIONS = {
    "first order": {"first_order": True},
    "same environment": {"same_environment": True},
    "mean": {"convention": "mean"},
    "normalized": {"rate": "normalized"},
    "last": {"adapts": ("last",)},
    "prefix": {"adapts": ("layers.1",)},
    "two prefixes, one inside": {"adapts": ["layers.0.bias", "layers.2", "layers.2.bias"]},
    "normalized last": {"rate": "normalized", "adapts": ("last",)},
    "first order, mean, pairs": {"first_order": True, "convention": "mean", "pairs": 2},
    "same environment, separate rows": {"same_environment": True, "rows": "separate"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_every_option_agrees(options, inner_steps, rows, model):
    objective = MetaIRM(inner_steps=inner_steps, **options)
    data = rows(sizes=SIZES[3], weights=True)
    agree(model(), batch_of(data, objective), objective, micro_batch=16)


@pytest.mark.parametrize("options", [{"first_order": True}, {"adapts": ("last",)}], ids=str)
def test_options_change_the_gradient(options, rows, model):
    data, net = rows(sizes=SIZES[3]), model()
    _, exact = step(net, batch_of(data, MetaIRM()), MetaIRM(), QUIET)
    _, other = step(net, batch_of(data, MetaIRM()), MetaIRM(**options), QUIET)
    assert distance(other, exact) > 0.01


def test_adapts_takes_whole_names_and_modules_in_the_models_order():
    names = ["body.1.weight", "body.1.bias", "body.10.weight", "body.10.bias", "head"]
    for adapts, expected in (
        ((), names),
        (("body.1",), names[:2]),
        (("head", "body.1.bias"), [names[1], "head"]),
        (("body", "body.10.bias"), names[:4]),
        (("last",), ["head"]),
    ):
        assert MetaIRM(adapts=adapts).adapted(names) == expected


def test_what_the_outputs_do_not_depend_on_has_no_curvature(rows):
    net = smooth()
    net.register_parameter("idle", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    objective = MetaIRM(adapts=("idle",))
    got = agree(net, batch_of(rows(), objective), objective)
    assert got["idle"].tolist() == [0.0, 0.0]


def test_last_adapts_the_classifier_alone(rows, model):
    data, net = rows(), model()
    names = [n for n, _ in net.named_parameters()]
    assert MetaIRM(adapts=("last",)).adapted(names) == ["layers.2.weight", "layers.2.bias"]
    bare = spread(nn.Linear(4, 1))  # Its parameters lie in no module.
    assert MetaIRM(adapts=("last",)).adapted(["weight", "bias"]) == ["weight", "bias"]
    objective = MetaIRM(adapts=("last",))
    _, last = step(bare, batch_of(data, objective), objective)
    _, whole = step(bare, batch_of(data, objective), MetaIRM())
    assert distance(last, whole) == 0


@pytest.mark.parametrize("micro_batch", [1, 5, 16, 1000, None, "auto"])
@pytest.mark.parametrize("memory_budget", [1, 2 << 30])
def test_trap_streamed_is_exact_however_the_rows_are_cut(micro_batch, memory_budget, rows, model):
    data, objective = rows(sizes=SIZES[3], weights=True), MetaIRM(inner_steps=2)
    options = {"micro_batch": micro_batch, "memory_budget": memory_budget}
    agree(model(), batch_of(data, objective), objective, **options)


@pytest.mark.parametrize("options", [{}, {"inner_steps": 3, "rate": "normalized"}], ids=str)
def test_gradients_computed_a_second_time_are_bit_equal_to_kept_ones(options, rows, model):
    data, objective, net = rows(sizes=SIZES[3]), MetaIRM(**options), model()
    kept = step(net, batch_of(data, objective), objective, micro_batch=7)
    again = step(net, batch_of(data, objective), objective, micro_batch=7, memory_budget=1)
    assert torch.equal(kept[0].total, again[0].total)
    assert distance(again[1], kept[1]) == 0


def test_channel_images_agree():
    g = torch.Generator().manual_seed(0)
    parts = {}
    for e, n in enumerate((12, 17)):
        pixels = torch.rand(n, 9, generator=g, dtype=torch.float64)
        channel = torch.randint(0, 2, (n,), generator=g)
        parts[f"e{e}"] = ChannelImages(pixels, channel, 2), torch.randint(0, 2, (n,), generator=g)
    data, objective = Environments.from_parts(parts), MetaIRM(inner_steps=2)
    net = spread(MLP(18, (6,), 1, generator=g))
    got = agree(net, batch_of(data, objective), objective, micro_batch=5)
    dense = data.with_features(data.x.dense())
    assert distance(got, step(net, batch_of(dense, objective), objective)[1]) < 1e-10


ODD = {
    "no forward-mode derivative": lambda: smooth(Cubed()),
    "tied weight": lambda: spread(Tied(module=False)),
    "shared module": lambda: spread(Tied(module=True)),
    "layer norm": lambda: smooth(nn.LayerNorm(6)),
    "group norm": lambda: smooth(nn.GroupNorm(2, 6)),
    "instance norm": lambda: smooth(
        nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2, affine=True), nn.Flatten()
    ),
    "gelu": lambda: smooth(nn.GELU()),
    "max pool": lambda: smooth(nn.Unflatten(1, (2, 3)), nn.MaxPool1d(2, 1), nn.Flatten(), wide=4),
    "recurrent": lambda: spread(Recurrent()),
    "log determinant": lambda: smooth(LogDeterminant(), wide=1),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_any_module_agrees(kind, inner_steps, rows):
    data, objective, net = rows(sizes=SIZES[3]), MetaIRM(inner_steps=inner_steps), ODD[kind]()
    agree(net, batch_of(data, objective), objective, micro_batch=16)


@pytest.mark.parametrize("kind", ["tied weight", "shared module"])
def test_a_step_leaves_the_models_own_parameters_in_it(kind, rows):
    net = ODD[kind]()
    own, values = list(net.parameters()), [p.detach().clone() for p in net.parameters()]
    engine_of(net, "logistic", MetaIRM()).step(Batch(rows()), None, EVERYTHING)
    after = list(net.parameters())
    assert [id(p) for p in after] == [id(p) for p in own]
    assert all(torch.equal(p, value) for p, value in zip(after, values, strict=True))


@pytest.mark.parametrize(("extra", "twice"), [((), 1), ((Cubed,), 3)])  # Once to compare.
def test_reverse_mode_is_used_twice_only_where_forward_mode_fails(extra, twice, rows, monkeypatch):
    monkeypatch.setattr(bilevel, "TAPE_BYTES", 0)
    calls, whole = [], SummedRisk.product
    monkeypatch.setattr(SummedRisk, "product", lambda self, *a: calls.append(1) or whole(self, *a))
    net = smooth(*(kind() for kind in extra))
    step(net, batch_of(rows(sizes=SIZES[3]), MetaIRM()), MetaIRM())
    assert len(calls) == twice


@pytest.mark.parametrize("scheme", ["shared", "separate"])
def test_softmax_inside_the_model_agrees(scheme, rows):
    data, objective = rows("softmax", SIZES[3]), MetaIRM(inner_steps=2, rows=scheme)
    layers = nn.Sequential(
        nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 3), nn.ReLU(), nn.LogSoftmax(1)
    )
    agree(spread(layers), batch_of(data, objective), objective, loss="softmax", micro_batch=9)


@pytest.mark.parametrize("frozen", [["layers.0.weight"], ["layers.2.weight", "layers.2.bias"]])
@pytest.mark.parametrize("adapts", [(), ("last",)])
def test_frozen_parameters_stay_out(frozen, adapts, rows, model):
    data, net = rows(sizes=SIZES[3]), model()
    for name, p in net.named_parameters():
        p.requires_grad_(name not in frozen)
    objective = MetaIRM(adapts=adapts, inner_steps=2)
    before = copy.deepcopy(net.state_dict())
    got = agree(net, batch_of(data, objective), objective)
    assert set(frozen).isdisjoint(got)
    for name, p in net.state_dict().items():
        assert torch.equal(p, before[name])


@pytest.mark.skipif(not kernels.ONEDNN, reason="this CPU takes torch's own path")
@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("channels", [False, True])
def test_float32_through_onednn_agrees_with_float64(inner_steps, channels, rows, monkeypatch):
    data, objective = rows(sizes=(90, 120, 101), features=8), MetaIRM(inner_steps=inner_steps)
    net = spread(MLP(16 if channels else 8, (12, 6), 1, generator=torch.Generator()))
    wide = data
    if channels:
        channel = torch.randint(0, 2, (data.n_rows,), generator=torch.Generator().manual_seed(2))
        wide = data.with_features(ChannelImages(data.x, channel.sort().values, 2))
    # Noise is drawn in the parameters' type, so that of another type is another noise.
    _, want = step(net, batch_of(wide, objective), objective, QUIET)
    narrow, calls, product = wide.with_features(wide.x.to(torch.float32)), [], kernels._product
    monkeypatch.setattr(kernels, "_product", lambda *a: calls.append(1) or product(*a))
    batch = batch_of(narrow, objective)
    terms, got = step(net.float(), batch, objective, QUIET, micro_batch=None)
    assert calls
    assert terms.total.dtype == torch.float64
    assert {g.dtype for g in got.values()} == {torch.float32}
    assert distance({n: g.double() for n, g in got.items()}, want) < 2e-5
    if not channels:
        agree(net, batch, objective, EVERYTHING, tolerance=2e-4, micro_batch=70)


@pytest.mark.parametrize("scheme", ["shared", "separate"])
def test_trap_row_weights_are_divided_by_their_sum(scheme, rows, model):
    data, net = rows(sizes=SIZES[3], weights=True), model()
    objective = MetaIRM(rows=scheme)
    _, want = step(net, batch_of(data, objective), objective)
    scaled = data.weights * torch.tensor([0.01, 5.0, 30.0], dtype=torch.float64)[data.index]
    _, got = step(net, batch_of(replace(data, weights=scaled), objective), objective)
    assert distance(got, want) < 1e-12


def test_trap_odd_and_one_row_halves_are_not_nan(rows, model):
    data, objective = rows(sizes=(2, 3, 5)), MetaIRM(rows="separate", inner_steps=2)
    agree(model(), batch_of(data, objective), objective)


def test_an_inner_step_to_look_at_has_no_noise(rows, model):
    data, net = rows(), model()
    at, risk = trainable(net), Risk(net, get_loss("logistic"), data, 1)
    gradient = risk.gradient(at)[1]
    whole = adapt(risk, MetaIRM(**EVERYTHING), at)
    assert distance(whole, {n: p - 0.7 * gradient[n] for n, p in at.items()}) == 0
    last = adapt(risk, MetaIRM(**EVERYTHING, adapts=("last",), rate="normalized"), at)
    moved = {n: last[n] - p for n, p in at.items()}
    assert math.sqrt(dot(moved, moved)) == pytest.approx(0.7, rel=1e-12)
    assert [n for n, m in moved.items() if m.any()] == ["layers.2.weight", "layers.2.bias"]


def test_gradients_are_added_to_those_already_there(rows, model):
    data, net, objective = rows(), model(), MetaIRM()
    _, once = step(net, batch_of(data, objective), objective)
    engine_of(net, "logistic", objective).step(batch_of(data, objective), None, EVERYTHING)
    twice = {n: p.grad for n, p in net.named_parameters()}
    assert distance(twice, {n: 2 * g for n, g in once.items()}) < 1e-14


def test_terms_hold_risks_before_the_inner_step_and_the_deviation(rows, model):
    data, net = rows(sizes=SIZES[3]), model()
    terms, _ = step(net, batch_of(data, MetaIRM()), MetaIRM(), QUIET)
    losses = []
    for i in range(3):
        risks = [naive.risk(net(x), y, "logistic") for _, x, y in data]
        grads = torch.autograd.grad(risks[i], list(net.parameters()))
        there = copy.deepcopy(net)
        with torch.no_grad():
            for p, g in zip(there.parameters(), grads, strict=True):
                p.sub_(g, alpha=QUIET["inner_lr"])
            others = [part for j, part in enumerate(data) if j != i]
            losses += [naive.risk(there(x), y, "logistic").item() for _, x, y in others]
    assert terms.risks.tolist() == pytest.approx([r.item() for r in risks], rel=1e-12)
    assert float(terms.penalty) == pytest.approx(np.std(losses), rel=1e-10)
    expected = np.sum(losses) + QUIET["std_weight"] * np.std(losses)
    assert float(terms.total) == pytest.approx(expected, rel=1e-12)
    more, _ = step(net, batch_of(data, MetaIRM()), MetaIRM(inner_steps=3), QUIET)
    assert torch.equal(more.risks, terms.risks)


# Descent.


def shift(net, direction, size):
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.add_(direction[name], alpha=size)


def slopes(net, direction, value, size=1e-5):
    """Central difference of value() along a direction."""
    shift(net, direction, size)
    above = value()
    shift(net, direction, -2 * size)
    below = value()
    shift(net, direction, size)
    return (above - below) / (2 * size)


def random_direction(net, seed):
    g = torch.Generator().manual_seed(seed)
    return {
        n: torch.randn(p.shape, generator=g, dtype=p.dtype)
        for n, p in net.named_parameters()
        if p.requires_grad
    }


def dot(a, b):
    return sum(float((a[name] * b[name]).sum()) for name in a)


DESCENTS = {
    "default": ({}, QUIET),
    "dropgrad": ({}, EVERYTHING),
    "three steps, dropgrad": ({"inner_steps": 3}, EVERYTHING),
    "normalized": ({"rate": "normalized", "inner_steps": 2}, EVERYTHING),
    "pairs, separate rows": ({"pairs": 1, "rows": "separate", "inner_steps": 2}, EVERYTHING),
}


@pytest.mark.parametrize("case", DESCENTS)
@pytest.mark.parametrize("extra", [(), (nn.Dropout(0.4),)], ids=["plain", "dropout"])
def test_meta_gradient_is_the_derivative_of_the_objective(case, extra, rows):
    options, hyper = DESCENTS[case]
    net, objective = smooth(*extra), MetaIRM(**options)
    batch = batch_of(rows(sizes=SIZES[3]), objective)

    def value():
        return float(step(net, batch, objective, hyper, micro_batch=9)[0].total)

    _, gradient = step(net, batch, objective, hyper, micro_batch=9)
    for seed in range(2):
        direction = random_direction(net, seed)
        assert slopes(net, direction, value) == pytest.approx(dot(direction, gradient), rel=1e-6)


@pytest.mark.parametrize("case", DESCENTS)
@pytest.mark.parametrize("kind", MODELS)
def test_a_small_step_against_the_gradient_lowers_the_objective(case, kind, rows, model):
    options, hyper = DESCENTS[case]
    features, make = MODELS[kind]
    net, objective = make(model), MetaIRM(**options)
    batch = batch_of(rows(sizes=SIZES[3], features=features), objective)
    before, gradient = step(net, batch, objective, hyper)
    length = math.sqrt(dot(gradient, gradient))
    shift(net, gradient, -1e-4 / length)
    after, _ = step(net, batch, objective, hyper)
    gain = float(before.total - after.total)
    assert gain == pytest.approx(1e-4 * length, rel=0.05)


# Dropout: value, gradient and Hessian product are those of one function.


@pytest.mark.parametrize("extra", [(), (Cubed(),)], ids=["forward mode", "reverse twice"])
def test_dropout_is_replayed_in_gradients_and_hessian_products(extra, rows):
    net, data = smooth(nn.Dropout(0.4), *extra), rows()
    risk = Risk(net, get_loss("logistic"), data, 1, 9, seed=5)
    at, direction = trainable(net), random_direction(net, 0)
    torch.manual_seed(0)  # The global generator must not matter,
    value, gradient = risk.gradient(at)
    product = risk.hessian_product(at, direction)
    before = torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(risk.value(at), value)
    assert distance(risk.gradient(at)[1], gradient) == 0
    assert distance(risk.hessian_product(at, direction), product) == 0
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)  # nor be moved.
    slope = slopes(net, direction, lambda: float(risk.value(trainable(net))))
    assert slope == pytest.approx(dot(direction, gradient), rel=1e-7)

    def moved(size):
        shifted = {n: p + size * direction[n] for n, p in at.items()}
        return risk.gradient(shifted)[1]

    up, down = moved(1e-5), moved(-1e-5)
    assert distance({n: (up[n] - down[n]) / 2e-5 for n in up}, product) < 1e-7


@pytest.mark.parametrize("scheme", ["shared", "separate"])
def test_one_batch_is_one_function_whenever_it_is_evaluated(scheme, rows):
    net, objective = smooth(nn.Dropout(0.4)), MetaIRM(pairs=1, rows=scheme, inner_steps=2)
    batch, found = batch_of(rows(sizes=SIZES[3]), objective), []
    for noise in (1, 2):
        torch.manual_seed(noise)
        found.append(step(net, batch, objective))
    assert torch.equal(found[0][0].total, found[1][0].total)
    assert distance(found[0][1], found[1][1]) == 0


def test_dropout_draws_anew_in_every_micro_batch(rows):
    net, masks = smooth(nn.Dropout(0.4)), []
    net[2].register_forward_hook(lambda _, args, out: masks.append(out == 0))
    Risk(net, get_loss("logistic"), rows(), 0, 10, seed=5).value(trainable(net))
    assert [len(mask) for mask in masks] == [10, 10, 10]
    assert not torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[1], masks[2])


def test_dropout_draws_anew_at_another_seed_and_inner_step(rows):
    net, data = smooth(nn.Dropout(0.4)), rows(sizes=SIZES[3])
    first, second = (
        step(net, batch_of(data, MetaIRM(), seed), MetaIRM(), QUIET)[0] for seed in (1, 2)
    )
    assert float(first.total) != float(second.total)
    masks = []
    hook = net[2].register_forward_hook(lambda _, args, out: masks.append((out == 0).clone()))
    step(net, batch_of(data, MetaIRM(inner_steps=2)), MetaIRM(inner_steps=2), QUIET)
    hook.remove()
    own = [mask for mask in masks if len(mask) == 20][:2]  # e0's first and second inner step.
    assert not torch.equal(*own)


# The rate by curvature.


def curvature_of(risk, leaves):
    """gᵀHg / gᵀg by double backward."""
    grads = torch.autograd.grad(risk, leaves, create_graph=True)
    fixed = [g.detach() for g in grads]
    slope = sum((g * f).sum() for g, f in zip(grads, fixed, strict=True))
    product = torch.autograd.grad(slope, leaves, materialize_grads=True)
    length = sum((f**2).sum() for f in fixed)
    return float(sum((f * h).sum() for f, h in zip(fixed, product, strict=True)) / length)


@pytest.mark.parametrize("adapts", [(), ("last",)])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_curvature_divides_the_rate_and_is_not_differentiated(adapts, inner_steps, rows, model):
    data, net = rows(sizes=SIZES[3], weights=True), model()
    objective = MetaIRM(rate="curvature", adapts=adapts, inner_steps=inner_steps)
    batch = batch_of(data, objective)
    leaves = dict(net.named_parameters())
    over = [leaves[name] for name in objective.adapted(list(leaves))]
    bounds = zip(data.offsets, data.offsets[1:], strict=False)
    mean = np.mean(
        [
            curvature_of(
                naive.risk(net(data.x[a:b]), data.y[a:b], "logistic", data.weights[a:b]), over
            )
            for a, b in bounds
        ]
    )
    fixed = EVERYTHING | {"inner_lr": EVERYTHING["inner_lr"] / mean}
    total, want = by_double_backward(net, batch, objective, fixed)
    net.zero_grad()
    state = objective.init(3, torch.zeros((), dtype=torch.float64))
    engine = engine_of(net, "logistic", objective, micro_batch=16)
    terms, state = engine.step(batch, state, EVERYTHING)
    assert state.tolist() == pytest.approx([1, mean, mean], rel=1e-10)
    assert terms.total.item() == pytest.approx(total.item(), rel=1e-10)
    assert distance({n: p.grad for n, p in leaves.items()}, want) < 1e-9


def test_curvature_is_measured_again_every_few_steps_and_has_a_floor(rows, model):
    net, objective = model(), MetaIRM(rate="curvature")
    engine, batch = engine_of(net, "logistic", objective), Batch(rows(sizes=SIZES[3]))

    def after(*state):
        return engine.step(batch, torch.tensor(state, dtype=torch.float64), QUIET)[1].tolist()

    _, now, first = after(0.0, 0.0, 0.0)
    assert now == first > 0
    for step_number in range(1, CURVATURE_EVERY):
        assert after(step_number, 5.0, 3.0) == [step_number + 1, 5.0, 3.0]
    kept = torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)
    used, _ = engine.step(batch, kept, QUIET)
    slower, _ = step(net, batch, MetaIRM(), QUIET | {"inner_lr": QUIET["inner_lr"] / 5.0})
    assert torch.equal(used.total, slower.total)
    assert after(CURVATURE_EVERY, 5.0, now) == [CURVATURE_EVERY + 1, now, now]
    floored = after(CURVATURE_EVERY, 5.0, 100 * now)
    assert floored[1:] == pytest.approx([CURVATURE_FLOOR * 100 * now, 100 * now])


# Scale.


def test_pairs_are_drawn_evenly_and_without_replacement():
    objective, counts = MetaIRM(pairs=2), torch.zeros(5, 5)
    for seed in range(2000):
        pairs = objective.draw_pairs(5, torch.Generator().manual_seed(seed))
        assert len(set(pairs)) == len(pairs) == 10
        for i, j in pairs:
            counts[i, j] += 1
    assert counts.diagonal().sum() == 0
    others = counts[~torch.eye(5, dtype=torch.bool)]
    assert (others - 1000).abs().max() < 5 * math.sqrt(2000 * 0.5 * 0.5)


def test_sampled_pairs_have_the_scale_of_all_pairs(rows, model):
    data, net = rows(sizes=(6, 9, 7, 8, 5)), model(hidden=())
    hyper = QUIET | {"std_weight": 0.0}
    whole, gradient = step(net, batch_of(data, MetaIRM()), MetaIRM(), hyper)
    objective, totals, along = MetaIRM(pairs=1), [], []
    for seed in range(120):
        terms, sampled = step(net, batch_of(data, objective, seed), objective, hyper)
        totals.append(float(terms.total))
        along.append(dot(sampled, gradient))
    for drawn, wanted in ((totals, float(whole.total)), (along, dot(gradient, gradient))):
        error = np.std(drawn) / math.sqrt(len(drawn))
        assert 0 < error < 0.05 * abs(wanted)
        assert abs(np.mean(drawn) - wanted) < 4 * error


@pytest.mark.parametrize("n_envs", SIZES)
def test_all_pairs_by_number_are_all_pairs(n_envs, rows, model):
    data, net = rows(sizes=SIZES[n_envs]), model()
    sampled = MetaIRM(pairs=n_envs - 1)
    g = torch.Generator().manual_seed(0)
    assert sampled.draw_pairs(n_envs, g) == MetaIRM().draw_pairs(n_envs, g)
    terms, got = step(net, batch_of(data, sampled), sampled, QUIET)
    whole, want = step(net, batch_of(data, MetaIRM()), MetaIRM(), QUIET)
    assert torch.equal(terms.total, whole.total)
    assert distance(got, want) == 0


@pytest.mark.parametrize("copies", [2, 3, 6])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_trap_deviation_zero_has_gradient_zero_not_nan(copies, inner_steps, rows, model):
    _, x, y = next(iter(rows(sizes=(30,))))
    data = Environments.from_parts({f"e{e}": (x, y) for e in range(copies)})
    net, objective = model(), MetaIRM(inner_steps=inner_steps)
    terms, got = step(net, batch_of(data, objective), objective, QUIET | {"std_weight": 100.0})
    plain, want = step(net, batch_of(data, objective), objective, QUIET | {"std_weight": 0.0})
    assert float(terms.penalty) < 1e-15
    assert float(terms.total) == pytest.approx(float(plain.total), rel=1e-12)
    assert all(bool(torch.isfinite(g).all()) for g in got.values())
    assert distance(got, want) < 1e-12


@pytest.mark.parametrize("n", [2, 6, 42])
@pytest.mark.parametrize("loss", [0.1, 0.7, 1 / 3, 2.3])
def test_trap_deviation_of_equal_losses_is_zero_and_so_is_its_slope(loss, n):
    losses = torch.full((n,), loss, dtype=torch.float64, requires_grad=True)
    terms = MetaIRM(**QUIET).value(losses, losses, 3)
    (slope,) = torch.autograd.grad(terms.penalty, losses)
    assert terms.penalty.item() < 1e-15  # The mean of equal numbers may be rounded.
    assert slope.tolist() == [0.0] * n


# Trainer.


def parameters(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def assert_same(first, second):
    """Bit for bit: parameters and history."""
    for a, b in zip(parameters(first), parameters(second), strict=True):
        assert torch.equal(a, b)
    one, two = first.run(until=first.step), second.run(until=second.step)
    pd.testing.assert_frame_equal(one.history, two.history, check_exact=True)


def trainer_of(net, data, objective=None, *, loss="logistic", seed=0, **settings):
    return Trainer(
        net,
        data,
        objective or MetaIRM(),
        loss,
        settings=Settings(**{"steps": 8, "lr": 0.01, "evaluate_every": 4, **settings}),
        seed=seed,
    )


RUNS = {
    "dropgrad": (MetaIRM(), {}),
    "pairs": (MetaIRM(pairs=1), {"batch_size": 16}),
    "separate rows": (MetaIRM(rows="separate"), {}),
    "curvature": (MetaIRM(rate="curvature"), {"batch_size": 16, "steps": 14}),
    "everything": (MetaIRM(rows="separate", pairs=1, inner_steps=2), {"batch_size": 16}),
}


@pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")
@pytest.mark.parametrize("kind", RUNS)
class TestRuns:
    """Reruns, resuming and other seeds, with all that is drawn within a step."""

    def make(self, kind, learnable, net, *, seed=5, start=0, **more):
        objective, settings = RUNS[kind]
        model = net(seed=start)
        if kind == "everything":
            model = nn.Sequential(nn.Dropout(0.3), model)
        data = learnable((30, 40, 24))
        return trainer_of(model, data, objective, seed=seed, **{**settings, **more})

    def test_reruns_with_equal_seeds_are_bit_identical(self, kind, learnable, net):
        trainers = []
        for noise in (1, 2):
            torch.manual_seed(noise)  # The global generator must not matter.
            trainers.append(self.make(kind, learnable, net))
            trainers[-1].run()
        assert_same(*trainers)

    def test_trap_resuming_equals_going_on(self, kind, learnable, net):
        straight = self.make(kind, learnable, net)
        straight.run()
        stopped = self.make(kind, learnable, net)
        stopped.run(until=3)
        resumed = self.make(kind, learnable, net, start=9)
        resumed.load_state_dict(stopped.state_dict())
        run = resumed.run()
        assert (run.stop_reason, run.steps) == ("finished", straight.step)
        assert_same(resumed, straight)

    def test_other_seeds_draw_otherwise(self, kind, learnable, net):
        first, second = (self.make(kind, learnable, net, seed=seed) for seed in (0, 1))
        first.run(), second.run()
        assert not torch.equal(parameters(first)[0], parameters(second)[0])

    def test_the_global_generators_are_left_alone(self, kind, learnable, net):
        trainer = self.make(kind, learnable, net, steps=2)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        trainer.run()
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_each_step_draws_anew(learnable, net):
    frozen = trainer_of(net(), learnable((20, 30, 25)), MetaIRM(pairs=1), steps=4, lr=1e-30)
    with pytest.warns(UserWarning, match="collapsed"):
        totals = frozen.run().history["total"]
    assert totals.nunique() == 4


@pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")
def test_trap_micro_batches_are_not_steps(learnable, net):
    runs = [trainer_of(net(), learnable(), steps=4, micro_batch=size).run() for size in (None, 7)]
    for run in runs:
        assert run.steps == len(run.history) == 4
    pd.testing.assert_frame_equal(runs[0].history, runs[1].history, rtol=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("options", [{}, {"inner_steps": 2, "rows": "separate", "pairs": 1}])
def test_meta_irm_learns(options, learnable, net):
    data = learnable((40, 60, 50))
    run = trainer_of(net(), data, MetaIRM(**options), steps=60, lr=0.03).run()
    assert (run.stop_reason, run.messages) == ("finished", ())
    risks = run.history[[name for name in run.history if name.startswith("risk")]].mean(axis=1)
    assert risks.iloc[-1] < 0.85 * risks.iloc[0]
    assert risks.iloc[-1] < 0.95 * math.log(2)
    assert (run.history["penalty_weight"] == MetaIRM().std_weight).all()


@pytest.mark.parametrize(("inner_lr", "dtype"), [(1e30, torch.float32), (1e200, torch.float64)])
def test_divergence_names_environment_step_and_inner_lr(inner_lr, dtype, learnable, net):
    data = learnable((20, 30), "squared")
    data = data.with_features(data.x.to(dtype))
    model = net().to(dtype)
    start = copy.deepcopy(model.state_dict())
    trainer = trainer_of(model, data, MetaIRM(inner_lr=inner_lr), loss="squared")
    text = (
        f"meta-IRM diverged at step 0: adapted to environment 'e0' with inner_lr={inner_lr:g}, the "
        "predictor's loss or its gradient is not a finite number. Lower inner_lr. "
        "The model is the one of step 0."
    )
    with pytest.warns(DivergenceWarning) as caught:
        run = trainer.run()
    assert [str(w.message) for w in caught] == [text]
    assert (run.stop_reason, run.steps, run.messages, len(run.history)) == (
        "diverged",
        0,
        (text,),
        0,
    )
    for name, p in run.model.state_dict().items():
        assert torch.equal(p, start[name])


def test_divergence_later_names_the_later_step_and_keeps_a_finite_model(learnable, net):
    data = learnable((20, 30), "squared")
    data = data.with_features(data.x.float())
    settings = {"objective": MetaIRM(0.5), "optimizer": "SGD", "lr": 1e30, "evaluate_every": 1}
    trainer = trainer_of(net().float(), data, loss="squared", **settings)
    with pytest.warns(DivergenceWarning, match=r"^meta-IRM diverged at step 1: adapted to"):
        run = trainer.run()
    assert (run.stop_reason, run.steps) == ("diverged", 1)
    assert "adapted to environment 'e0' with inner_lr=0.5, " in run.messages[0]
    assert run.messages[0].endswith("Lower inner_lr. The model is the one of step 0.")
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_a_diverged_step_leaves_no_gradient(rows, model):
    net = model("squared")
    engine = engine_of(net, "squared", MetaIRM(inner_lr=1e200))
    with pytest.raises(
        DivergenceError, match=r"^adapted to environment 'e0' with inner_lr=1e\+200"
    ):
        engine.step(Batch(rows("squared")), None)
    assert all(p.grad is None for p in net.parameters())


# What is refused.


def test_one_environment_is_refused(learnable, net):
    with pytest.raises(
        EnvironmentsError,
        match=r"meta-IRM needs at least 2 training environments, got 1 \(e0\)\. .*objective 'erm'",
    ):
        trainer_of(net(), learnable((40,)))


@pytest.mark.parametrize("rate", [1.0, 1.5])
def test_dropgrad_of_one_and_more_is_refused(rate, learnable, net):
    text = (
        rf"Expected the DropGrad rate in \[0, 1\), got {rate}: the noise's variance p / \(1 − p\) "
        r"has no bound at 1\. Use 0\.5, or 0 for none\."
    )
    with pytest.raises(OptionError, match=text):
        MetaIRM(dropgrad=rate)


@pytest.mark.parametrize("field", MetaIRM().numbers)
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_hyperparameters_outside_their_domain_are_refused(field, value, learnable, net):
    text = rf"Expected {field} of meta-IRM to be a finite number, 0 or more, got {value}\."
    with pytest.raises(OptionError, match=text):
        MetaIRM(**{field: value})


def test_no_inner_step_is_refused(learnable, net):
    with pytest.raises(
        OptionError,
        match=r"Expected a positive inner_lr of meta-IRM, got 0\.0\. Without an inner step it is "
        r"ERM: use the objective 'erm'\.",
    ):
        MetaIRM(inner_lr=0.0)


@pytest.mark.parametrize("name", ["inner_steps", "pairs"])
@pytest.mark.parametrize("value", [0, -1, 1.0, "2"])
def test_counts_below_one_or_not_whole_are_refused(name, value):
    text = rf"Expected {name} of meta-IRM to be a whole number of 1 or more, got {value!r}\."
    with pytest.raises(OptionError, match=text):
        MetaIRM(**{name: value})


def test_more_pairs_than_other_environments_are_refused(learnable, net):
    with pytest.raises(
        OptionError,
        match=r"Expected at most 2 pairs for each of 3 environments, got pairs=3\. Lower it, or "
        r"leave it out to take all\.",
    ):
        trainer_of(net(), learnable((10, 12, 14)), MetaIRM(pairs=3))


def test_pairs_with_the_same_environment_are_refused():
    with pytest.raises(
        OptionError, match=r"Expected no pairs to draw with same_environment: j = i is one pair\."
    ):
        MetaIRM(pairs=1, same_environment=True)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(
        UnknownNameError,
        match=r"Unknown row scheme of meta-IRM 'seperate'\. Did you mean 'separate'\? "
        r"Known: separate, shared\.",
    ):
        MetaIRM(rows="seperate")
    with pytest.raises(
        UnknownNameError,
        match=r"Unknown inner rate 'normalised'\. Did you mean 'normalized'\? "
        r"Known: curvature, fixed, normalized\.",
    ):
        MetaIRM(rate="normalised")
    with pytest.raises(
        UnknownNameError,
        match=r"Unknown convention 'sums'\. Did you mean 'sum'\? Known: mean, sum\.",
    ):
        MetaIRM(convention="sums")


def test_adapts_as_a_bare_string_is_refused():
    with pytest.raises(
        OptionError,
        match=r"Expected adapts of meta-IRM to be a tuple of names, got the string 'last'\. "
        r"Write adapts=\('last',\)\.",
    ):
        MetaIRM(adapts="last")


@pytest.mark.parametrize("adapts", [("layer",), ("layers.1", "head")])
def test_adapts_that_fits_nothing_lists_the_names(adapts, learnable, net):
    text = (
        rf"Expected names of parameters or modules in adapts, '{adapts[-1]}' fits none of: "
        r"layers\.0\.weight, layers\.0\.bias, layers\.1\.weight, layers\.1\.bias\."
    )
    with pytest.raises(OptionError, match=text):
        trainer_of(net(), learnable(), MetaIRM(adapts=adapts))


@pytest.mark.parametrize("micro_batch", ["auto", None, 8])
def test_trap_batch_norm_inside_the_inner_loop_is_refused(micro_batch):
    net = smooth(nn.BatchNorm1d(6))
    with pytest.raises(
        OptionError,
        match=r"^Layer '2' is a batch norm: its statistics would change because meta-IRM forwards "
        r"only some rows at a time\. Use group or layer norm\.$",
    ):
        engine_of(net, "logistic", MetaIRM(), micro_batch=micro_batch)


def test_separate_rows_without_folds_are_refused(rows, model):
    engine = engine_of(model(), "logistic", MetaIRM(rows="separate"))
    with pytest.raises(OptionError, match=r"meta-IRM asks for 2 folds; the batch has none\."):
        engine.step(Batch(rows()), None, EVERYTHING)


def test_one_row_for_two_halves_is_refused_with_meta_irms_own_remedy(learnable, net):
    trainer = trainer_of(net(), learnable(), MetaIRM(rows="separate"), batch_size=1)
    with pytest.raises(OptionError, match="Expected at least 2 rows of every environment") as e:
        trainer.run()
    assert "rows='shared'" in str(e.value)


def test_trap_weights_that_sum_to_zero_are_refused(rows, model):
    data, objective = rows(sizes=(6, 6), weights=True), MetaIRM(rows="separate")
    batch = batch_of(data, objective)
    data.weights[:6][batch.fold[:6] == 1] = 0.0
    with pytest.raises(OptionError, match="Expected a positive sum of row weights"):
        step(model(), batch, objective)


def test_inner_steps_none_is_refused():
    with pytest.raises(OptionError, match=r"Expected inner_steps .* whole number .* got None"):
        MetaIRM(inner_steps=None)


@pytest.mark.parametrize("budget", [0, 12_000, 1 << 30])
def test_kept_graphs_change_nothing_but_the_way(budget, rows, monkeypatch):
    objective, data = MetaIRM(inner_steps=2), rows(sizes=SIZES[3])
    kept, original = [], Risk.taped_gradient

    def taped(self, *args):
        total, tape = original(self, *args)
        kept.append(len(tape.kept))
        return total, tape

    monkeypatch.setattr(bilevel, "TAPE_BYTES", budget)
    monkeypatch.setattr(Risk, "taped_gradient", taped)
    agree(smooth(), batch_of(data, objective), objective, micro_batch=8)
    parts = [-(-n // 8) for n in SIZES[3]]
    if budget == 0:
        assert not any(kept)
    elif budget == 1 << 30:
        assert kept[: len(parts)] == parts
    else:
        assert 0 < sum(kept) < sum(parts)
