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
        estimate_effects(make_environments(), Custom(lambda z, y: z[0] - y), None, 0)


def test_several_target_columns():
    envs = make_environments(n=100)
    y = torch.stack([envs.y, -envs.y], 1)
    found = estimated(Environments(envs.x, y, envs.names, envs.offsets), "squared")
    np.testing.assert_allclose(found.effects[0], -found.effects[1])
