"""How sure a number is: bootstrap over rows, and comparisons between environments."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from invlearn.errors import OptionError

Floats = npt.NDArray[np.float64]

LEVEL = 0.05
"""Chance of a false alarm that a comparison allows, over all its tests together."""

CELLS = 200_000
"""Counts held at once, draws times rows: so few stay in the processor's cache."""


class Interval(NamedTuple):
    """95 % percentile-bootstrap interval and the draws' standard deviation."""

    low: float
    high: float
    standard_error: float


def resampled_means(
    values: Floats, shares: Floats, draws: int, rng: np.random.Generator, *, cells: int = CELLS
) -> Floats:
    r"""Weighted means over rows drawn with replacement.

    .. math:: \frac{\sum_i c_i s_i v_i}{\sum_i c_i s_i}, \qquad
        c \sim \mathrm{Multinomial}(n, 1/n)

    Parameters
    ----------
    values : array [n] or [n, m]
    shares : array [n]
        Positive row weights.
    draws : int
    rng : numpy Generator
    cells : int
        Counts held at once. A row's draws come in the same order whatever this is.

    Returns
    -------
    array [draws] or [draws, m]

    Examples
    --------
    >>> resampled_means(np.full(5, 2.0), np.ones(5), 3, np.random.default_rng(0))
    array([2., 2., 2.])
    """
    n = len(shares)
    # Centered, a mean of many rows does not lose the digits in which the draws differ.
    center = shares @ values / shares.sum()
    weighted = shares[:, None] * (values - center).reshape(n, -1)
    columns = np.concatenate([weighted, shares[:, None]], axis=1)
    at_once = max(1, cells // n)
    sums = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        picked = rng.integers(0, n, (size, n)) + n * np.arange(size)[:, None]
        counts = np.bincount(picked.ravel(), minlength=size * n).reshape(size, n)
        sums.append(counts.astype(np.float64) @ columns)
    total = np.concatenate(sums)
    means: Floats = total[:, :-1] / total[:, -1:]
    found: Floats = center + (means if values.ndim > 1 else means[:, 0])
    return found


def interval(draws: Floats) -> Interval:
    """Summary of a statistic's bootstrap draws [B].

    Examples
    --------
    >>> interval(np.arange(101.0))[:2]
    (2.5, 97.5)
    """
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(float(low), float(high), float(draws.std(ddof=1)))


def check_draws(draws: int) -> None:
    """Raise OptionError where there are too few draws for an interval's ends."""
    if draws < 40:
        raise OptionError(
            f"Expected at least 40 bootstrap draws, got {draws}: below that an end of a 95 % "
            "interval is less than one draw from the extreme. Use 500."
        )


def normal_bound(tests: int) -> float:
    """How many standard errors one of so many two-sided tests has to exceed (Bonferroni).

    Examples
    --------
    >>> round(normal_bound(1), 2), round(normal_bound(10), 2)
    (1.96, 2.81)
    """
    from scipy.special import ndtri

    return float(-ndtri(LEVEL / (2 * max(tests, 1))))


class Gap(NamedTuple):
    """Difference between two environments: the higher one's number less the lower one's.

    lower, higher: their positions; margin: half the width of the difference's interval,
    wide enough for the pair to have been picked after a look at all pairs.
    """

    lower: int
    higher: int
    difference: float
    margin: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.difference > self.margin


def widest_gap(values: Floats, errors: Floats) -> Gap:
    """The largest clear difference between two of at least two environments.

    Where no difference is clear, the largest.

    Parameters
    ----------
    values, errors : array [E]
        A number of each environment and its standard error.

    Examples
    --------
    >>> gap = widest_gap(np.array([0.9, 0.5, 0.1]), np.array([0.01, 0.01, 1.0]))
    >>> gap.higher, gap.lower, gap.clear
    (0, 1, True)
    """
    pairs = list(combinations(range(len(values)), 2))
    bound = normal_bound(len(pairs))
    gaps = []
    for a, b in pairs:
        low, high = (a, b) if values[a] <= values[b] else (b, a)
        margin = bound * float(np.hypot(errors[a], errors[b]))
        gaps.append(Gap(low, high, float(values[high] - values[low]), margin))
    return max(gaps, key=lambda gap: (gap.clear, gap.difference))
