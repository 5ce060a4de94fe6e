"""Linear structural models: moments, and that only the causes predict everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from invlearn.datasets import Problem, linear_sem, load_benchmark
from invlearn.datasets.linear_sem import SETTINGS, structural_model, true_weights
from invlearn.errors import OptionError


def least_squares(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.lstsq(x.double(), y.double()[:, None]).solution[:, 0]


def rows(benchmark: Problem) -> Tensor:
    assert isinstance(benchmark.train.x, Tensor)
    return benchmark.train.x


@pytest.mark.parametrize("setting", SETTINGS)
def test_shapes_and_names(setting: str) -> None:
    benchmark = load_benchmark("linear-sem", seed=0, setting=setting)
    small = setting == "appendix-d"
    d, n = (2, 10_000) if small else (5, 1000)
    names = ("e=0.1", "e=1") if small else ("e=0.2", "e=2", "e=5")
    assert benchmark.train.names == names
    assert benchmark.validation is not None
    assert benchmark.validation.names == names
    assert benchmark.target == ("e=3" if small else "e=10")
    assert benchmark.test.names == (*names, benchmark.target)
    assert benchmark.train.sizes == benchmark.validation.sizes == (n,) * len(names)
    assert rows(benchmark).shape == (n * len(names), 2 * d)
    assert rows(benchmark).dtype == benchmark.train.y.dtype == torch.float32
    assert benchmark.train.y.ndim == 1
    assert (benchmark.loss, benchmark.n_outputs) == ("squared", 1)
    assert benchmark.description["setting"] == setting
    assert (benchmark.without_shortcut is None) == setting.endswith("S")
    if benchmark.without_shortcut is not None:
        causes = benchmark.without_shortcut(rows(benchmark))
        assert torch.equal(causes, rows(benchmark)[:, :d])


def test_moments_of_the_appendix() -> None:
    for (_, x, y), e in zip(load_benchmark("linear-sem", seed=0).train, (0.1, 1.0), strict=True):
        assert isinstance(x, Tensor)
        variance = x.var(dim=0)
        assert variance[:2].tolist() == pytest.approx([e**2] * 2, rel=0.08)
        assert variance[2:].tolist() == pytest.approx([1 + 2 * e**2] * 2, rel=0.08)
        assert y.var().item() == pytest.approx(4 * e**2, rel=0.08)


@pytest.mark.parametrize(
    ("setting", "noise_y", "noise_z"),
    [("FOU", lambda e: 1.0, lambda e: e), ("FEU", lambda e: e, lambda e: 1.0)],
)
def test_moments_of_fully_observed_codes(setting, noise_y, noise_z) -> None:  # type: ignore[no-untyped-def]
    for (_, x, y), e in zip(
        load_benchmark("linear-sem", seed=0, setting=setting).train, (0.2, 2.0, 5.0), strict=True
    ):
        variance_y = 2 * e**2 + noise_y(e) ** 2
        assert x[:, :5].var().item() == pytest.approx(2 * e**2, rel=0.1)
        assert x[:, 5:].var().item() == pytest.approx(variance_y + noise_z(e) ** 2, rel=0.1)
        assert y.var().item() == pytest.approx(5 * variance_y, rel=0.15)
        residual = y - x[:, :5].sum(dim=1)
        assert residual.var().item() == pytest.approx(5 * noise_y(e) ** 2, rel=0.15)


@pytest.mark.parametrize("setting", ["appendix-d", "FOU", "FEU"])
def test_regression_on_causes_is_right_and_on_everything_wrong(setting: str) -> None:
    benchmark = load_benchmark("linear-sem", seed=2, setting=setting)
    x, y, truth = rows(benchmark), benchmark.train.y, true_weights(setting, 2).double()
    d = x.shape[1] // 2
    assert (least_squares(x, y) - truth).abs().max() > 0.1
    assert (least_squares(x[:, :d], y) - truth[:d]).abs().max() < 0.1


def test_hidden_variable_confounds_the_partially_observed_codes() -> None:
    benchmark = load_benchmark("linear-sem", seed=2, setting="POU")
    hidden = structural_model("POU", 2).hidden
    assert hidden is not None
    into_x, into_y = (torch.from_numpy(weights) for weights in hidden[:2])
    covariance = torch.eye(5, dtype=torch.float64) + into_x.T @ into_x
    bias = torch.linalg.solve(covariance, into_x.T @ into_y.sum(dim=1))
    got = least_squares(rows(benchmark)[:, :5], benchmark.train.y) - 1
    assert bias.norm() > 0.1
    assert (got - bias).norm() < bias.norm() / 2


def test_scrambling_rotates_the_same_rows() -> None:
    plain, mixed = (load_benchmark("linear-sem", seed=7, setting=s) for s in ("FES", "FEU"))
    mixing = structural_model("FES", 7).mixing
    assert mixing is not None
    matrix = torch.from_numpy(mixing)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(
        rows(plain).double(), rows(mixed).double() @ matrix, rtol=1e-4, atol=1e-4
    )
    assert torch.equal(plain.train.y, mixed.train.y)
    weights = true_weights("FES", 7)
    torch.testing.assert_close(
        rows(plain) @ weights, rows(mixed)[:, :5].sum(dim=1), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_seeds_and_fresh_rows(setting: str) -> None:
    first, again, other = (load_benchmark("linear-sem", seed=s, setting=setting) for s in (1, 1, 2))
    assert torch.equal(rows(first), rows(again))
    assert torch.equal(first.train.y, again.train.y)
    assert not torch.equal(rows(first), rows(other))
    assert first.validation is not None
    assert not torch.equal(first.train.y, first.validation.y)
    assert not torch.equal(first.train.y[:1000], first.test.targets[0][:1000])
    assert torch.equal(true_weights(setting, 1), true_weights(setting, 1))


@pytest.mark.parametrize("function", [linear_sem.true_weights, linear_sem.structural_model])
def test_unknown_setting(function) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OptionError) as caught:
        function("XYZ", 0)
    assert str(caught.value) == (
        "Expected option 'setting' to be one of 'appendix-d', 'FOU', 'FOS', 'FEU', 'FES', "
        "'POU', 'POS', 'PEU', 'PES', got 'XYZ'. Choose one of them."
    )
