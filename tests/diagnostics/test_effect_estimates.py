"""Effects and their errors against scikit-learn, resampling and theory."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from diagnostics.made import NAMES, make_environments
from invlearn.diagnostics import effect_estimates as module
from invlearn.diagnostics.effect_estimates import column_names, estimate_effects
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.features import ChannelImages
from invlearn.losses import Custom, get_loss


def estimated(envs, task, names=None):
    return estimate_effects(envs, get_loss(task), names, 0)


def pooled_scale(envs):
    """Mean and standard deviation of the columns, every environment counting alike."""
    shares = []
    for e in range(len(envs)):
        part = slice(envs.offsets[e], envs.offsets[e + 1])
        w = torch.ones(part.stop - part.start) if envs.weights is None else envs.weights[part]
        shares.append(w.double() / w.double().sum() / len(envs))
    s, x = torch.cat(shares), envs.x.double()
    mean = s @ x
    return mean.numpy(), (s @ (x - mean) ** 2).sqrt().numpy()


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("weights", [False, True])
def test_effects_are_penalized_regressions(task, weights):
    envs = make_environments(task, n=150, weights=weights)
    found = estimated(envs, task)
    mean, spread = pooled_scale(envs)
    pooled_y = Environments(
        envs.y[:, None].double(), envs.y, envs.names, envs.offsets, envs.weights
    )
    y_mean, y_spread = pooled_scale(pooled_y)
    targets = {"squared": [None], "logistic": [1], "softmax": [0, 1, 2]}[task]
    assert found.effects.shape == (len(targets), 3, 3)
    assert found.classes == ((0, 1, 2) if task == "softmax" else ())
    for e, (_, x, y) in enumerate(envs):
        w = np.ones(150)
        if weights:
            w = envs.weights[150 * e : 150 * (e + 1)].numpy()
            w = w * 150 / w.sum()
        design = (x.numpy() - mean) / spread
        for t, label in enumerate(targets):
            if label is None:
                slow = Ridge(alpha=1.0, tol=1e-12).fit(
                    design, (y.numpy() - y_mean) / y_spread, sample_weight=w
                )
            else:
                slow = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(
                    design, y.numpy() == label, sample_weight=w
                )
            np.testing.assert_allclose(found.effects[t, e], np.ravel(slow.coef_), atol=2e-5)


@pytest.mark.parametrize("task", ["squared", "logistic"])
@pytest.mark.parametrize("weights", [False, True])
def test_errors_are_the_scatter_between_samples(task, weights):
    found = [
        estimated(make_environments(task, (0.5, 0.5), 300, seed=seed, weights=weights), task)
        for seed in range(120)
    ]
    scatter = np.std([f.effects for f in found], axis=0, ddof=1)
    mean = np.mean([f.errors for f in found], axis=0)
    assert mean.mean() == pytest.approx(scatter.mean(), rel=0.1)
    np.testing.assert_allclose(mean, scatter, rtol=0.3)


def test_a_constant_feature_is_not_measured():
    envs = make_environments(n=100)
    x = envs.x.clone()
    x[:100, 2] = 3.0
    found = estimated(envs.with_features(x), "squared")
    assert found.errors[0, 0, 2] == np.inf
    assert found.effects[0, 0, 2] == 0
    others = np.isfinite(found.errors)
    assert others.sum() == 8


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_rare_value_is_measured_from_eight_rows_on(value):
    envs = make_environments(n=100)
    x = envs.x.clone()
    x[:, 2] = value
    x[:8, 2] = 1 - value
    x[100:107, 2] = 1 - value
    x[200:300, 2] = torch.linspace(0, 1, 100)
    found = estimated(envs.with_features(x), "squared")
    assert np.isfinite(found.errors[0, :, 2]).tolist() == [True, False, True]
    assert np.isfinite(found.errors[0, :, :2]).all()
    # The others are compared at equal values of it, measured or not.
    assert found.effects[0, 1, 2] != 0
    weights = torch.ones(300)
    weights[:8] = torch.tensor([5.0] + [1.0] * 7)  # Worth 12² / 32 rows of equal weight.
    weighted = Environments(x, envs.y, envs.names, envs.offsets, weights)
    assert np.isinf(estimated(weighted, "squared").errors[0, 0, 2])


def test_errors_of_a_regression_are_no_less_than_hc3_and_the_models():
    """By refits without one row each, and by the textbook, on the standardized columns."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(200, generator=generator, dtype=torch.float64)
    y = x[:, 0] + noise * torch.where(torch.arange(200) < 100, 2 * x[:, 1], 1 / (1 + x[:, 1] ** 2))
    envs = Environments.from_arrays(x, y, np.repeat(["a", "b"], 100))
    found = estimated(envs, "squared")
    larger = []
    for e in range(2):
        part = slice(100 * e, 100 * e + 100)
        design = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()[part]
        target = ((y - y.mean()) / y.std(correction=0)).numpy()[part]
        design = np.c_[np.ones(100), design]
        pull = np.diag([0.0, 1.0, 1.0])
        full = np.linalg.solve(design.T @ design + pull, design.T @ target)
        left_out = []
        for i in range(100):
            d, t = np.delete(design, i, 0), np.delete(target, i)
            left_out.append(np.linalg.solve(d.T @ d + pull, d.T @ t))
        robust = np.sqrt(((np.array(left_out) - full) ** 2).sum(0))
        variance = ((target - design @ full) ** 2).sum() / 97
        own = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design + pull)))
        np.testing.assert_allclose(found.errors[0, e], np.maximum(robust, own)[1:], rtol=1e-6)
        larger.append(bool(robust[2] > own[2]))
    assert larger == [True, False]


