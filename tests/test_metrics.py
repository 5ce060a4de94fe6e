"""Metrics, by hand; and a new one, which is one entry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from invlearn.environments import Environments, EvaluationSet
from invlearn.evaluation import evaluate
from invlearn.losses import LOSSES, Custom, get_loss
from invlearn.metrics import EVERY_KIND, METRICS, Metric, usual_metric

CLASSES = torch.tensor([[2.0], [-1.0], [0.5], [-3.0]]), torch.tensor([1, 0, 0, 1])
NUMBERS = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([1.0, -1.0, 2.5])


@pytest.mark.parametrize("name", ["accuracy", "balanced accuracy"])
def test_accuracy_is_the_share_of_right_classes(name):
    z, y = CLASSES
    metric = METRICS[name]
    rows = metric.of_rows(get_loss("logistic"), z, y)
    assert rows.tolist() == [0, 0, 1, 1]
    assert float(metric.of_mean(rows.mean())) == 0.5
    predicted = (z[:, 0] > 0).numpy().astype(int)
    assert metric.of_predictions(predicted, y.numpy()).tolist() == [0, 0, 1, 1]
    assert metric.higher_is_better
    assert metric.by_class == (name == "balanced accuracy")


def test_rmse_is_the_root_of_the_mean_square():
    z, y = NUMBERS
    metric = METRICS["RMSE"]
    rows = metric.of_rows(get_loss("squared"), z, y)
    assert rows.tolist() == [1, 0, 4]
    assert float(metric.of_mean(rows.mean())) == pytest.approx((5 / 3) ** 0.5)
    assert metric.of_predictions(z[:, 0].numpy(), y.numpy()).tolist() == [1, 0, 4]
    assert not metric.higher_is_better
    assert metric.of_mean(np.array([-1e-18, 4.0])).tolist() == [0, 2]


def test_risk_and_dummy_gradient_norm_are_of_every_kind():
    z, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    loss = get_loss("softmax-per-class")
    assert METRICS["risk"].of_rows(loss, z, y).equal(loss.value(z, y))
    norm = METRICS["dummy_gradient_norm"]
    dummy = loss.dummy_gradient(z, y).mean(0)
    torch.testing.assert_close(norm.of_mean(norm.of_rows(loss, z, y).mean(0)), dummy.norm())
    assert METRICS["risk"].kinds == norm.kinds == EVERY_KIND


def test_every_kind_of_target_has_a_usual_metric_that_is_for_it():
    for loss in (*LOSSES.values(), Custom(lambda z, y: z[:, 0] - y)):
        assert loss.kind in usual_metric(loss.kind).kinds


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy", 1.0, "100.0 %"),
        ("RMSE", 0.012345, "0.0123"),
        ("RMSE", 999.4, "999"),
        ("RMSE", -999.6, "-1,000"),
        ("RMSE", 12345.6, "12,346"),
        ("RMSE", 1.23e12, "1.23e+12"),
    ],
)
def test_values_are_shown_in_percent_or_in_the_targets_unit(name, value, text):
    assert METRICS[name].show(value) == text


def test_a_new_metric_is_one_entry(monkeypatch):
    absolute = Metric(
        "MAE",
        "mean absolute error",
        "the mean size of an error; lower is better",
        of_rows=lambda loss, z, y: (z - y.reshape(z.shape)).abs().mean(1),
        of_mean=lambda mean: mean,
        kinds=("numbers",),
        of_predictions=lambda predicted, y: abs(predicted - y),
        tracked=True,
    )
    monkeypatch.setitem(METRICS, "MAE", absolute)
    envs = Environments.from_parts({"a": NUMBERS, "b": NUMBERS})
    found = evaluate(
        nn.Identity(), [EvaluationSet.from_environments(envs, "test")], get_loss("squared")
    )
    assert [m.value for m in found if m.metric == "MAE"] == [1, 1]
