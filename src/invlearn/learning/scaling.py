"""The scale of columns, which networks learn in units of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def location_and_scale(values: Array, weights: Array) -> tuple[Array, Array]:
    """Weighted mean and standard deviation of columns [n, ...]; 1 for the deviation of a constant.

    Squares of the largest numbers overflow and those of the smallest vanish: each column is
    divided by its largest value first.
    """
    share = weights / weights.sum()
    largest = np.abs(values).max(0)
    unit = np.where(largest > 0, largest, 1.0)
    scaled = values / unit
    mean = share @ scaled
    spread = np.sqrt(share @ np.square(scaled - mean))
    # A column whose spread is rounding noise is constant.
    constant = spread <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    deviation = np.where(constant | (spread * unit == 0), 1.0, spread * unit)
    return mean * unit, deviation