def test_a_separating_indicator_is_surer_the_more_rows_it_has():
    """The error follows the likelihood ratio; with the model's own it would not."""
    z = []
    for count in (10, 20, 40):
        x = (torch.arange(200) < count).double()[:, None]
        y = ((torch.arange(200) % 2 == 0) | (x[:, 0] == 1)).long()
        envs = Environments.from_arrays(
            x.repeat(2, 1), torch.cat([y, y]), np.repeat(["a", "b"], 200)
        )
        found = estimated(envs, "logistic")
        z.append(found.effects[0, 0, 0] / found.errors[0, 0, 0])
        p = y.double().mean()
        rest = y[count:].double().mean()
        without = 200 * (p * p.log() + (1 - p) * (1 - p).log())
        with_it = (200 - count) * (rest * rest.log() + (1 - rest) * (1 - rest).log())
        assert 0.6 < z[-1] / float((2 * (with_it - without)).sqrt()) < 1.1
    assert z == sorted(z)


def test_a_class_that_is_missing_in_an_environment_is_not_measured():
    envs = make_environments("softmax", n=100)
    y = envs.y.clone()
    y[:100] = y[:100].clamp(max=1)
    found = estimated(Environments(envs.x, y, envs.names, envs.offsets), "softmax")
    assert np.isinf(found.errors[2, 0]).all()
    assert np.isfinite(found.errors[:2]).all()


def test_repeated_and_separating_columns_have_finite_effects():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 1, generator=generator)
    envs = Environments.from_arrays(
        x.repeat(1, 2), (x[:, 0] > 0).long(), np.repeat(["a", "b"], 100)
    )
    found = estimated(envs, "logistic")
    assert np.isfinite(found.effects).all()
    assert np.isfinite(found.errors).all()
    assert (found.errors > 1e-3).all()
    np.testing.assert_allclose(found.effects[..., 0], found.effects[..., 1], rtol=1e-5)


def wide(n=60, d=50, strong=(7, 31)):
    """Many columns of noise; two of them go with the target, with opposite signs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * n, d, generator=generator)
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(n)
    y = 3 * x[:, strong[0]] + 3 * sign * x[:, strong[1]]
    y = y + 0.1 * torch.randn(2 * n, generator=generator)
    return Environments.from_arrays(x, y, np.repeat(["a", "b"], n))


def test_columns_that_go_with_the_target_anywhere_are_kept():
    found = estimated(wide(), "squared")
    assert len(found.features) == 12  # A fifth of 60 rows.
    assert {"x7", "x31"} <= set(found.features)  # Over all rows, x31 goes with nothing.
    assert found.note == (
        " Of 50 columns the 12 were compared that go with the target most in some environment."
    )
    assert list(found.features) == sorted(found.features, key=lambda name: int(name[1:]))


def test_columns_too_rare_to_be_measured_take_no_place():
    envs = wide()
    x = envs.x.clone()
    # One row in each environment, the one with the largest target.
    top = [int(envs.y[:60].argmax()), 60 + int(envs.y[60:].argmax())]
    x[:, 40:] = 0
    x[top, 40:] = 1
    found = estimated(envs.with_features(x), "squared")
    assert {"x7", "x31"} <= set(found.features)
    assert not {f"x{j}" for j in range(40, 50)} & set(found.features)
    assert " Not compared: 'x40', 'x41', 'x42', 'x43', 'x44' and 5 more, which in" in found.note


def test_many_columns_are_cut(monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", 3)
    assert len(estimated(wide(n=300), "squared").features) == 3


def test_many_rows_are_drawn(monkeypatch):
    monkeypatch.setattr(module, "ROWS", 100)
    found = estimated(make_environments(), "squared")
    assert found.note == " At most 100 rows of an environment were used."
    assert not np.allclose(
        found.effects, estimate_effects(make_environments(), get_loss("squared"), None, 1).effects
    )


def test_names():
    envs = make_environments(n=30)
    assert column_names(envs, None) == ["x0", "x1", "x2"]
    assert column_names(envs, NAMES) == NAMES
    message = (
        "Expected one name per column, got 2 names for 3 columns. Name every column of x, in order."
    )
    with pytest.raises(OptionError, match=re.escape(message)):
        column_names(envs, ["a", "b"])
    images = ChannelImages(torch.ones(90, 4), torch.zeros(90, dtype=torch.int64), 2)
    message = "Expected rows of columns [n, d], got images. Compare their measured properties."
    with pytest.raises(EnvironmentsError, match=re.escape(message)):
        column_names(envs.with_features(images), None)


def test_what_cannot_be_estimated():
    message = (
        "Comparing effects: it needs 2 environments with rows enough, there are 1. "
        "Add rows of another source."
    )
    with pytest.raises(EnvironmentsError, match=re.escape(message)):
        estimated(make_environments().select(["e0"]), "squared")
    message = (
        "Expected the squared, logistic or softmax loss, got 'custom'. The loss says whether "
        "targets are numbers or classes: pass the one nearest in kind."
    )
    with pytest.raises(OptionError, match=re.escape(message)):
        estimate_effects(make_environments(), Custom(lambda z, y: z[:, 0] - y), None, 0)


def test_several_target_columns():
    envs = make_environments(n=100)
    y = torch.stack([envs.y, -envs.y], 1)
    found = estimated(Environments(envs.x, y, envs.names, envs.offsets), "squared")
    np.testing.assert_allclose(found.effects[0], -found.effects[1])
