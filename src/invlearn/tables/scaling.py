"""Numbers made to have mean 0 and deviation 1 in training, bounded, and never missing."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from invlearn.tables.json_state import State
from invlearn.tables.kinds import FloatArray
from invlearn.tables.messages import quoted

Features = npt.NDArray[np.float32]

CLIPPED_BEYOND = 10.0

# Squares of larger numbers overflow; a power of two shrinks them without rounding.
_LARGE = 1e150
_SHRINK = 2.0**-600


class Standard(State):
    """Median, mean and deviation of training numbers.

    Missing numbers take the median, of those present; mean and deviation are of all rows once the
    median is in. Standardized numbers are clipped to 10 deviations on either side: in a linear
    model a single typo would otherwise outweigh every other feature.

    Examples
    --------
    >>> standard = Standard.fit(np.array([1.0, 3.0]))
    >>> standard.transform(np.array([1.0, np.nan, 1e9])).tolist()
    [-1.0, 0.0, 10.0]
    """

    median: float
    mean: float
    scale: Annotated[float, Field(gt=0)]
    missing: bool

    @classmethod
    def fit(cls, numbers: FloatArray) -> Standard:
        """State of training numbers [n], at least one of them not NaN."""
        present = numbers[~np.isnan(numbers)]
        shrink = _SHRINK if np.abs(present).max() > _LARGE else 1.0
        median = np.median(present * shrink)
        filled = np.where(np.isnan(numbers), median, numbers * shrink)
        # A constant's deviation can come out as a rounding error instead of 0.
        scale = float(filled.std() / shrink) if filled.min() < filled.max() else 0.0
        return cls(
            median=float(median / shrink),
            mean=float(filled.mean() / shrink),
            scale=scale or 1.0,
            missing=len(present) < len(numbers),
        )

    def names(self, column: str) -> tuple[str, ...]:
        """Name of the feature that says that a value is missing, if any was in training."""
        return (f"{column} is missing",) if self.missing else ()

    def indicators(self, numbers: FloatArray) -> tuple[Features, ...]:
        """That feature [n], if any was missing in training."""
        return (np.isnan(numbers).astype(np.float32),) if self.missing else ()

    def transform(self, numbers: FloatArray) -> Features:
        """Standardized, clipped numbers [n]; the median where missing."""
        filled = np.where(np.isnan(numbers), self.median, numbers)
        clipped = np.clip(self._deviations(filled), -CLIPPED_BEYOND, CLIPPED_BEYOND)
        return clipped.astype(np.float32)

    def notes(self, column: str, numbers: FloatArray) -> list[str]:
        """Sentences on new numbers [n] that are newly missing or far off."""
        notes = []
        missing = np.isnan(numbers)
        if missing.any() and not self.missing:
            notes.append(
                f"{int(missing.sum()):,} of {len(numbers):,} values of {quoted(column)} count as "
                "missing; none did in training, so each takes the median."
            )
        far = np.abs(self._deviations(numbers[~missing])) > CLIPPED_BEYOND
        if far.any():
            notes.append(
                f"{100 * far.sum() / len(numbers):.2g} % of the values of {quoted(column)} lie "
                f"more than {CLIPPED_BEYOND:g} standard deviations from the training mean; they "
                "are clipped."
            )
        return notes

    def _deviations(self, numbers: FloatArray) -> FloatArray:
        with np.errstate(over="ignore"):
            # Halves: a difference of two finite numbers can overflow, that of halves cannot.
            deviations: FloatArray = (numbers / 2 - self.mean / 2) / self.scale * 2
        return deviations
