"""Refits of the last layer: gaps that are there, gaps that are not, and models without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from diagnostics.made import linear, make_environments, make_rows, two_layers
from invlearn.diagnostics import invariance_gap as module
from invlearn.diagnostics.findings import predicted_rows
from invlearn.diagnostics.invariance_gap import invariance_gap, refitted_losses
from invlearn.losses import get_loss

CAUSE_ONLY = [[1.0, 0, 0], [0.5, 0, 0]]
BOTH = [[1.0, 0, 0], [0, 1.0, 0]]


def readout(task, first, second):
    """Weights of the last layer for one output, or a score of three ordered classes."""
    if task != "softmax":
        return ([first, second], 0.0)
    return ([[-first, -second], [0, 0], [first, second]], [0.0, 0.6, 0.0])


def gap_of(model, envs, task, draws=200):
    rows = predicted_rows(model, envs)
    return invariance_gap(model, rows, get_loss(task), draws=draws, rng=np.random.default_rng(0))


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weights", [False, True])
def test_positive_with_a_shortcut_and_none_with_the_cause(task, weights):
    envs = make_environments(task, strengths=(1.0, -1.0), weights=weights)
    scale = 1.0 if task == "squared" else 2.5
    short = two_layers(BOTH, *readout(task, 0.5 * scale, 0.5 * scale))
    finding = gap_of(short, envs, task)
    assert finding.level == "warning"
    assert finding.table["gap low"][1] > 0.1
    assert "would save" in finding.sentence
    cause = two_layers(CAUSE_ONLY, *readout(task, 0.8 * scale, 0.4 * scale))
    finding = gap_of(cause, envs, task)
    assert finding.level == "good", finding.sentence
    assert (np.abs(finding.table["gap"]) < 0.05 * finding.table["risk"]).all()


def test_numbers_add_up():
    envs = make_environments(weights=True)
    model = two_layers(BOTH, [0.5, 0.5])
    finding = gap_of(model, envs, "squared")
    for row, rows in zip(
        finding.table.to_dict("records"), predicted_rows(model, envs), strict=True
    ):
        losses = ((rows.z[:, 0] - rows.y) ** 2).numpy()
        assert row["risk"] == pytest.approx(np.average(losses, weights=rows.shares.numpy()))
        assert row["gap"] == pytest.approx(row["risk"] - row["refitted risk"])
        assert row["gap low"] < row["gap"] < row["gap high"]


def test_a_refit_is_ridge_regression_towards_the_model(monkeypatch):
    """With one penalty, a squared loss and folds known, scikit-learn gives the same rows."""
    monkeypatch.setattr(module, "PENALTIES", (0.3,))
    rows = predicted_rows(linear([0.2, 0.1, 0.0], 0.5), make_environments(n=97))[0]
    found = refitted_losses(rows.x, rows, get_loss("squared"), np.random.default_rng(3))
    order = np.random.default_rng(3).permutation(97)
    fold = np.empty(97, dtype=int)
    fold[order] = np.arange(97) % 5
    h = ((rows.x - rows.x.mean(0)) / rows.x.std(0, correction=0)).numpy()
    rest, expected = (rows.y - rows.z[:, 0]).numpy(), np.empty(97)
    for f in range(5):
        inside = fold != f
        # mean (r - h c)^2 + 0.15 |c|^2, times the number of rows.
        ridge = Ridge(alpha=0.15 * inside.sum(), tol=1e-12).fit(h[inside], rest[inside])
        expected[~inside] = (ridge.predict(h[~inside]) - rest[~inside]) ** 2
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("task", ["squared", "logistic"])
def test_learning_rows_by_heart_gains_nothing(task):
    """More features than rows, none of which says anything: no refit beats the model."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(60, 100, generator=generator, dtype=torch.float64)
    y = torch.randn(60, generator=generator, dtype=torch.float64)
    y = (y > 0).long() if task == "logistic" else y
    rows = make_rows(torch.zeros(60), y)
    loss = get_loss(task)
    refitted = refitted_losses(h, rows, loss, np.random.default_rng(0)).mean()
    risk = rows.losses(loss).mean()
    assert refitted > 0.97 * risk
    assert refitted < 1.5 * risk


def test_constant_features_do_no_harm():
    rows = predicted_rows(linear([0.0, 0.0, 0.0]), make_environments(n=100))[0]
    flat = torch.full((100, 2), 7.0, dtype=torch.float64)
    loss, plain = get_loss("squared"), rows.x[:, :1]
    alone = refitted_losses(plain, rows, loss, np.random.default_rng(0))
    beside = refitted_losses(torch.cat([plain, flat], 1), rows, loss, np.random.default_rng(0))
    np.testing.assert_allclose(beside, alone, atol=1e-6)
    nothing = refitted_losses(flat, rows, loss, np.random.default_rng(0))
    assert torch.isfinite(nothing).all()


def test_a_model_of_one_layer_is_a_note():
    finding = gap_of(linear([0.5, 0.5, 0.0]), make_environments(), "squared")
    assert finding.level == "note"
    assert "This model has one layer only" in finding.sentence


def test_models_without_a_linear_end_are_left_out():
    envs = make_environments(n=40)
    after = nn.Sequential(linear(BOTH), nn.Tanh(), linear([0.5, 0.5]), nn.Tanh())
    normed = nn.Sequential(linear(BOTH), nn.LayerNorm(2, dtype=torch.float64))
    for model in (after, normed):
        rows = [make_rows(z[:, :1], y, x=x) for _, x, y in envs for z in [model(x).detach()]]
        finding = invariance_gap(
            model, rows, get_loss("squared"), draws=50, rng=np.random.default_rng(0)
        )
        assert (finding.level, len(finding.table)) == ("note", 0)
        assert finding.sentence == "Left out: the model does not end in a linear layer."
    shared = linear(np.eye(3))
    twice = nn.Sequential(shared, nn.Tanh(), shared)
    finding = gap_of(twice, envs, "squared")
    assert finding.sentence.startswith("Left out: Expected every layer to run once")


def test_few_rows_are_drawn_and_said(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 100)
    finding = gap_of(two_layers(BOTH, [0.5, 0.5]), make_environments(), "squared")
    assert finding.table["rows"].tolist() == [100] * 3
    assert finding.sentence.endswith(" At most 100 rows of an environment were used.")
