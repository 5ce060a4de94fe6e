"""What rows of environments have to be: numbers, finite, alike and labeled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.errors import EnvironmentsError, unknown_name
from invlearn.features import Features, as_rows, check_finite


def tensor_of(what: str, name: str, values: Any) -> Tensor:
    """Tensor of an array's numbers: floats in torch's default type, whole numbers as they are."""
    where = f" of environment '{name}'" if name else ""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise EnvironmentsError(
            f"Expected rows of one length in {what}{where}, got ragged ones. "
            "Give every row the same columns."
        ) from error
    if array.dtype.kind not in "fiub":
        raise EnvironmentsError(
            f"Expected numbers in {what}{where}, got {array.dtype}. Encode them as numbers first."
        )
    dtype = torch.get_default_dtype() if array.dtype.kind == "f" else None
    # A copy: a table's arrays may be read-only, reversed, or changed by their owner later.
    return torch.as_tensor(np.array(array, order="C"), dtype=dtype)


def rows_of_part(
    name: str, x: Any, y: Any, weights: Any = None
) -> tuple[Features, Tensor, Tensor | None]:
    """Tensors of the library's kinds: float features, integer or float targets."""
    x = x if isinstance(x, Features) else tensor_of("x", name, x)
    if isinstance(x, Tensor):
        if not x.is_floating_point():
            x = x.to(torch.get_default_dtype())
        if x.ndim == 1:
            x = x[:, None]
    y = y if isinstance(y, Tensor) else tensor_of("y", name, y)
    if not y.is_floating_point():
        y = y.to(torch.int64)
    if weights is not None:
        weights = weights if isinstance(weights, Tensor) else tensor_of("weights", name, weights)
        weights = weights.to(x.dtype)
    return x, y, weights


def check_rows(name: str, x: Features, y: Tensor, w: Tensor | None, min_rows: int) -> None:
    """Raise EnvironmentsError for unequal lengths, too few rows, numbers that cannot be."""
    lengths = {"x": len(x), "y": len(y)} | ({} if w is None else {"weights": len(w)})
    if len(set(lengths.values())) > 1:
        raise EnvironmentsError(
            f"Expected equally many rows in environment '{name}', got {lengths}. "
            "Pass one target per row."
        )
    if len(y) < min_rows:
        what = "is empty" if len(y) == 0 else f"has {len(y)} row{'s' if len(y) > 1 else ''}"
        raise EnvironmentsError(
            f"Environment '{name}' {what}; expected at least {min_rows} rows. "
            "Drop it or merge it with another environment."
        )
    as_rows(x).check(f"environment '{name}'")
    for what, tensor in (("y", y), ("weights", w)):
        if tensor is not None:
            check_finite(what, f"environment '{name}'", tensor)
    if w is not None and ((w < 0).any() or w.sum() <= 0):
        raise EnvironmentsError(
            f"Expected non-negative row weights with a positive sum in environment '{name}'. "
            "Clip them or drop the environment."
        )


def check_alike(names: Sequence[str], xs: Sequence[Features], ys: Sequence[Tensor]) -> None:
    """Raise EnvironmentsError unless rows and targets are of one kind in every environment."""
    kinds = {(type(x), x.dtype, tuple(as_rows(x).row_shape)) for x in xs}
    if len(kinds) > 1:
        shapes = {name: tuple(as_rows(x).row_shape) for name, x in zip(names, xs, strict=True)}
        raise EnvironmentsError(
            f"Expected rows of one shape in every environment, got {shapes}. "
            "Give every environment the same columns."
        )
    targets = {name: (str(y.dtype), *y.shape[1:]) for name, y in zip(names, ys, strict=True)}
    if len(set(targets.values())) > 1:
        raise EnvironmentsError(
            f"Expected targets of one type and width in every environment, got {targets}. "
            "Convert them alike."
        )


def labels_of(environments: Any) -> pd.Series[Any]:
    """A label per row; EnvironmentsError where one is missing."""
    listed = isinstance(environments, list | tuple)  # np.asarray would turn NaN into 'nan'.
    labels = (
        pd.Series(environments, dtype=object) if listed else pd.Series(np.asarray(environments))
    )
    missing = np.flatnonzero(labels.isna())
    if len(missing):
        raise EnvironmentsError(
            f"Expected an environment label in every row, {len(missing)} have none (first: row "
            f"{missing[0]}). Drop such rows or name their environment."
        )
    return labels


def feature_columns(
    frame: pd.DataFrame,
    features: Sequence[str] | None,
    target: str,
    environment: str,
    weights: str | None,
) -> list[str]:
    """The columns of numbers to learn from: those named, or all that are nothing else."""
    taken = [name for name in (target, environment, weights) if name is not None]
    for name in [*taken, *(features or ())]:
        if name not in frame.columns:
            raise unknown_name("column", str(name), [str(c) for c in frame.columns])
    leaked = sorted(set(features or ()) & set(taken))
    if leaked:
        raise EnvironmentsError(
            f"Expected features apart from target, environment and weights, got {leaked} "
            "among them. Leave them out of features=[...]."
        )
    columns = (
        list(features) if features is not None else [c for c in frame.columns if c not in taken]
    )
    wrong = [
        str(c)
        for c in columns
        if not (pd.api.types.is_numeric_dtype(frame[c]) or pd.api.types.is_bool_dtype(frame[c]))
    ]
    if wrong or not columns:
        raise EnvironmentsError(
            f"Expected one or more number columns as features, got {wrong or 'none'}. "
            "Encode categories as numbers first or name the columns with features=[...]."
        )
    return columns


def counted(names: Sequence[str], sizes: Sequence[int]) -> str:
    """Environments in few words.

    Examples
    --------
    >>> counted(["a", "b"], [10, 20])
    'a: 10 rows, b: 20 rows'
    >>> counted([f"school {i}" for i in range(160)], range(2, 162))
    '160 environments of 2 to 161 rows'
    """
    if len(names) > 6:
        return f"{len(names)} environments of {min(sizes):,} to {max(sizes):,} rows"
    pairs = zip(names, sizes, strict=True)
    return ", ".join(f"{name}: {size:,} {'row' if size == 1 else 'rows'}" for name, size in pairs)
