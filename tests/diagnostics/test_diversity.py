"""Certificates that the environments differ, against scikit-learn's folds and the selection's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diagnostics.made import linear, make_environments
from invlearn.diagnostics import diversity as module
from invlearn.diagnostics.diversity import diversity, out_of_fold_errors
from invlearn.diagnostics.findings import environment_rows, predicted_rows
from invlearn.environments import Environments
from invlearn.features import ChannelImages
from invlearn.losses import Custom, get_loss


def diverse(envs, task, reference=None):
    return diversity(
        environment_rows(envs), get_loss(task), reference=reference, rng=np.random.default_rng(0)
    )


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weights", [False, True])
def test_holds_with_a_shift_and_not_without(task, weights):
    shifted = make_environments(task, strengths=(1.5, 0.0), n=2000, weights=weights)
    finding = diverse(shifted, task)
    assert finding.level == "good"
    assert "Unequal noise in the environments would look the same." in finding.sentence
    frequency = finding.table["frequency"]
    assert frequency[1] > frequency[0]
    same = make_environments(task, strengths=(0.8, 0.8), n=2000, weights=weights)
    finding = diverse(same, task)
    assert finding.level == "warning"
    assert "pooled training is as good a choice" in finding.sentence
    assert finding.action.startswith("Collect rows from environments that differ more")


def test_a_given_reference_is_read():
    envs = make_environments("logistic", strengths=(1.0, -1.0), weights=True)
    reference = linear([0.0, 1.0, 0.0])
    finding = diverse(envs, "logistic", reference)
    for row, rows in zip(
        finding.table.to_dict("records"), predicted_rows(reference, envs), strict=True
    ):
        wrong = ((rows.z[:, 0] > 0) != (rows.y == 1)).numpy()
        assert row["frequency"] == pytest.approx(np.average(wrong, weights=rows.shares.numpy()))
    assert finding.level == "good"
    # A reference that reads the noise errs equally often in both.
    assert diverse(envs, "logistic", linear([0.0, 0.0, 1.0])).level == "warning"


def test_errors_are_out_of_fold():
    """With as many columns as rows a fit in fold would be perfect, out of fold it guesses."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 300, generator=generator)
    y = torch.arange(200) % 2
    envs = Environments.from_arrays(x, y, np.repeat(["a", "b"], 100))
    errors = out_of_fold_errors(environment_rows(envs), get_loss("logistic"), 0)
    assert [len(part) for part in errors] == [100, 100]
    assert np.mean(np.concatenate(errors)) == pytest.approx(0.5, abs=0.15)


def test_weights_lead_the_fit():
    """Of two contradicting halves the fit follows the heavy one."""
    x = torch.linspace(-1, 1, 100)[:, None].repeat(2, 1)
    y = torch.cat([(x[:100, 0] > 0).long(), (x[:100, 0] < 0).long()])
    w = torch.cat([torch.full((100,), 10.0), torch.ones(100)])
    envs = Environments.from_parts(
        {name: (x[e::2], y[e::2], w[e::2]) for e, name in enumerate("ab")}
    )
    errors = np.concatenate(out_of_fold_errors(environment_rows(envs), get_loss("logistic"), 0))
    order = np.concatenate([np.arange(200)[e::2] for e in range(2)])
    assert errors[order < 100].mean() < 0.1
    assert errors[order >= 100].mean() > 0.9


def test_regression_errors_are_squares():
    envs = make_environments("squared", n=500)
    errors = np.concatenate(out_of_fold_errors(environment_rows(envs), get_loss("squared"), 0))
    assert errors.mean() == pytest.approx(np.var(envs.y.numpy()) * 0.3, rel=0.3)
    several = Environments(envs.x, torch.stack([envs.y] * 2, 1), envs.names, envs.offsets)
    both = np.concatenate(out_of_fold_errors(environment_rows(several), get_loss("squared"), 0))
    np.testing.assert_allclose(both, errors)


def test_rare_classes_and_images():
    envs = make_environments("logistic", n=50)
    y = torch.zeros(150, dtype=torch.int64)
    y[0] = 1
    rare = Environments(envs.x, y, envs.names, envs.offsets)
    assert (
        sum(
            part.sum()
            for part in out_of_fold_errors(environment_rows(rare), get_loss("logistic"), 0)
        )
        == 1
    )
    images = ChannelImages(torch.rand(150, 4), torch.arange(150) % 2, 2)
    assert len(diverse(envs.with_features(images), "logistic").table) == 3


def test_many_rows_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 100)
    finding = diverse(make_environments(), "squared")
    assert finding.table["rows"].tolist() == [100] * 3
    assert finding.sentence.endswith(" At most 100 rows of an environment were used.")


def test_left_out():
    envs = make_environments("logistic", n=40)
    one = diverse(envs.select(["e1"]), "logistic")
    assert one.sentence == "Left out: it needs 2 environments with rows enough, there are 1."
    assert (one.level, one.action) == ("note", "Add rows of another source.")
    ones = Environments(envs.x, torch.ones_like(envs.y), envs.names, envs.offsets)
    assert diverse(ones, "logistic").sentence == "Left out: the targets are all the same."
    loss = Custom(lambda z, y: (z[:, 0] - y).square())
    found = diversity(environment_rows(envs), loss, rng=np.random.default_rng(0))
    assert found.sentence == (
        "Left out: a custom loss needs a reference model trained on the pooled rows."
    )
    found = diversity(
        environment_rows(make_environments()),
        loss,
        reference=linear([0.5, 0.5, 0]),
        rng=np.random.default_rng(0),
    )
    assert found.level == "good"
