"""Groups of rows beside environments, for the objectives that read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from invlearn.environments import by_label, with_groups
from invlearn.errors import OptionError, UnknownNameError
from invlearn.losses import get_loss
from invlearn.objectives.base import MeanObjective, Outer, Terms
from invlearn.objectives.group_dro import GroupDRO
from invlearn.training import Batch, Engine, Settings, Trainer, train_many
from invlearn.training.alike import fitting
from reference import naive


@dataclass(frozen=True)
class Products(MeanObjective):
    """Outer products of features and outputs, by group."""

    title, summary, source = "products", "For tests.", ""
    reads_features, reads_groups = True, True

    def moments(self, loss, z, y, h):
        return {"risk": loss.value(z, y), "outer": Outer(z, h)}

    def value(self, means, state):
        total = (means["outer"].square().sum((1, 2)) + means["risk"]).sum()
        return Terms(total, means["environment_risk"], total.detach()), state


def assert_gradient(net, total, tolerance):
    wanted = torch.autograd.grad(total, [*net.parameters()])
    for p, g in zip(net.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=tolerance, atol=1e-11)


def slow_risks(data, net):
    """Risks of the groups that have rows, by their numbers; loops over rows."""
    losses = naive.row_losses(net(data.x), data.y, "logistic")
    weights = torch.ones(data.n_rows) if data.weights is None else data.weights
    found = {}
    for g in sorted(set(data.groups.tolist())):
        own = [(weights[i], losses[i]) for i in range(data.n_rows) if data.groups[i] == g]
        found[g] = sum(w * value for w, value in own) / sum(w for w, _ in own)
    return found


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("micro_batch", [None, 7])
def test_weights_are_those_of_groups_and_an_absent_one_counts_for_nothing(
    weighted, micro_batch, rows, model
):
    net, data = model(), by_label(rows(sizes=(30, 41), weights=weighted))
    assert data.group_names == ("0 in e0", "0 in e1", "1 in e0", "1 in e1")
    absent = data.take([torch.nonzero(data.y[:30] == 0)[:, 0], torch.arange(41)])
    assert set(absent.groups.tolist()) == {0, 1, 3}
    log_q = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).log()
    objective = GroupDRO(0.7, over="groups")
    engine = Engine(net, get_loss("logistic"), objective, micro_batch=micro_batch)
    for batch in (data, absent):
        net.zero_grad()
        terms, new = engine.step(Batch(batch), log_q)
        risks, q = slow_risks(batch, net), log_q.exp()
        for g, risk in risks.items():
            q[g] = q[g] * torch.exp(0.7 * risk.detach())
        q = q / q.sum()
        total = sum(q[g] * risk for g, risk in risks.items())
        torch.testing.assert_close(terms.total, total.detach(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(new.exp(), q, rtol=1e-12, atol=1e-12)
        assert_gradient(net, total, 1e-10)
        for e, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            w = None if batch.weights is None else batch.weights[a:b]
            own = naive.risk(net(batch.x[a:b]), batch.y[a:b], "logistic", w)
            assert float(terms.risks[e]) == pytest.approx(float(own.detach()), rel=1e-12)


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_outer_products_by_group_equal_their_loop(micro_batch, rows, model):
    net, data = model(), by_label(rows(sizes=(20, 26)))
    engine = Engine(net, get_loss("logistic"), Products(), micro_batch=micro_batch)
    terms, _ = engine.step(Batch(data), None)
    h = torch.relu(net.layers[1](torch.relu(net.layers[0](data.x))))
    z, total = net(data.x), sum(slow_risks(data, net).values())
    for g in range(4):
        own = [i for i in range(data.n_rows) if data.groups[i] == g]
        total = total + (sum(torch.outer(z[i], h[i]) for i in own) / len(own)).square().sum()
    torch.testing.assert_close(terms.total, total.detach(), rtol=1e-11, atol=1e-12)
    assert_gradient(net, total, 1e-9)


@pytest.mark.filterwarnings("ignore::invlearn.errors.CollapseWarning")  # Eight steps.
@pytest.mark.parametrize("batch_size", [None, 5])  # Five rows leave some groups out.
def test_stacked_equals_alone(batch_size, rows, model):
    def trainers():
        settings = Settings(steps=8, lr=0.01, batch_size=batch_size, evaluate_every=8)
        return [
            Trainer(
                model("squared", seed=r),
                with_groups(rows("squared", seed=r), torch.arange(71) % 5),
                GroupDRO(0.5, over="groups"),
                "squared",
                settings=settings,
                seed=r,
            )
            for r in range(3)
        ]

    assert all(fitting(trainers()))
    alone = [trainer.run() for trainer in trainers()]
    together = train_many(trainers(), arrangement="stacked")
    for one, other in zip(together, alone, strict=True):
        assert list(one.history) == list(other.history)
        for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


def test_rows_without_groups_and_an_unknown_kind_are_refused(rows, model):
    with pytest.raises(OptionError, match=r"Expected rows with groups for GroupDRO .*by_label"):
        Trainer(model(), rows(), GroupDRO(over="groups"), "logistic")
    with pytest.raises(UnknownNameError, match=r"kind of group 'group'\. Did you mean 'groups'"):
        replace(GroupDRO(), over="group")
