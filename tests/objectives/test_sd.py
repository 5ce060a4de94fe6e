"""Spectral decoupling against its formula, with one output and with several."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from invlearn.errors import OptionError, UnknownNameError
from invlearn.losses import get_loss
from invlearn.objectives.sd import SD
from objectives.made import LOSSES, SIZES, assert_equals_slow_version


@pytest.mark.parametrize("convention", SD.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_the_slow_version(convention, loss, sizes, weighted):
    objective = SD(penalty_weight=0.7, convention=convention)
    assert_equals_slow_version("sd", objective, loss, SIZES[sizes], weighted)


def value(objective, z, y):
    moments = objective.moments(get_loss("softmax"), z, y, None)
    return objective.value({name: rows.mean()[None] for name, rows in moments.items()}, None)[0]


def test_domainbed_takes_the_mean_of_squares_over_rows_and_outputs():
    z = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    got = value(SD(penalty_weight=0.3, convention="domainbed"), z, y)
    torch.testing.assert_close(got.total, F.cross_entropy(z, y) + 0.3 * (z**2).mean())
    torch.testing.assert_close(got.penalty, (z**2).mean())


def test_the_papers_formula_is_half_the_squared_norm_of_a_rows_outputs():
    z, y = torch.tensor([[3.0, 4.0]], dtype=torch.float64), torch.tensor([0])
    assert float(value(SD(convention="sd-paper"), z, y).penalty) == 12.5


@pytest.mark.parametrize(("weight", "best"), [(0.01, 2.8), (0.1, 1.2), (0.5, 0.4)])
def test_best_output_for_rows_of_one_class_is_the_documented_one(weight, best):
    z = torch.arange(0.0, 5.0, 0.01, dtype=torch.float64)[:, None]
    moments = SD().moments(get_loss("logistic"), z, torch.ones(len(z)), None)
    totals = [
        SD(penalty_weight=weight).value({name: m[i : i + 1] for name, m in moments.items()}, None)
        for i in range(len(z))
    ]
    lowest = torch.stack([terms.total for terms, _ in totals]).argmin()
    assert float(z[lowest]) == pytest.approx(best, abs=0.05)


def test_errors():
    with pytest.raises(UnknownNameError, match="convention"):
        SD(convention="sd-papr")
    with pytest.raises(OptionError, match="penalty_weight of SD to be a finite number, 0 or more"):
        SD(penalty_weight=-1.0)
