"""meta-IRM on a batch of one's own: both levels as one graph, against the engine's products."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conftest import make_model, make_rows
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.losses import get_loss
from invlearn.means import random_folds
from invlearn.objectives.meta_irm import MetaIRM
from invlearn.training import Batch, Engine

SIZES = (15, 21, 12)

OPTIONS = {
    "noise": {},
    "no noise": {"dropgrad": 0.0},
    "steps": {"inner_steps": 3},
    "pairs": {"pairs": 1},
    "first order": {"first_order": True},
    "same": {"same_environment": True},
    "the classifier": {"adapts": ("last",)},
    "mean": {"convention": "mean"},
    "normalized": {"rate": "normalized", "inner_lr": 0.3},
    "curvature": {"rate": "curvature", "inner_lr": 0.9, "inner_steps": 2},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("loss", ["logistic", "softmax"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_has_the_engines_gradient(name, loss, weighted):
    objective, net = MetaIRM(**OPTIONS[name]), make_model(loss)
    rows = make_rows(loss, SIZES, weighted)
    state, memory = objective.init(3, torch.zeros(())), objective.begin(rows.names)
    engine = Engine(net, get_loss(loss), objective)
    for seed in range(2):
        net.zero_grad()
        terms, state = engine.step(Batch(rows, seed=seed), state)
        wanted = [p.grad.clone() for p in net.parameters()]
        net.zero_grad()
        total = objective.on_model(
            net,
            rows.x,
            rows.y,
            rows.index.tolist() if state is None else [f"e{e}" for e in rows.index],
            loss=loss,
            weights=rows.weights,
            memory=None if state is None else memory,
            generator=torch.Generator().manual_seed(seed),
        )
        total.backward()
        torch.testing.assert_close(total.detach(), terms.total)
        for p, want in zip(net.parameters(), wanted, strict=True):
            torch.testing.assert_close(p.grad, want, rtol=1e-9, atol=1e-10)
        if state is not None:
            torch.testing.assert_close(memory.state, state)


def test_rows_may_be_parted_between_the_levels():
    objective, net, rows = MetaIRM(rows="separate", dropgrad=0.0), make_model(), make_rows()
    fold = random_folds(rows.sizes, 2, torch.Generator().manual_seed(0))
    terms, _ = Engine(net, get_loss("logistic"), objective).step(Batch(rows, fold), None)
    wanted = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    generator = torch.Generator().manual_seed(0)
    total = objective.on_model(
        net, rows.x, rows.y, rows.index, loss="logistic", generator=generator
    )
    total.backward()
    torch.testing.assert_close(total.detach(), terms.total)
    for p, want in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_its_value_is_to_be_had_where_nothing_is_learned(mode):
    objective, net, rows = MetaIRM(dropgrad=0.0), make_model(), make_rows()
    total = objective.on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    with mode():
        looked_at = objective.on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    assert looked_at == total.detach()
    assert not looked_at.requires_grad


def test_its_strength_and_the_global_generator():
    net, rows, found = make_model(), make_rows(), []
    for objective, strength in ((MetaIRM(), 5.0), (MetaIRM(std_weight=5.0), None)):
        torch.manual_seed(0)
        total = objective.on_model(
            net, rows.x, rows.y, rows.index, loss="logistic", strength=strength
        )
        found.append(total.detach())
    assert found[0] == found[1]


def test_batch_norm_has_to_be_frozen():
    rows = make_rows()
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1)).double()
    with pytest.raises(OptionError, match=r"Layer '1' is a batch norm: .* or freeze"):
        MetaIRM().on_model(net, rows.x, rows.y, rows.index, loss="logistic")
    net.get_submodule("1").eval()
    MetaIRM().on_model(net, rows.x, rows.y, rows.index, loss="logistic").backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"inputs": [[0.0] * 4] * 71}, OptionError, r"inputs as a tensor \[n, \.\.\.\], .* a list"),
        ({"inputs": torch.zeros(9, 4).double()}, EnvironmentsError, "'inputs': 9, 'targets': 71"),
        ({"environments": [0] * 71}, EnvironmentsError, "meta-IRM needs rows of at least 2"),
        ({"loss": "softmax"}, OptionError, "two outputs for the softmax loss"),
        ({"forward": lambda x: (x[:, :1], x)}, OptionError, r"or \[n, k\], got a tuple\. Flatten"),
        ({"loss": lambda z, y: z[:, 0] / (y > 0)}, OptionError, "finite losses from '<lambda>'"),
        ({"strength": -1.0}, OptionError, "0 or more, got -1"),
        ({"weights": [1.0] * 30 + [0.0] * 41}, OptionError, "got 0 in environment '1'"),
    ],
)
def test_batches_that_do_not_fit_are_refused(options, error, text):
    rows = make_rows()
    given = {"inputs": rows.x, "targets": rows.y, "environments": rows.index, "loss": "logistic"}
    given |= options
    net = make_model()
    net.forward = given.pop("forward", net.forward)
    with pytest.raises(error, match=text):
        MetaIRM().on_model(net, **given)


def test_a_rate_that_follows_the_curvature_has_to_be_carried():
    rows = make_rows()
    with pytest.raises(OptionError, match="meta-IRM carries a state from batch to batch"):
        MetaIRM(rate="curvature").on_model(
            make_model(), rows.x, rows.y, rows.index, loss="logistic"
        )
