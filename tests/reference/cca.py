"""Canonical correlations as textbooks write them: a generalized eigenproblem."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh


def canonical(a, b):
    """Correlations, largest first, and a's canonical vectors [n, c] of length 1.

    Solves C_ab C_bb⁻¹ C_ba w = ρ² C_aa w; both covariances must be invertible.
    """
    a, b = a - a.mean(0), b - b.mean(0)
    c_aa, c_bb, c_ab = a.T @ a, b.T @ b, a.T @ b
    squares, w = eigh(c_ab @ np.linalg.inv(c_bb) @ c_ab.T, c_aa)
    c = min(a.shape[1], b.shape[1])
    order = np.argsort(squares)[::-1][:c]
    h = a @ w[:, order]
    return np.sqrt(np.clip(squares[order], 0, 1)), h / np.linalg.norm(h, axis=0)


def pwcca(a, b):
    """Morcos, Raghu, Bengio (2018), with loops for sums."""
    correlations, h = canonical(a, b)
    a = a - a.mean(0)
    weights = [sum(abs(h[:, i] @ a[:, j]) for j in range(a.shape[1])) for i in range(h.shape[1])]
    return sum(w * r for w, r in zip(weights, correlations, strict=True)) / sum(weights)
