"""Sets to evaluate on."""

from __future__ import annotations

import numpy as np
import torch

from invlearn.environments import Environments, EvaluationSet

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 1, 0])
LABELS = ["b", "a", "b", "a", "a", "b"]


def test_an_evaluation_set_holds_every_row_once_in_place():
    envs = Environments.from_arrays(X, Y, [1, 0, 0, 0, 0, 1])
    data = EvaluationSet.from_environments(envs, "validation")
    assert data.split == "validation"
    assert data.names == ("0", "1")
    assert [rows.tolist() for rows in data.rows] == [[0, 1, 2, 3], [4, 5]]
    assert [y.tolist() for y in data.targets] == [[1, 0, 1, 1], [0, 0]]
    for (_, x, y), rows, targets in zip(envs, data.rows, data.targets, strict=True):
        assert data.x[rows].equal(x)
        assert targets.equal(y)


def test_an_evaluation_set_swaps_its_features():
    data = EvaluationSet.from_environments(Environments.from_arrays(X, Y, LABELS), "test")
    other = torch.rand(6, 9)
    swapped = data.with_features(other)
    assert swapped.x is other
    assert (swapped.names, swapped.rows, swapped.split) == (data.names, data.rows, data.split)
