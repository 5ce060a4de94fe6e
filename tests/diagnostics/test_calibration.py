"""Calibration errors and slopes against hand counts, scikit-learn, and refits of every draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LinearRegression, LogisticRegression

from diagnostics.made import linear, make_environments, make_rows
from invlearn.diagnostics.calibration import calibration, calibration_error, calibration_slope
from invlearn.diagnostics.findings import predicted_rows
from invlearn.losses import Custom, get_loss


def calibrated(parts, loss="logistic", seed=0):
    return calibration(parts, get_loss(loss), draws=200, rng=np.random.default_rng(seed))


def slope_of(rows, loss, draws=200):
    return calibration_slope(rows, get_loss(loss), draws=draws, rng=np.random.default_rng(0))


def honest(n=3000, scale=1.0, seed=0, name="a", weights=False):
    """Two classes whose logit is the score divided by the scale."""
    generator = torch.Generator().manual_seed(seed)
    z = 1.5 * torch.randn(n, generator=generator, dtype=torch.float64)
    y = (torch.rand(n, generator=generator) < z.sigmoid()).long()
    w = torch.rand(n, generator=generator, dtype=torch.float64) + 0.1 if weights else torch.ones(n)
    return make_rows(scale * z, y, name, shares=w / w.sum())


def test_error_by_hand():
    # Two blocks of rows with one probability each; in 10 bins they stay apart.
    z = torch.cat([torch.full((30, 1), 2.0), torch.full((70, 1), -1.0)])
    y = torch.cat([torch.ones(15), torch.zeros(15), torch.ones(35), torch.zeros(35)]).long()
    p, q = 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))
    expected = 0.3 * (p - 0.5) + 0.7 * (0.5 - q)
    found = calibration_error(z, y, torch.full((100,), 0.01))
    assert found == pytest.approx(expected)
    mixed = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    again = calibration_error(z[mixed], y[mixed], torch.full((100,), 0.01))
    assert again == pytest.approx(expected)


def test_equal_scores_in_sorted_rows_are_no_error():
    y = torch.tensor([0] * 50 + [1] * 50)
    assert calibration_error(torch.zeros(100, 1), y, torch.full((100,), 0.01)) == pytest.approx(0)


def test_error_of_distinct_scores_against_a_loop():
    rows = honest(n=200, scale=2.0, weights=True)
    p = rows.z[:, 0].sigmoid().numpy()
    order = np.argsort(p)
    expected = 0.0
    for block in np.array_split(order, 10):
        s = rows.shares.numpy()[block]
        expected += abs(s @ p[block] - s @ rows.y.numpy()[block])
    assert calibration_error(rows.z, rows.y, rows.shares) == pytest.approx(expected)


def test_error_of_several_classes_reads_the_likeliest():
    z = torch.log(torch.tensor([[0.7, 0.2, 0.1]] * 10, dtype=torch.float64))
    y = torch.tensor([0] * 4 + [1] * 6)
    assert calibration_error(z, y, torch.full((10,), 0.1)) == pytest.approx(0.3)


def test_logistic_slope_is_that_of_a_regression():
    rows = honest(scale=2.0, weights=True)
    regression = LogisticRegression(C=1e8, tol=1e-10, max_iter=1000)
    regression.fit(rows.z.numpy(), rows.y.numpy(), sample_weight=3000 * rows.shares.numpy())
    assert slope_of(rows, "logistic").value == pytest.approx(regression.coef_[0, 0], abs=1e-3)


def test_softmax_slope_is_the_inverse_temperature():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2000, 3, generator=generator, dtype=torch.float64)
    y = torch.multinomial(z.softmax(1), 1, generator=generator)[:, 0]
    rows = make_rows(4 * z, y)
    loss = get_loss("softmax")
    best = minimize_scalar(
        lambda b: float(rows.shares @ loss.value(b * rows.z, y)), bounds=(0, 2), method="bounded"
    )
    slope = slope_of(rows, "softmax")
    assert slope.value == pytest.approx(best.x, abs=1e-3)
    assert slope.span.low < 0.25 < slope.span.high


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_least_squares_slope_and_every_draws_own(shift):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(60, generator=generator, dtype=torch.float64) + shift
    y = 0.5 * z + torch.randn(60, generator=generator, dtype=torch.float64)
    rows = make_rows(z, y)
    slope = slope_of(rows, "squared", draws=100)
    assert slope.value == pytest.approx(LinearRegression().fit(rows.z, y).coef_[0], rel=2e-3)
    picked = np.random.default_rng(0).integers(0, 60, (100, 60))
    refits = [LinearRegression().fit(rows.z[i], y[i]).coef_[0] for i in picked]
    refit = LinearRegression().fit(rows.z, y)
    residual = y.numpy() - refit.predict(rows.z.numpy())
    error = float(np.sqrt((residual**2).mean() / (60 * np.var(z.numpy()))))
    wider = max(1.0, error / np.std(refits, ddof=1))
    assert wider > 1  # This sample's draws differ less than the errors say.
    low, high = slope.value + wider * (np.quantile(refits, [0.025, 0.975]) - slope.value)
    assert (slope.span.low, slope.span.high) == pytest.approx((low, high), rel=5e-3)


def test_draws_that_differ_enough_are_left_alone():
    generator = torch.Generator().manual_seed(0)
    z, noise = torch.randn(2, 60, generator=generator, dtype=torch.float64)
    rows = make_rows(z, 0.5 * z + 2 * z * noise)
    slope = slope_of(rows, "squared", draws=100)
    picked = np.random.default_rng(0).integers(0, 60, (100, 60))
    refits = [LinearRegression().fit(rows.z[i], rows.y[i]).coef_[0] for i in picked]
    low, high = np.quantile(refits, [0.025, 0.975])
    assert (slope.span.low, slope.span.high) == pytest.approx((low, high), rel=5e-3)


def test_one_newton_step_is_near_a_refit():
    rows = honest(n=300)
    slope = slope_of(rows, "logistic", draws=100)
    picked = np.random.default_rng(0).integers(0, 300, (100, 300))
    refits = [
        LogisticRegression(C=1e6, tol=1e-8).fit(rows.z[i], rows.y[i]).coef_[0, 0] for i in picked
    ]
    z = rows.z[:, 0].numpy()
    p = 1 / (1 + np.exp(-slope.value * z))
    design = np.stack([np.ones(300), z], 1)
    error = np.sqrt(np.linalg.inv((p * (1 - p) * design.T) @ design)[1, 1])
    assert slope.span.standard_error == pytest.approx(max(np.std(refits, ddof=1), error), rel=0.05)


def test_few_rows_of_a_class_are_no_evidence():
    """Scores that are right: of 20 rows one or two are of the rarer class, or stand out."""
    rng, levels = np.random.default_rng(0), []
    for rare in [False, True] * 20:
        parts = []
        for name in "abcdef":
            z = 1.5 * rng.standard_normal(20) - 2.5
            if rare:
                z = 2.0 * (rng.random(20) < 0.06) + 0.05 * rng.standard_normal(20) - 2.5
            y = (rng.random(20) < 1 / (1 + np.exp(-z))).astype(np.int64)
            parts.append(make_rows(z, y, name))
        levels.append(calibration(parts, get_loss("logistic"), draws=100, rng=rng))
    assert sum(finding.level == "warning" for finding in levels) <= 2  # 5 % of 40 tables.
    alarms = [f for f in levels if f.level == "note" and len(f.table)]
    assert len(alarms) <= 4


def test_perfect_separation_has_a_finite_slope():
    rows = make_rows(torch.linspace(-1, 1, 40), (torch.arange(40) >= 20).long())
    slope = slope_of(rows, "logistic")
    assert 1 < slope.value < 1e3
    assert np.isfinite(slope.span.low)


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_a_score_that_means_different_things(loss):
    if loss == "softmax":
        model = linear([[-1.0, -1, 0], [0, 0, 0], [1, 1, 0]])
    else:
        model = linear([0.7, 0.7, 0.0])
    finding = calibrated(predicted_rows(model, make_environments(loss)), loss)
    assert finding.level == "warning"
    assert finding.sentence.startswith("The same score means different things: its slope is")
    assert " in 'e2' and " in finding.sentence


def test_alike_and_right_alike_and_off():
    right = [honest(seed=0), honest(seed=1, name="b")]
    finding = calibrated(right)
    assert (finding.level, finding.action) == ("good", "Nothing to do.")
    off = [honest(scale=3.0, seed=0), honest(scale=3.0, seed=1, name="b")]
    finding = calibrated(off)
    assert finding.level == "note"
    assert "it is off in 'a' and 'b'" in finding.sentence
    assert finding.table["slope"].tolist() == pytest.approx([1 / 3, 1 / 3], abs=0.04)


def test_bias_of_a_regression():
    parts = predicted_rows(linear([1.0, 0, 0], 0.25), make_environments(weights=True))
    finding = calibrated(parts, "squared")
    for row, rows in zip(finding.table.to_dict("records"), parts, strict=True):
        weights = rows.shares.numpy()
        expected = np.average((rows.z[:, 0] - rows.y).numpy(), weights=weights)
        assert row["bias"] == pytest.approx(expected)
        assert row["bias low"] < 0.25 < row["bias high"]


def test_left_out():
    y = torch.arange(40) % 2
    constant = make_rows(torch.ones(40), y, "flat")
    finding = calibrated([constant])
    assert finding.sentence == (
        "Left out: it needs 1 environment with rows enough, there are 0."
        " Without 'flat' (the model's output is constant)."
    )
    several = make_rows(torch.randn(40, 2), torch.randn(40, 2))
    assert "one target column" in calibrated([several], "squared").sentence
    loss = Custom(lambda z, y: (z[:, 0] - y).abs())
    found = calibration([honest(n=50)], loss, draws=50, rng=np.random.default_rng(0))
    assert found.sentence == "Left out: calibration is not defined for a custom loss."
    one = calibrated([honest(), make_rows(torch.randn(40), torch.ones(40).long(), "one")])
    assert one.sentence.endswith(" Without 'one' (one class only).")
    assert len(one.table) == 1
