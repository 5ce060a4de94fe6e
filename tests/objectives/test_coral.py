"""CORAL against the published formulas, pair by pair."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from invlearn.errors import UnknownNameError
from invlearn.objectives.coral import CORAL
from objectives.made import LOSSES, SIZES, assert_equals_slow_version


@pytest.mark.parametrize("convention", CORAL.conventions)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_the_slow_version(convention, loss, sizes, weighted):
    objective = CORAL(penalty_weight=0.7, convention=convention)
    assert_equals_slow_version("coral", objective, loss, SIZES[sizes], weighted)


def features(*sizes):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n, 4, dtype=torch.float64, generator=g) * (1 + n / 5) for n in sizes]


def penalty(convention, parts):
    means = {
        "risk": torch.zeros(len(parts), dtype=torch.float64),
        "feature": torch.stack([h.mean(0) for h in parts]),
        "feature_product": torch.stack([h.T @ h / len(h) for h in parts]),
        "mass": torch.tensor([float(len(h)) for h in parts], dtype=torch.float64),
    }
    return CORAL(convention=convention).value(means, None)[0].penalty


def test_domainbed_is_the_mean_over_pairs_of_mean_squared_differences():
    parts, wanted = features(7, 9, 12), []
    for a, b in combinations(parts, 2):
        centres = (a.mean(0) - b.mean(0)).pow(2).mean()
        wanted.append(centres + (torch.cov(a.T) - torch.cov(b.T)).pow(2).mean())
    torch.testing.assert_close(penalty("domainbed", parts), torch.stack(wanted).mean())


def test_the_papers_is_the_frobenius_norm_of_the_covariances_difference():
    a, b = features(7, 9)
    wanted = torch.linalg.matrix_norm(torch.cov(a.T) - torch.cov(b.T)) ** 2 / (4 * 4**2)
    torch.testing.assert_close(penalty("coral-paper", [a, b]), wanted)


def test_equal_features_cost_nothing():
    (h,) = features(8)
    assert float(penalty("mean", [h, h])) == 0.0


def test_a_single_row_has_no_covariance():
    parts = features(1, 9)
    assert torch.isfinite(penalty("domainbed", parts))


def test_errors():
    with pytest.raises(UnknownNameError, match="convention"):
        CORAL(convention="deep")
