"""Groups of rows beside their environments, for the objectives that read groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from invlearn.environments.rows import Environments
from invlearn.errors import EnvironmentsError


def with_groups(environments: Environments, labels: Any) -> Environments:
    """The same rows with a group for each, beside its environment.

    Parameters
    ----------
    environments : Environments
    labels : array of n labels
        In the order of the rows there; hashable and sortable, the groups' names are their ``str``.

    Raises
    ------
    EnvironmentsError
        Another number of labels than rows.

    Examples
    --------
    >>> envs = Environments.from_arrays([[0.0]] * 4, [0, 1, 0, 1], list("aabb"))
    >>> with_groups(envs, ["x", "y", "y", "y"]).group_names
    ('x', 'y')
    """
    if len(labels) != environments.n_rows:
        raise EnvironmentsError(
            f"Expected a group for each of {environments.n_rows} rows, got {len(labels)} labels. "
            "Give them in the order of the rows, which are sorted by environment."
        )
    names, number = np.unique(np.asarray(labels), return_inverse=True)
    groups = torch.as_tensor(number.reshape(-1), dtype=torch.int64, device=environments.device)
    return replace(environments, groups=groups, group_names=tuple(map(str, names)))


def by_label(environments: Environments) -> Environments:
    """The same rows with a group for every target class of every environment.

    Raises
    ------
    EnvironmentsError
        Targets that are no classes.

    Examples
    --------
    >>> envs = Environments.from_arrays([[0.0]] * 4, [0, 1, 1, 1], list("aabb"))
    >>> by_label(envs).group_names
    ('0 in a', '1 in a', '1 in b')
    """
    y = environments.y
    if y.is_floating_point() or y.ndim != 1:
        raise EnvironmentsError(
            f"Expected targets that are classes to group by, got {y.dtype} of shape "
            f"{tuple(y.shape)}. Use with_groups(environments, labels)."
        )
    pairs = zip(y.tolist(), environments.index.tolist(), strict=True)
    labels = [f"{label} in {environments.names[e]}" for label, e in pairs]
    return with_groups(environments, labels)
