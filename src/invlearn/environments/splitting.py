"""Which rows of an environment are held out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def stratified(y: Tensor, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Sorted positions of the held-out rows, proportional in every class."""
    n = len(y)
    count = min(max(round(fraction * n), 1), n - 1)
    order = rng.permutation(n)
    classes = y.ndim == 1 and (not y.is_floating_point() or len(torch.unique(y)) <= 20)
    if classes:
        # Sorting a random order by class and taking evenly spaced rows keeps proportions.
        order = order[np.argsort(y.numpy()[order], kind="stable")]
        start = rng.random()
        picks = np.floor((np.arange(count) + start) * n / count).astype(np.int64)
        return np.sort(order[np.minimum(picks, n - 1)])
    return np.sort(order[:count])
