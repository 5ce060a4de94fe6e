"""Rows to evaluate on, of environments that may share their features."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from invlearn.environments.checked import counted
from invlearn.environments.rows import Environments
from invlearn.features import Features


@dataclass(frozen=True, repr=False)
class EvaluationSet:
    """Environments to evaluate on, whose rows may share features.

    Test environments that differ only in the shortcut (one digit in every color) share
    their images: the features are forwarded once and every environment picks its rows.

    Attributes
    ----------
    x : Features of m distinct rows
    names : tuple of str
    rows : tuple of Tensor [n_e], int64
        Which of the m rows each environment is made of.
    targets : tuple of Tensor [n_e] or [n_e, k]
    split : str
        'train', 'validation', 'test' or 'left-out': the column of the results table.
    weights : tuple of Tensor [n_e], or None
        Row weights.

    Examples
    --------
    >>> envs = Environments.from_arrays([[0.0], [1.0], [2.0], [3.0]], [0, 1, 0, 1], list("aabb"))
    >>> EvaluationSet.from_environments(envs, "validation")
    EvaluationSet(validation; a: 2 rows, b: 2 rows)
    """

    x: Features
    names: tuple[str, ...]
    rows: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]
    split: str
    weights: tuple[Tensor, ...] | None = None

    def __repr__(self) -> str:
        return f"EvaluationSet({self.split}; {counted(self.names, list(map(len, self.rows)))})"

    @classmethod
    def from_environments(cls, environments: Environments, split: str) -> EvaluationSet:
        """Every row once, in place."""
        sizes, weights = list(environments.sizes), environments.weights
        return cls(
            environments.x,
            environments.names,
            torch.split(torch.arange(environments.n_rows), sizes),
            torch.split(environments.y, sizes),
            split,
            None if weights is None else torch.split(weights, sizes),
        )

    def with_features(self, x: Features) -> EvaluationSet:
        """The same environments over other features of the same m rows."""
        return replace(self, x=x)

    def to(self, device: torch.device | str) -> EvaluationSet:
        """The same rows on another device."""
        return replace(
            self,
            x=self.x.to(device),
            rows=tuple(rows.to(device) for rows in self.rows),
            targets=tuple(y.to(device) for y in self.targets),
            weights=None if self.weights is None else tuple(w.to(device) for w in self.weights),
        )
