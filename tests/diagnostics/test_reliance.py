"""Permutation effects against an explicit computation and against what models are known to use."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diagnostics.made import NAMES, linear, make_environments
from invlearn.diagnostics import reliance as module
from invlearn.diagnostics.findings import predicted_rows
from invlearn.diagnostics.pieces import Piece, pieces_of
from invlearn.diagnostics.reliance import feature_reliance, permutation_increase, repeated_rows
from invlearn.environments import Environments
from invlearn.losses import get_loss

ORDERED = ([[-1.0], [0.0], [1.0]], [0.0, 0.6, 0.0])


def columns(names):
    return [Piece(name, torch.tensor([j])) for j, name in enumerate(names)]


def increase_of(model, rows, column, loss, rng):
    piece = Piece("one", torch.tensor([column]))
    return permutation_increase(model, rows, repeated_rows(rows), piece, loss, rng)


def model_of(task, weight):
    if task == "softmax":
        return linear(np.array(ORDERED[0]) * np.array(weight), ORDERED[1])
    return linear(weight)


def relied(weight, task="squared", names=NAMES, **options):
    envs = make_environments(task, **options)
    model = model_of(task, weight)
    rows = predicted_rows(model, envs, seen=["e0", "e1"])
    return feature_reliance(
        model, rows, get_loss(task), columns(names), rng=np.random.default_rng(0)
    )


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
def test_against_one_permutation_after_another(task):
    model = model_of(task, [0.6, 0.4, 0.2])
    rows = predicted_rows(model, make_environments(task, n=70, weights=True))[1]
    loss = get_loss(task)
    found = increase_of(model, rows, 1, loss, np.random.default_rng(5))
    rng, changes = np.random.default_rng(5), []
    for _ in range(5):
        order = rng.permutation(70)
        x = rows.x.clone()
        for i in range(70):
            x[i, 1] = rows.x[order[i], 1]
        changes.append((loss.value(model(x), rows.y) - loss.value(model(rows.x), rows.y)).detach())
    change, w = np.mean([c.numpy() for c in changes], axis=0), rows.shares.numpy()
    mean = np.average(change, weights=w)
    assert found[0] == pytest.approx(mean)


@pytest.mark.parametrize("task", ["squared", "logistic"])
@pytest.mark.parametrize("weights", [False, True])
def test_error_is_the_scatter_between_samples(task, weights):
    model, loss = linear([1.0, 0.5, 0.0]), get_loss(task)
    found = [
        increase_of(model, rows, column, loss, np.random.default_rng(seed))
        for seed in range(100)
        for envs in [make_environments(task, (0.7,), 200, seed=seed, weights=weights)]
        for rows in predicted_rows(model, envs)
        for column in (0, 1)
    ]
    increases, errors = np.array(found).reshape(100, 2, 2).transpose(2, 0, 1)
    scatter = increases.std(0, ddof=1)
    assert (errors.mean(0) > 0.85 * scatter).all()
    assert (errors.mean(0) < 1.5 * scatter).all()


def test_increase_of_a_squared_loss_by_theory():
    """Permuting the only column used adds twice its covariance with the target."""
    model = linear([1.0, 0.0, 0.0])
    rows = predicted_rows(model, make_environments(n=20_000))[0]
    found, error = increase_of(model, rows, 0, get_loss("squared"), np.random.default_rng(0))
    assert found == pytest.approx(2.0, abs=4 * error)  # 2 Cov(cause, y) = 2 Var(cause).
    nothing, _ = increase_of(model, rows, 2, get_loss("squared"), np.random.default_rng(0))
    assert nothing == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("task", ["squared", "logistic", "softmax"])
def test_a_shortcut_helps_and_hurts(task):
    finding = relied([0.8, 0.8, 0.0], task)
    verdicts = dict(zip(finding.table["feature"], finding.table["verdict"], strict=True))
    assert verdicts == {"shortcut": "helps and hurts", "cause": "helps", "noise": "no clear use"}
    assert finding.table["feature"][0] == "shortcut"
    row = finding.table.iloc[0]
    assert row["increase in e2"] < 0 < row["increase in e0"]
    assert finding.level == "warning"
    assert finding.sentence == (
        "The model relies on 'shortcut', which helps it in some environments and misleads it in "
        "others: 'shortcut' helps in 'e0' and 'e1' and misleads in 'e2' (new)."
    )


def test_a_cause_helps_and_noise_hurts():
    finding = relied([1.0, 0.0, 0.0])
    assert (finding.level, finding.action) == ("good", "Nothing to do.")
    assert finding.sentence == (
        "The model relies on 'cause'; no column misleads it in any environment."
    )
    # A column that enters with the wrong sign everywhere.
    finding = relied([1.0, -0.5, 0.0], strengths=(1.0, 0.8, 0.6))
    assert finding.level == "note"
    assert finding.sentence.startswith(
        "The model would do better if it did not look at 'shortcut': 'shortcut' misleads it in "
        "'e0', 'e1' and 'e2' (new)"
    )
    finding = relied([0.0, 0.0, 0.0])
    assert "clearly relies on no single column" in finding.sentence


def test_many_columns_and_rows_are_cut(monkeypatch):
    monkeypatch.setattr(module, "COLUMNS", 2)
    monkeypatch.setattr(module, "ROWS", 300)
    monkeypatch.setattr(module, "SHOWN", 1)
    finding = relied([0.01, 0.8, 0.5])
    assert finding.table["feature"].tolist() == ["shortcut"]
    assert finding.sentence.endswith(
        " At most 300 rows of an environment were used. Of 3 columns the 2 used most were "
        "permuted. The table shows 1 columns."
    )
    monkeypatch.setattr(module, "SHOWN", 5)
    assert set(relied([0.01, 0.8, 0.5]).table["feature"]) == {"shortcut", "noise"}


def test_few_rows_are_left_out():
    finding = relied([1.0, 0, 0], n=10)
    assert finding.sentence.startswith("Left out: it needs 1 environment")


def test_the_rows_are_left_as_they_are():
    envs = make_environments(n=50)
    before = envs.x.clone()
    model = linear([1.0, 1.0, 1.0])
    rng = np.random.default_rng(0)
    feature_reliance(
        model, predicted_rows(model, envs), get_loss("squared"), columns(NAMES), rng=rng
    )
    assert torch.equal(envs.x, before)


def test_slow_models_and_wide_rows_get_fewer_rows_and_columns(monkeypatch):
    monkeypatch.setattr(module, "SHOWN", 2)
    monkeypatch.setattr(module, "seconds_of_a_row", lambda model, x: 0.01)
    finding = relied([0.01, 0.8, 0.5])
    assert finding.sentence.endswith(
        " At most 66 rows of an environment were used. Of 3 columns the 2 used most were permuted."
    )
    assert set(finding.table["feature"]) == {"shortcut", "noise"}
    monkeypatch.setattr(module, "seconds_of_a_row", lambda model, x: 10.0)
    assert "At most 20 rows of an environment" in relied([0.01, 0.8, 0.5]).sentence


def test_the_columns_used_most_are_found_in_one_backward_pass():
    """A model that reads few of many columns, among them ones that cancel on average."""
    d = 600
    x = torch.randn(90, d, generator=torch.Generator().manual_seed(0))
    weight = np.zeros(d)
    weight[[7, 300, 599]] = [0.5, -2.0, 1.0]
    model = linear(weight).float()
    envs = Environments.from_arrays(x, model(x)[:, 0].detach(), ["a", "b", "c"] * 30)
    rows = predicted_rows(model, envs)
    found = module._most_used(model, rows, pieces_of(envs, None), 3, np.random.default_rng(0))
    assert [piece.name for piece in found] == ["x7", "x300", "x599"]
    nothing = module._most_used(Constant(), rows, found, 2, np.random.default_rng(0))
    assert len(nothing) == 2


class Constant(torch.nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 1)


def test_a_patch_and_a_channel_that_mislead_are_named():
    """The upper left patch is the cause; the second channel goes with the target but in 'c'."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(360) % 2
    sign = torch.tensor([1.0, 1.0, -1.0]).repeat_interleave(120)
    x = 0.3 * torch.randn(360, 2, 8, 8, generator=generator)
    x[:, 0, :4, :4] += (y - 0.5)[:, None, None]
    x[:, 1] += ((y - 0.5) * sign)[:, None, None]
    envs = Environments.from_arrays(x, y, np.repeat(list("abc"), 120))

    class Model(torch.nn.Module):
        def forward(self, x):
            z = 3 * x[:, 0, :4, :4].mean((1, 2)) + 1.5 * x[:, 1].mean((1, 2))
            return z[:, None]

    finding = feature_reliance(
        Model(), predicted_rows(Model(), envs), get_loss("logistic"), pieces_of(envs, None),
        rng=np.random.default_rng(0),
    )  # fmt: skip
    verdicts = dict(zip(finding.table["feature"], finding.table["verdict"], strict=True))
    assert verdicts["channel 1"] == "helps"
    assert verdicts["channel 2"] == "helps and hurts"
    assert finding.title == "Which parts the model relies on, and where that hurts"
    assert "'channel 2'" in finding.sentence
    assert len(verdicts) == 4 + 2
    assert verdicts["rows 1-4, columns 1-4 (upper left)"] == "helps"


def test_rows_of_another_shape_are_left_out():
    envs = Environments.from_arrays(torch.zeros(40, 2, 2, 2, 2), [0, 1] * 20, ["a", "b"] * 20)
    assert pieces_of(envs, None) == []
    finding = feature_reliance(
        Constant(), predicted_rows(Constant(), envs), get_loss("logistic"), [],
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert finding.sentence == "Left out: rows are neither columns nor images."
