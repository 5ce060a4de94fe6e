"""The bootstrap against a slow loop and against theory; comparisons between environments."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import norm

from invlearn.diagnostics.intervals import (
    check_draws,
    interval,
    normal_bound,
    resampled_means,
    widest_gap,
)
from invlearn.errors import OptionError


def slow_means(values, shares, draws, rng):
    """One draw after another, one row after another."""
    found = []
    for _ in range(draws):
        top, bottom = 0.0, 0.0
        for i in rng.integers(0, len(shares), len(shares)):
            top = top + shares[i] * values[i]
            bottom = bottom + shares[i]
        found.append(top / bottom)
    return np.array(found)


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("cells", [1, 50, 10_000])
def test_agrees_with_a_slow_loop(columns, cells):
    rng = np.random.default_rng(0)
    values, shares = rng.normal(5, 1, (13, *columns)), rng.random(13) + 0.1
    fast = resampled_means(values, shares, 7, np.random.default_rng(1), cells=cells)
    slow = slow_means(values, shares, 7, np.random.default_rng(1))
    assert fast.shape == (7, *columns)
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_spread_is_that_of_a_weighted_mean():
    rng = np.random.default_rng(0)
    values, shares = rng.normal(0, 2, 2000), rng.random(2000)
    shares /= shares.sum()
    found = interval(resampled_means(values, shares, 2000, rng))
    mean = shares @ values
    error = np.sqrt(((shares * (values - mean)) ** 2).sum())
    assert found.standard_error == pytest.approx(error, rel=0.06)
    assert found.low == pytest.approx(mean - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(mean + 1.96 * error, abs=0.2 * error)


def test_large_means_keep_their_digits():
    values = 1e9 + np.arange(20.0)
    found = resampled_means(values, np.ones(20), 50, np.random.default_rng(0))
    assert found.std() == pytest.approx(np.arange(20.0).std() / np.sqrt(20), rel=0.3)


def test_interval_ends_are_percentiles():
    assert interval(np.arange(1001.0))[:2] == (25.0, 975.0)


def test_bound_shares_the_level_among_the_tests():
    assert normal_bound(1) == pytest.approx(1.959964, abs=1e-6)
    assert 2 * norm.sf(normal_bound(20)) * 20 == pytest.approx(0.05)


def test_widest_gap_prefers_a_clear_one():
    gap = widest_gap(np.array([1.0, 3.0, 10.0]), np.array([0.1, 0.1, 5.0]))
    assert (gap.lower, gap.higher, gap.difference, gap.clear) == (0, 1, 2.0, True)
    assert gap.margin == pytest.approx(norm.isf(0.05 / 6) * np.hypot(0.1, 0.1))
    unclear = widest_gap(np.array([1.0, 3.0, 10.0]), np.full(3, 50.0))
    assert (unclear.lower, unclear.higher, unclear.clear) == (0, 2, False)


def test_rarely_a_false_alarm():
    rng = np.random.default_rng(0)
    alarms = [widest_gap(rng.normal(size=8), np.ones(8)).clear for _ in range(1000)]
    assert np.mean(alarms) < 0.07


def test_few_draws_are_refused():
    message = (
        "Expected at least 40 bootstrap draws, got 39: below that an end of a 95 % interval is "
        "less than one draw from the extreme. Use 500."
    )
    with pytest.raises(OptionError, match=re.escape(message)):
        check_draws(39)
    check_draws(40)
