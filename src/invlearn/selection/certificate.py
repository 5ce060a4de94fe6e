"""Whether a group of rows is unequally frequent in the environments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

LEVEL = 1e-3
"""Level of the test that the group is as frequent in every environment."""


class Certificate(NamedTuple):
    """Whether a group of rows is unequally frequent in the environments.

    statistic: chi-squared with E − 1 degrees of freedom; frequencies [E].
    """

    statistic: float
    p_value: float
    frequencies: tuple[float, ...]

    @property
    def holds(self) -> bool:
        """Whether the frequencies differ beyond chance."""
        return self.p_value < LEVEL


def certify(
    group: Tensor, environment: Tensor, n_envs: int, weights: Tensor | None = None
) -> Certificate:
    """Test whether a group's frequency differs between environments.

    It may differ for other reasons than a shortcut: environments with unequal label noise have
    unequal frequencies of a reference's errors too. A certificate that fails is therefore
    worth more than one that holds.

    Parameters
    ----------
    group : Tensor [n], bool
    environment : Tensor [n], int64
    n_envs : int
    weights : Tensor [n], optional
        Row weights. An environment counts as the (Σ w)² / Σ w² rows of equal weight that would
        know as much.

    Examples
    --------
    >>> group = torch.tensor([True] * 30 + [False] * 70 + [True] * 70 + [False] * 30)
    >>> certify(group, torch.arange(200) // 100, 2).holds
    True
    """
    from scipy.stats import chi2, chi2_contingency

    w = torch.ones(len(group), dtype=torch.float64) if weights is None else weights.double()
    inside, total, squares = (
        torch.bincount(e, values, n_envs).numpy()
        for e, values in (
            (environment[group], w[group]),
            (environment, w),
            (environment, w.square()),
        )
    )
    frequencies = np.divide(inside, total, out=np.zeros(n_envs), where=total > 0)
    shown = tuple(frequencies.tolist())
    sizes = np.divide(total**2, squares, out=np.zeros(n_envs), where=total > 0)
    counts = np.stack([sizes * frequencies, sizes * (1 - frequencies)])
    if min(counts.sum(0).min(), counts.sum(1).min()) < 1e-9:
        return Certificate(0.0, 1.0, shown)
    statistic = float(chi2_contingency(counts, correction=False).statistic)
    return Certificate(statistic, float(chi2.sf(statistic, n_envs - 1)), shown)
