"""Certificates that the environments differ, against scikit-learn's folds and the selection's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diagnostics.made import linear, make_environments
from invlearn.diagnostics import diversity as module
from invlearn.diagnostics.diversity import certificate, diversity, out_of_fold_errors
from invlearn.diagnostics.findings import environment_rows, predicted_rows
from invlearn.environments import Environments
from invlearn.features import ChannelImages
from invlearn.losses import Custom, get_loss
from invlearn.selection.groups import certify


def diverse(envs, task, reference=None):
    return diversity(
        environment_rows(envs), get_loss(task), reference=reference, rng=np.random.default_rng(0)
    )


def test_the_certificate_is_that_of_the_selection():
    rng = np.random.default_rng(0)
    environment = np.repeat(np.arange(3), [40, 100, 70])
    group = rng.random(210) < np.array([0.2, 0.4, 0.35])[environment]
    other = certify(torch.from_numpy(group), torch.from_numpy(environment), 3)
    groups = [group[environment == e] for e in range(3)]
    found = certificate(groups, [np.full(len(g), 1 / len(g)) for g in groups])
    assert found.statistic == pytest.approx(other.statistic)
    assert found.p_value == pytest.approx(other.p_value)
    assert found.frequencies == pytest.approx(other.frequencies)
    assert found.holds == other.holds


def test_weights_of_a_certificate():
    group = np.array([True] * 30 + [False] * 70)
    equal, doubled = np.full(100, 0.01), np.full(200, 0.005)
    plain = certificate([group, ~group], [equal, equal])
    # The same rows twice are twice the evidence, equal weights of any size are none.
    twice = certificate([np.tile(group, 2), np.tile(~group, 2)], [doubled, doubled])
    assert twice.statistic == pytest.approx(2 * plain.statistic)
    # Rows of weight 3 in the group, 1 outside: fewer rows' worth of evidence.
    heavy = np.where(group, 3.0, 1.0)
    heavy /= heavy.sum()
    found = certificate([group, ~group], [heavy, equal])
    assert found.frequencies == pytest.approx((90 / 160, 0.7))
    size = 160**2 / (30 * 9 + 70)
    f, g, mean = 90 / 160, 0.7, (size * 90 / 160 + 70) / (size + 100)
    expected = (size * (f - mean) ** 2 + 100 * (g - mean) ** 2) / (mean * (1 - mean))
    assert found.statistic == pytest.approx(expected)


def test_no_errors_or_errors_only_certify_nothing():
    shares = [np.full(20, 0.05)] * 2
    for value in (False, True):
        found = certificate([np.full(20, value)] * 2, shares)
        assert (found.statistic, found.p_value, found.holds) == (0.0, 1.0, False)


def test_an_environment_that_is_all_wrong():
    """Its shares may sum to a rounding error more than 1."""
    for n in range(20, 320):
        shares, half = np.full(n, 1 / n), np.arange(n) < n // 2
        for value, frequency in ((True, 1.0), (False, 0.0)):
            whole = np.full(n, value)
            found = certificate([whole, half], [shares, shares])
            assert found.frequencies == pytest.approx((frequency, n // 2 / n), abs=1e-12)
            assert min(found.frequencies) >= 0
            assert max(found.frequencies) <= 1
            assert found.p_value < 0.01
            found = certificate([whole, whole, whole], [shares] * 3)
            assert (found.statistic, found.p_value) == (0.0, 1.0)


def test_rows_of_hardly_any_weight_certify_nothing():
    shares = np.r_[np.full(20, 0.05), 1e-20]
    groups = [np.arange(21) < 20, np.ones(21, dtype=bool)]
    assert certificate(groups, [shares, shares]).p_value == 1.0
    assert certificate([~group for group in groups], [shares, shares]).p_value == 1.0


def test_rarely_a_false_certificate():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(3):
        w = rng.random(300) + 0.1
        shares.append(w / w.sum())
    p_values = [
        certificate([rng.random(300) < 0.3 for _ in range(3)], shares).p_value for _ in range(2000)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.015)


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
    loss = Custom(lambda z, y: (z[0] - y).square())
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
