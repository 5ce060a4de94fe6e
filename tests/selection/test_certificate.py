"""The certificate of a group of rows, by hand and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi2, chi2_contingency

from invlearn.selection import certify


def members(*counts):
    """A group with these (inside, outside) counts by environment, and the environments."""
    group = [flag for a, b in counts for flag in [True] * a + [False] * b]
    environment = [e for e, pair in enumerate(counts) for _ in range(sum(pair))]
    return torch.tensor(group), torch.tensor(environment)


def test_certificate_is_the_chi_squared_by_hand():
    # 50 expected inside and 50 outside in each: 4 · 20² / 50 = 32.
    found = certify(*members((30, 70), (70, 30)), 2)
    assert found.statistic == pytest.approx(32)
    assert found.p_value == pytest.approx(chi2.sf(32, 1))
    assert found.frequencies == pytest.approx((0.3, 0.7))
    assert found.holds


@pytest.mark.parametrize("n_envs", [2, 3, 7])
def test_certificate_equals_the_naive_chi_squared_and_scipys(n_envs):
    rng = np.random.default_rng(n_envs)
    counts = rng.integers(5, 60, (n_envs, 2))
    found = certify(*members(*counts.tolist()), n_envs)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    assert found.statistic == pytest.approx(((counts - expected) ** 2 / expected).sum())
    theirs = chi2_contingency(counts, correction=False)
    assert (found.statistic, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert found.frequencies == pytest.approx(counts[:, 0] / counts.sum(1))


def test_certificate_does_not_depend_on_the_order_of_rows_nor_on_the_side():
    group, environment = members((10, 40), (25, 25), (5, 60))
    order = torch.randperm(len(group), generator=torch.Generator().manual_seed(0))
    found = certify(group, environment, 3)
    assert certify(group[order], environment[order], 3) == found
    assert certify(~group, environment, 3).statistic == pytest.approx(found.statistic)


def test_equally_frequent_group_is_certified_as_rarely_as_the_level_says():
    g = torch.Generator().manual_seed(0)
    environment = torch.arange(900) % 3
    held = [certify(torch.rand(900, generator=g) < 0.2, environment, 3).holds for _ in range(400)]
    assert sum(held) <= 3


@pytest.mark.parametrize("counts", [[(0, 50), (0, 30)], [(50, 0), (30, 0)], [(20, 30), (0, 0)]])
def test_group_of_none_or_all_and_an_empty_environment_certify_nothing(counts):
    found = certify(*members(*counts), 2)
    assert (found.statistic, found.p_value, found.holds) == (0, 1, False)
    assert all(np.isfinite(found.frequencies))


def test_group_that_is_one_environment_is_certified():
    assert certify(*members((50, 0), (0, 50)), 2).statistic == pytest.approx(100)


def test_certificate_weighs_the_rows():
    group, environment = members((30, 70), (70, 30))
    plain = certify(group, environment, 2)
    # Rows of weight 3 in the first environment's group: fewer rows' worth of evidence.
    heavy = torch.where(group & (environment == 0), 3.0, 1.0)
    found = certify(group, environment, 2, heavy)
    assert found.frequencies == pytest.approx((90 / 160, 0.7))
    size = 160**2 / (30 * 9 + 70)
    f, g, mean = 90 / 160, 0.7, (size * 90 / 160 + 70) / (size + 100)
    expected = (size * (f - mean) ** 2 + 100 * (g - mean) ** 2) / (mean * (1 - mean))
    assert found.statistic == pytest.approx(expected)
    # The same rows twice are twice the evidence, equal weights of any size are none.
    again = certify(group, environment, 2, torch.full((200,), 0.3))
    assert again.statistic == pytest.approx(plain.statistic)
    twice = certify(group.repeat(2), environment.repeat(2), 2, torch.ones(400))
    assert twice.statistic == pytest.approx(2 * plain.statistic)


def test_environment_without_weight_certifies_nothing():
    found = certify(*members((20, 30), (30, 10)), 2, torch.tensor([1.0] * 50 + [0.0] * 40))
    assert (found.statistic, found.p_value, found.frequencies) == (0, 1, (0.4, 0))


@pytest.mark.parametrize("value", [True, False])
def test_environment_that_is_all_inside_or_all_outside(value):
    """Rounded sums of its weights leave its frequency between 0 and 1."""
    for n in range(20, 320):
        whole, half = torch.full((n,), value), torch.arange(n) < n // 2
        environment, shares = torch.arange(2 * n) // n, torch.full((2 * n,), 1 / n).double()
        found = certify(torch.cat([whole, half]), environment, 2, shares)
        assert found.frequencies == pytest.approx((float(value), n // 2 / n), abs=1e-12)
        assert 0 <= min(found.frequencies) <= max(found.frequencies) <= 1
        assert found.p_value < 0.01


def test_rows_of_hardly_any_weight_certify_nothing():
    weights = torch.tensor([0.05] * 20 + [1e-20] + [0.05] * 20 + [1e-20], dtype=torch.float64)
    environment = torch.arange(42) // 21
    group = torch.arange(42) != 20
    assert certify(group, environment, 2, weights).p_value == 1
    assert certify(~group, environment, 2, weights).p_value == 1


def test_weighted_group_that_is_equally_frequent_is_rarely_certified():
    g = torch.Generator().manual_seed(0)
    weights, environment = torch.rand(900, generator=g) + 0.1, torch.arange(900) % 3
    p_values = [
        certify(torch.rand(900, generator=g) < 0.3, environment, 3, weights).p_value
        for _ in range(2000)
    ]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.015)
