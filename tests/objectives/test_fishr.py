"""Fishr against the published formulas, its moving average included."""

from __future__ import annotations

import pytest
import torch

from conftest import make_model
from invlearn.errors import OptionError, UnknownNameError
from invlearn.objectives.fishr import Fishr
from objectives.made import LOSSES, SIZES, assert_equals_slow_version, make_batch, step


@pytest.mark.parametrize("convention", Fishr.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_the_slow_version(convention, loss, sizes, weighted):
    objective = Fishr(penalty_weight=7.0, convention=convention)
    assert_equals_slow_version("fishr", objective, loss, SIZES[sizes], weighted)


def test_value_and_gradient_with_a_past_are_those_of_the_slow_version():
    g = torch.Generator().manual_seed(0)
    state = torch.rand(2, 3, 6, dtype=torch.float64, generator=g)
    assert_equals_slow_version("fishr", Fishr(), "softmax", (9, 14), True, state)


def test_the_moving_average_is_the_published_one():
    objective, model, ema = Fishr(ema=0.9), make_model(), 0.9
    state = objective.init(2, torch.zeros(1).double())
    average = torch.zeros(2, 1, 6, dtype=torch.float64)
    still = Fishr(ema=0.0)
    for seed in range(3):
        batch = make_batch(objective, seed=seed)
        # Without an average the state is the variances of the step.
        _, _, variances = step(still, batch, model, "logistic", torch.zeros(2, 1, 1).double())
        average = ema * average + (1 - ema) * variances
        corrected = average / (1 - ema)
        terms, _, state = step(objective, batch, model, "logistic", state)
        wanted = (corrected - corrected.mean(0)).pow(2).mean(dim=(1, 2)).mean()
        torch.testing.assert_close(terms.penalty.detach(), wanted)
        torch.testing.assert_close(state, average)
        assert not state.requires_grad


def test_the_derivative_in_a_steps_variances_does_not_depend_on_the_average():
    batch, model = make_batch(Fishr()), make_model()
    nothing = torch.zeros(2, 1, 1, dtype=torch.float64)
    _, still, _ = step(Fishr(ema=0.0), batch, model, "logistic", nothing)
    _, moving, _ = step(Fishr(ema=0.95), batch, model, "logistic", nothing)
    for a, b in zip(still, moving, strict=True):
        torch.testing.assert_close(a, b)


def test_paper_and_colored_mnist_code_do_not_average_over_coordinates():
    def penalty(convention):
        means = {"risk": torch.zeros(2), "mass": torch.full((2,), 5.0)}
        means["gradient"] = torch.zeros(2, 3, 4)
        means["gradient_square"] = torch.arange(24.0).reshape(2, 3, 4)
        objective = Fishr(ema=0.0, convention=convention)
        return float(objective.value(means, torch.zeros(2, 1, 1))[0].penalty)

    assert penalty("domainbed") == penalty("mean") == 36.0
    assert penalty("fishr-cmnist") == 2 * 12 * 36.0
    assert penalty("fishr-paper") == pytest.approx(12 * 36.0 * (5 / 4) ** 2)


def test_errors():
    with pytest.raises(UnknownNameError, match="convention"):
        Fishr(convention="paper")
    with pytest.raises(OptionError, match=r"Expected ema of Fishr in \[0, 1\), got 1.*Use 0.95"):
        Fishr(ema=1.0)
