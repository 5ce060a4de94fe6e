"""Risks, accuracies and scales of known outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diagnostics.made import linear, make_environments, make_rows
from invlearn.diagnostics.findings import predicted_rows
from invlearn.diagnostics.risk_profile import collapse, dummy_gradients, risk_profile
from invlearn.losses import Custom, get_loss


def profile(parts, loss, seed=0):
    return risk_profile(parts, get_loss(loss), draws=300, rng=np.random.default_rng(seed))


def collapsed(parts, loss):
    return collapse(parts, get_loss(loss), draws=300, rng=np.random.default_rng(0))


def answers(right, wrong, name, **options):
    """Rows of class 1, so many of which the model gets right, with logits of 1 and -1."""
    z = torch.cat([torch.ones(right), -torch.ones(wrong)])
    return make_rows(z, torch.ones(right + wrong, dtype=torch.int64), name, **options)


def test_accuracies_by_hand():
    finding = profile([answers(90, 10, "a"), answers(60, 40, "b", new=True)], "logistic")
    assert finding.table["accuracy"].tolist() == pytest.approx([0.9, 0.6])
    hand = [np.log1p(np.exp(-1)) + share for share in (0.1, 0.4)]  # Wrong costs 1 more.
    assert finding.table["risk"].tolist() == pytest.approx(hand)
    # The accuracy's standard error is 3 points; the interval about 6 to either side.
    assert finding.table["accuracy low"][0] == pytest.approx(0.84, abs=0.015)
    assert finding.table["accuracy high"][0] == pytest.approx(0.955, abs=0.015)
    assert finding.level == "warning"
    assert finding.sentence.startswith(
        "The model does not do equally well everywhere: accuracy 60.0 % in 'b' (new) and "
        "90.0 % in 'a', a difference of 30.0 points ± "
    )


@pytest.mark.parametrize(
    ("right", "rows", "words"),
    [(88, 100, "which is within chance"), (87_000, 100_000, "which is too little to matter")],
)
def test_differences_by_chance_or_too_small_are_good(right, rows, words):
    scale = rows // 100
    parts = [answers(90 * scale, 10 * scale, "a"), answers(right, rows - right, "b")]
    found = risk_profile(parts, get_loss("logistic"), draws=60, rng=np.random.default_rng(0))
    assert found.level == "good"
    assert words in found.sentence


def test_root_mean_squared_error_by_hand():
    y = torch.zeros(100, dtype=torch.float64)
    flip = torch.tensor([1.0, -1.0]).repeat(50)
    parts = [make_rows(2 * flip, y, "a"), make_rows(3 * flip, y, "b")]
    finding = profile(parts, "squared")
    assert finding.table["root mean squared error"].tolist() == pytest.approx([2.0, 3.0])
    assert finding.table["risk"].tolist() == pytest.approx([4.0, 9.0])
    assert finding.level == "warning"  # Errors of one size: no doubt about either.
    near = [make_rows(2 * flip, y, "a"), make_rows(2.3 * flip, y, "b")]
    assert profile(near, "squared").level == "good"


def test_weights_count():
    shares = np.array([0.03] * 10 + [0.7 / 90] * 90)
    rows = answers(10, 90, "a", shares=shares)
    finding = profile([rows, answers(10, 90, "b")], "logistic")
    assert finding.table["accuracy"].tolist() == pytest.approx([0.3, 0.1])


def test_custom_losses_have_a_risk_only():
    loss = Custom(lambda z, y: (z[:, 0] - y).abs())
    y = torch.zeros(50, dtype=torch.float64)
    parts = [make_rows(torch.full((50,), v), y, name) for v, name in ((1.0, "a"), (2.0, "b"))]
    found = risk_profile(parts, loss, draws=60, rng=np.random.default_rng(0))
    assert found.table["risk"].tolist() == [1.0, 2.0]
    assert "accuracy" not in found.table
    assert found.level == "warning"
    found = collapse(parts, loss, draws=60, rng=np.random.default_rng(0))
    assert found.sentence == "Left out: it needs 1 environment with rows enough, there are 0." + (
        " Without 'a' (one target value only), 'b' (one target value only)."
    )
    varied = [make_rows(torch.zeros(50), torch.arange(50.0), "a")]
    found = collapse(varied, loss, draws=60, rng=np.random.default_rng(0))
    assert found.sentence == "Left out: the best constant of a custom loss is not known."


def test_one_environment_and_none():
    finding = profile([answers(90, 10, "a"), answers(5, 5, "b")], "logistic")
    assert finding.level == "note"
    assert finding.sentence == (
        "One environment only (accuracy 90.0 % in 'a'): nothing to compare."
        " Without 'b' (fewer than 20 rows)."
    )
    finding = profile([answers(5, 5, "b")], "logistic")
    assert (finding.level, len(finding.table)) == ("note", 0)


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
def test_collapse(task):
    loss = get_loss(task)
    envs = make_environments(task, weights=True)
    outputs = 3 if task == "softmax" else 1
    constant = predicted_rows(linear(np.zeros((outputs, 3)), [0.1] * outputs), envs)
    finding = collapsed(constant, task)
    assert finding.level == "warning"
    assert "'e0', 'e1' and 'e2'" in finding.sentence
    for row, rows in zip(finding.table.to_dict("records"), constant, strict=True):
        assert row["constant risk"] == pytest.approx(loss.constant_risk(rows.y, rows.shares))
        assert row["risk"] >= row["constant risk"]
    weight = [1.0, 0, 0] if outputs == 1 else [[-1.5, 0, 0], [0, 0, 0], [1.5, 0, 0]]
    assert collapsed(predicted_rows(linear(weight), envs), task).level == "good"


def test_collapse_in_one_environment_and_in_doubt():
    y = torch.arange(100) % 2
    good, bad = (2.0 * y - 1), -(2.0 * y - 1)
    finding = collapsed([make_rows(good, y, "a"), make_rows(bad, y, "b", new=True)], "logistic")
    assert finding.level == "warning"
    assert finding.sentence.startswith("In 'b' (new) the model is no better")
    # A little better on average, with far larger scatter.
    unsure = torch.where(torch.rand(100, generator=torch.Generator().manual_seed(0)) < 0.68, 1, -1)
    finding = collapsed([make_rows(unsure * good, y, "c")], "logistic")
    row = finding.table.iloc[0]
    assert row["risk"] < row["constant risk"] <= row["risk high"]
    assert finding.level == "note"


def test_dummy_gradient_by_hand():
    y = torch.tensor([1.0, 3.0] * 20, dtype=torch.float64)
    z = torch.tensor([2.0, 4.0] * 20, dtype=torch.float64)
    row = dummy_gradients([make_rows(z, y)], get_loss("squared")).table.iloc[0]
    # 2 z (z - y): 4 and 8; the best scale is (2 + 12) / (4 + 16).
    assert row["dummy gradient"] == pytest.approx(6)
    assert row["standard error"] == pytest.approx(2 / np.sqrt(40))
    assert row["best scale"] == pytest.approx(0.7, abs=1e-4)
    assert row["verdict"] == "too large"


def test_one_scale_for_all_or_none():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4000, generator=generator, dtype=torch.float64)
    y = (torch.rand(4000, generator=generator) < z.sigmoid()).long()
    loss = get_loss("logistic")

    def scaled(*scales):
        return dummy_gradients([make_rows(s * z, y, f"x{s}") for s in scales], loss)

    assert scaled(1.0).level == "good"
    mixed = scaled(3.0, 0.3)
    assert mixed.level == "warning"
    assert mixed.sentence.startswith(
        "The model is too sure in 'x3.0' and too timid in 'x0.3': no one scale"
    )
    assert mixed.table["best scale"].tolist() == pytest.approx([1 / 3, 1 / 0.3], rel=0.1)
    assert scaled(3.0, 1.0).level == "note"
    assert "shrinking" in scaled(3.0).sentence
    assert "enlarging" in scaled(0.3).sentence
    wrong = scaled(-1.0).table.iloc[0]
    assert wrong["best scale"] == pytest.approx(-1, abs=0.15)
    # A scale that is clearly off but by little is no finding.
    many = [make_rows(1.08 * z.repeat(20), y.repeat(20))]
    row = dummy_gradients(many, loss).table.iloc[0]
    assert abs(row["dummy gradient"]) > 2 * row["standard error"]
    assert row["verdict"] == "right"


def test_zero_outputs_have_no_scale():
    rows = make_rows(torch.zeros(30), torch.arange(30) % 2)
    row = dummy_gradients([rows], get_loss("logistic")).table.iloc[0]
    assert (row["best scale"], row["verdict"]) == (1.0, "right")


def test_dummies_of_each_class_add_up():
    rows = make_rows(
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    )
    one, several = (
        dummy_gradients([rows], get_loss(name)).table["dummy gradient"][0]
        for name in ("softmax", "softmax-per-class")
    )
    assert one == pytest.approx(several)


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_few_rows_of_a_class_do_not_fake_a_wrong_scale(name):
    """Right probabilities with one row in ten of the other class, often none of 30."""
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(60):
        parts = []
        for e in "abcdef":
            z = 1.5 * rng.standard_normal(30) - 2.5
            y = (rng.random(30) < 1 / (1 + np.exp(-z))).astype(np.int64)
            parts.append(make_rows(np.c_[0 * z, z] if name == "softmax" else z, y, e))
        alarms += dummy_gradients(parts, get_loss(name)).level != "good"
    assert alarms <= 7  # 5 % of 60 tables are 3; without the model's own error they were half.


def test_error_of_a_right_scale_by_hand():
    z = np.array([0.0, 1.0, -2.0, 3.0] * 10)
    p = 1 / (1 + np.exp(-z))
    rows = make_rows(z, (z > 0).astype(np.int64))
    row = dummy_gradients([rows], get_loss("logistic")).table.iloc[0]
    expected = np.sqrt((z**2 * p * (1 - p)).sum()) / 40
    assert row["standard error"] == pytest.approx(expected)
    two = make_rows(np.c_[np.full(40, 7.0), z + 7], (z > 0).astype(np.int64))
    row = dummy_gradients([two], get_loss("softmax")).table.iloc[0]
    assert row["standard error"] == pytest.approx(expected)
