"""Evaluation: every number by hand, every environment on its own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import batches, evaluate, forward
from invlearn.losses import Custom, Logistic, Softmax, Squared, get_loss


class Scale(nn.Module):
    """Outputs the features times 2, so that numbers can be worked out by hand."""

    def forward(self, x):
        return 2 * x


class Breaks(nn.Module):
    def forward(self, x):
        raise RuntimeError("broken on purpose")


def table(model, sets, loss):
    rows = evaluate(model, sets, loss)
    found = {(m.environment, m.split, m.metric): m.value for m in rows}
    assert len(found) == len(rows)
    return found


def regression(split="test"):
    envs = Environments.from_parts(
        {"a": ([1.0, 2.0], [1.0, 1.0]), "b": ([0.0, 1.0, -1.0], [1.0, 2.0, 1.0])}
    )
    return EvaluationSet.from_environments(envs, split)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_regression_metrics_are_those_worked_out_by_hand():
    got = table(Scale(), [regression()], Squared())
    # z = (2, 4) against (1, 1), and z = (0, 2, -2) against (1, 2, 1).
    assert got == {
        ("a", "test", "risk"): pytest.approx((1 + 9) / 2),
        ("a", "test", "dummy_gradient_norm"): pytest.approx((2 * 2 * 1 + 2 * 4 * 3) / 2),
        ("b", "test", "risk"): pytest.approx((1 + 0 + 9) / 3),
        ("b", "test", "dummy_gradient_norm"): pytest.approx((0 + 0 + 2 * 2 * 3) / 3),
    }


def test_a_regression_has_no_accuracy():
    for loss in (Squared(), Custom(lambda z, y: (z[:, 0] - y).abs())):
        metrics = {m.metric for m in evaluate(Scale(), [regression()], loss)}
        assert metrics == {"risk", "dummy_gradient_norm"}


def test_logistic_metrics_are_those_worked_out_by_hand():
    envs = Environments.from_parts({"e": ([0.5, -1.0, 1.5], [1, 0, 0])})
    got = table(Scale(), [EvaluationSet.from_environments(envs, "test")], Logistic())
    losses = [-math.log(sigmoid(1)), -math.log(1 - sigmoid(-2)), -math.log(1 - sigmoid(3))]
    dummies = [1 * (sigmoid(1) - 1), -2 * sigmoid(-2), 3 * sigmoid(3)]
    assert got == {
        ("e", "test", "accuracy"): pytest.approx(2 / 3),
        ("e", "test", "risk"): pytest.approx(sum(losses) / 3),
        ("e", "test", "dummy_gradient_norm"): pytest.approx(abs(sum(dummies)) / 3),
    }


def test_norm_of_several_dummies_is_euclidean():
    x = torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.5, -0.4]])
    envs = Environments.from_parts({"e": (x, [0, 1])})
    data = EvaluationSet.from_environments(envs, "test")
    z = 2 * x.double()
    d = (z * (z.softmax(1) - torch.eye(3)[[0, 1]].double())).mean(0)
    per_class = table(Scale(), [data], Softmax(dummy="per-class"))
    scalar = table(Scale(), [data], Softmax())
    key = ("e", "test", "dummy_gradient_norm")
    assert per_class[key] == pytest.approx(float(d.square().sum().sqrt()))
    assert scalar[key] == pytest.approx(abs(float(d.sum())))


def test_validation_rows_alone_have_what_selection_rules_need():
    sets = [regression(split) for split in ("train", "validation", "test", "left-out")]
    got = table(Scale(), sets, Squared())
    extra = {key for key in got if key[2] in ("constant_risk", "risk_standard_error")}
    assert extra == {
        (name, "validation", metric)
        for name in ("a", "b")
        for metric in ("constant_risk", "risk_standard_error")
    }
    assert got["a", "validation", "constant_risk"] == 0
    assert got["b", "validation", "constant_risk"] == pytest.approx(2 / 9)
    assert got["a", "validation", "risk_standard_error"] == pytest.approx(4 / math.sqrt(2))
    deviations = [(v - 10 / 3) ** 2 for v in (1, 0, 9)]
    assert got["b", "validation", "risk_standard_error"] == pytest.approx(
        math.sqrt(sum(deviations) / 3) / math.sqrt(3)
    )


def test_the_standard_error_of_a_single_row_is_finite():
    envs = Environments.from_parts({"e": ([1.0], [1.0])}, min_rows=1)
    got = table(Scale(), [EvaluationSet.from_environments(envs, "validation")], Squared())
    assert got["e", "validation", "risk_standard_error"] == 0


def test_environments_that_share_rows_pick_their_own():
    x = torch.tensor([[1.0], [2.0], [-3.0]])
    data = EvaluationSet(
        x,
        ("all", "some", "twice"),
        (torch.arange(3), torch.tensor([2, 0]), torch.tensor([1, 1, 1, 0])),
        (torch.tensor([1, 0, 0]), torch.tensor([1, 1]), torch.tensor([1, 1, 0, 0])),
        "test",
    )
    got = table(Scale(), [data], Logistic())
    assert got["all", "test", "accuracy"] == pytest.approx(2 / 3)
    assert got["some", "test", "accuracy"] == pytest.approx(1 / 2)
    assert got["twice", "test", "accuracy"] == pytest.approx(2 / 4)
    assert got["some", "test", "risk"] == pytest.approx(
        (-math.log(sigmoid(-6)) - math.log(sigmoid(2))) / 2
    )


def test_shared_rows_are_forwarded_once():
    seen = []

    class Counts(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x

    rows = (torch.arange(4), torch.arange(4))
    targets = (torch.zeros(4), torch.ones(4))
    data = EvaluationSet(torch.zeros(4, 1), ("p", "q"), rows, targets, "test")
    evaluate(Counts(), [data], Squared())
    assert seen == [4]


def test_trap_unequal_environments_are_each_reported_never_the_last_as_their_mean():
    sizes = {"small": 2, "middle": 7, "large": 40}
    parts = {
        name: (torch.full((n, 1), float(i)), torch.zeros(n))
        for i, (name, n) in enumerate(sizes.items(), start=1)
    }
    envs = Environments.from_parts(parts)
    rows = evaluate(Scale(), [EvaluationSet.from_environments(envs, "test")], Squared())
    risks = [(m.environment, m.value) for m in rows if m.metric == "risk"]
    assert risks == [("small", 4.0), ("middle", 16.0), ("large", 36.0)]


def test_means_are_taken_in_double_precision():
    n = 3_000
    x = torch.full((n, 1), 1000.0)
    envs = Environments.from_parts({"e": (x, torch.full((n,), 2000.1, dtype=torch.float64))})
    got = table(Scale(), [EvaluationSet.from_environments(envs, "test")], Squared())
    assert got["e", "test", "risk"] == pytest.approx(0.01, rel=1e-8)


# Running the model.


@pytest.mark.parametrize("training", [True, False])
def test_forward_runs_in_evaluation_mode_and_restores_the_models(training):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1)).train(training)
    x = torch.ones(50, 3)
    assert forward(model, x).unique().numel() == 1
    assert model.training is training
    assert model[0].training is training


def test_training_mode_is_restored_after_an_error():
    model = Breaks().train()
    with pytest.raises(RuntimeError, match="broken on purpose"):
        forward(model, torch.ones(2, 1))
    assert model.training


@pytest.mark.parametrize("limit", ["BATCH_ROWS", "BATCH_VALUES"])
def test_forward_in_pieces_is_forward_at_once_and_keeps_no_graph(limit, monkeypatch):
    model = nn.Linear(3, 2).double()
    x = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = forward(model, x)
    assert not whole.requires_grad
    monkeypatch.setattr(f"invlearn.evaluation.{limit}", 4)
    sizes = [len(part) for part in batches(x)]
    assert sizes == ([4, 4, 3] if limit == "BATCH_ROWS" else [1] * 11)
    torch.testing.assert_close(forward(model, x), whole, rtol=1e-14, atol=1e-14)


def test_frozen_parts_of_a_model_stay_frozen():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 1))
    model[0].eval()
    forward(model, torch.ones(3, 2))
    assert [module.training for module in model] == [False, True]


def test_row_weights_count():
    x = torch.tensor([[0.0], [2.0], [4.0]], dtype=torch.float64)
    envs = Environments.from_parts({"a": (x, torch.zeros(3), torch.tensor([1.0, 0.0, 1.0]))})
    identity = torch.nn.Linear(1, 1, bias=False).double()
    torch.nn.init.ones_(identity.weight)
    found = {
        m.metric: m.value
        for m in evaluate(
            identity, [EvaluationSet.from_environments(envs, "validation")], get_loss("squared")
        )
    }
    assert found["risk"] == 8.0
    assert found["dummy_gradient_norm"] == 16.0
    assert found["constant_risk"] == 0.0
    assert found["risk_standard_error"] == pytest.approx((0.25 * 64 + 0.25 * 64) ** 0.5)
