"""Rows as they come to an estimator: which column is wrong, and sparse ones made dense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.base import is_regressor
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils.validation import validate_data

from invlearn.errors import EnvironmentsError
from invlearn.estimators.checks import Array
from invlearn.learning.scaling import location_and_scale
from invlearn.tables.messages import quoted

MAX_DENSE_BYTES = 2**30
"""A sparse matrix that takes more when it is dense is refused."""

_BLOCK_VALUES = 2**24  # Of a sparse matrix that are made dense at once to be predicted.


def checked(estimator: Any, X: Any, y: Any = "no_validation", *, reset: bool = True) -> Any:
    """X, and y if given, by scikit-learn's validation, in float64; the column at fault is named.

    Raises
    ------
    EnvironmentsError
        A column that holds text or no number in a row, a target without a value, a sparse matrix
        too large to be made dense.
    ValueError, TypeError
        Anything else that scikit-learn refuses.
    """
    given = not (isinstance(y, str) and y == "no_validation")
    if given:
        check_targets(y, numbers=is_regressor(estimator))
    try:
        found = validate_data(
            estimator,
            X,
            y,
            reset=reset,
            dtype=np.float64,
            accept_sparse="csr",
            allow_nd=not isinstance(estimator.network, str),
            ensure_min_samples=2 if given else 1,
        )
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueError) or hasattr(X, "columns"):
            check_columns(X)
        raise
    _check_size(found[0] if given else found)
    return found


def standardized(X: Any, weights: Array) -> tuple[Array, Array, Array]:
    """Columns brought to one scale [n, d] in float32, what is subtracted [d], and divided by [d].

    Mean 0 and standard deviation 1; of a sparse matrix, largest absolute value 1: by its standard
    deviation a word that occurs in ten texts would count as much as one that occurs in half.
    """
    if scipy.sparse.issparse(X):
        scaler = MaxAbsScaler().fit(X)
        return in_single(scaler.transform(X)), np.zeros(X.shape[1]), scaler.scale_
    location, scale = location_and_scale(X, weights)
    return in_single((X - location) / scale), location, scale


def in_single(X: Any) -> Array:
    """Rows, dense, in float32."""
    with np.errstate(over="ignore"):  # Looked at later, with the environment's name.
        rows = X.astype(np.float32)
    found: Array = rows.toarray() if scipy.sparse.issparse(rows) else rows
    return found


def row_blocks(X: Any) -> Iterator[Array]:
    """The rows in order, dense, some at a time if they are sparse."""
    if not scipy.sparse.issparse(X):
        yield X
        return
    step = max(_BLOCK_VALUES // X.shape[1], 1)
    for start in range(0, X.shape[0], step):
        yield X[start : start + step].toarray()


def _check_size(X: Any) -> None:
    needed = 4 * int(X.shape[0]) * int(X.shape[1]) if scipy.sparse.issparse(X) else 0
    if needed > MAX_DENSE_BYTES:
        raise EnvironmentsError(
            f"Expected a sparse matrix that takes {MAX_DENSE_BYTES / 2**30:g} GiB at most when it "
            f"is dense, as networks learn from it, got {X.shape[0]:,} x {X.shape[1]:,}, "
            f"{needed / 2**30:.1f} GiB. Bring it to fewer columns first: "
            "make_pipeline(TfidfVectorizer(), TruncatedSVD(200), model), or "
            "TfidfVectorizer(max_features=2000)."
        )


def check_targets(y: Any, *, numbers: bool) -> None:
    """Refuse targets that are missing, or no numbers where numbers are wanted."""
    listed = isinstance(y, list | tuple)  # np.asarray would turn NaN among texts into 'nan'.
    array = np.asarray(y, dtype=object if listed else None)
    names = getattr(y, "columns", [getattr(y, "name", None)])
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or array.dtype.kind not in "OUSf":
        return
    values = pd.Series(array)
    where = f"column {quoted(names[0])}" if names[0] is not None else "y"
    missing = np.flatnonzero(values.isna())
    if len(missing):
        raise EnvironmentsError(
            f"Expected a target in every row, {len(missing):,} of {len(values):,} in {where} are "
            f"missing (NaN or None; first: row {missing[0]}). Drop these rows from X, y and "
            "environments."
        )
    found = _first_text(values) if numbers else None
    if found is not None:
        raise EnvironmentsError(
            f"Expected numbers as a regression's targets, got {quoted(found[1])} in {where} (row "
            f"{found[0]}). Use InvariantClassifier for classes."
        )


def check_columns(X: Any) -> None:
    """Refuse the columns of a table, or of an array of objects, that hold no numbers."""
    if isinstance(X, pd.DataFrame):
        columns: dict[int, Any] = dict(enumerate(X.columns))
        values = {i: X.iloc[:, i] for i in columns}
    elif hasattr(X, "columns") and hasattr(X, "get_column"):
        columns = dict(enumerate(X.columns))
        values = {i: pd.Series(np.asarray(X.get_column(name))) for i, name in columns.items()}
    elif isinstance(X, list | np.ndarray) and (array := np.asarray(X, dtype=object)).ndim == 2:
        if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS":
            return  # scikit-learn says it well enough.
        columns = {i: i for i in range(array.shape[1])}
        values = {i: pd.Series(array[:, i]) for i in columns}
    else:
        return
    texts = {i: found for i in columns if (found := _first_text(values[i])) is not None}
    if texts:
        (row, value), names = next(iter(texts.values())), [columns[i] for i in texts]
        raise EnvironmentsError(
            f"Expected numbers in every column of X, got {quoted(value)} in column "
            f"{quoted(names[0])} (row {row}). Leave out what is no feature, and encode the others "
            f"first: make_pipeline(make_column_transformer((OneHotEncoder(handle_unknown='ignore'),"
            f" {names!r}), remainder='passthrough'), model)."
        )
    for i, name in columns.items():
        missing = np.flatnonzero(values[i].isna())
        if len(missing):
            raise EnvironmentsError(
                f"Expected a number in every row of X, {len(missing):,} of {len(values[i]):,} in "
                f"column {quoted(name)} are missing (NaN or None; first: row {missing[0]}). Fill "
                "them in first: make_pipeline(SimpleImputer(), model)."
            )


def _first_text(values: pd.Series[Any]) -> tuple[int, Any] | None:
    """Position and value of the first that is present and no number."""
    if pd.api.types.is_numeric_dtype(values.dtype):
        return None
    for row, value in enumerate(values):
        if not isinstance(value, list | np.ndarray) and pd.isna(value):
            continue
        try:
            float(value)
        except (TypeError, ValueError):
            return row, value
    return None
