"""What each feature does to the target in each environment, and how sure that is."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from invlearn.diagnostics.findings import (
    EnvironmentRows,
    draw_rows,
    environment_rows,
    listed,
    too_few,
    usable,
)
from invlearn.diagnostics.intervals import Floats
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.features import as_rows, width
from invlearn.losses import Loss

ROWS = 10_000
"""Rows of an environment that effects are estimated from."""

VALUES = 2 * 10**7
"""Numbers of an environment that are looked at: of wide tables fewer rows are used."""

COLUMNS = 200
"""More columns than this are cut to those that go with the target most."""

ROWS_PER_COLUMN = 5
"""Rows that the smallest environment needs for each column."""

RARE = 8
"""A feature that differs from its most frequent value in fewer rows is not measured."""


@dataclass(frozen=True)
class Estimates:
    """Effects of d features in E environments on one or more targets.

    Attributes
    ----------
    names : tuple of str, E of them
        The environments.
    features : tuple of str, d of them
    classes : tuple of int
        What the targets are, if there are several classes; else empty.
    effects, errors : array [targets, E, d]
        An infinite error: the feature is not measured there, as it differs from its most
        frequent value in fewer than 8 rows, or the target is constant.
    note : str
        What was left out.
    """

    names: tuple[str, ...]
    features: tuple[str, ...]
    classes: tuple[int, ...]
    effects: Floats
    errors: Floats
    note: str


def estimate_effects(
    environments: Environments, loss: Loss, feature_names: Sequence[str] | None, seed: int
) -> Estimates:
    """Effects of the features in every environment, as `conflicting_features` explains.

    Raises
    ------
    EnvironmentsError, OptionError
        As `conflicting_features`.
    """
    if loss.kind == "unknown":
        raise OptionError(
            f"Expected the squared, logistic or softmax loss, got '{loss.name}'. The loss says "
            "whether targets are numbers or classes: pass the one nearest in kind."
        )
    names = column_names(environments, feature_names)
    rng = np.random.default_rng([seed, 1])
    kept, without = usable(environment_rows(environments), loss, varied=True)
    if len(kept) < 2:
        raise EnvironmentsError(
            f"Comparing effects: {too_few(2, kept, without)} Add rows of another source."
        )
    most = min(ROWS, max(VALUES // len(names), RARE * ROWS_PER_COLUMN))
    if any(len(rows) > most for rows in kept):
        without += f" At most {most} rows of an environment were used."
    kept = [draw_rows(rows, most, rng) for rows in kept]
    x, y, classes = _standardized(kept, loss)
    measured = np.stack([_measured(*part) for part in zip(x, _shares(kept), strict=True)])
    columns = np.arange(len(names))
    limit = min(COLUMNS, max(1, min(len(rows) for rows in kept) // ROWS_PER_COLUMN))
    if len(names) > limit:
        strength = np.max(
            measured * [_correlations(*part) for part in zip(x, y, _shares(kept), strict=True)], 0
        )
        columns = np.sort(np.argsort(-strength, kind="stable")[:limit])
        without += (
            f" Of {len(names)} columns the {limit} were compared that go with the target most "
            "in some environment."
        )
    without += _not_compared(names, measured)
    shape = (y[0].shape[1], len(kept), len(columns))
    effects, errors = np.zeros(shape), np.full(shape, np.inf)
    for e, shares in enumerate(_shares(kept)):
        design = x[e][:, columns]
        varied: npt.NDArray[np.bool_] = np.sqrt(shares @ (design - shares @ design) ** 2) > 1e-8
        for t in range(shape[0]):
            target = y[e][:, t]
            if target.min() == target.max() or not varied.any():
                continue
            fitted = _fit(design[:, varied], target, shares, loss.kind == "classes")
            effects[t, e, varied], errors[t, e, varied] = fitted
    # A rare feature is in the regressions all the same, so that the others are not taken for it.
    errors[:, ~measured[:, columns]] = np.inf
    return Estimates(
        tuple(rows.name for rows in kept),
        tuple(names[c] for c in columns),
        classes,
        effects,
        errors,
        without,
    )


def column_names(environments: Environments, feature_names: Sequence[str] | None) -> list[str]:
    """One name per column; EnvironmentsError for rows [n, ...] that have no columns."""
    x = environments.x
    if len(as_rows(x).row_shape) != 1:
        raise EnvironmentsError(
            "Expected rows of columns [n, d], got images. Compare their measured properties."
        )
    names = [f"x{j}" for j in range(width(x))] if feature_names is None else list(feature_names)
    if len(names) != width(x):
        raise OptionError(
            f"Expected one name per column, got {len(names)} names for {width(x)} columns. "
            "Name every column of x, in order."
        )
    return names


def _shares(parts: Sequence[EnvironmentRows]) -> list[Floats]:
    return [rows.shares.numpy() for rows in parts]


def _standardized(
    parts: Sequence[EnvironmentRows], loss: Loss
) -> tuple[list[Floats], list[Floats], tuple[int, ...]]:
    """Features [n, d], targets [n, targets] of each environment, and the classes if several."""
    shares = _shares(parts)
    x = _scaled([as_rows(rows.x).dense().double().numpy() for rows in parts], shares)
    y = [rows.y.numpy().reshape(len(rows), -1) for rows in parts]
    if loss.kind != "classes":
        return x, _scaled([part.astype(np.float64) for part in y], shares), ()
    labels = np.unique(np.concatenate(y))
    chosen = labels[1:] if len(labels) <= 2 else labels
    classes = tuple(int(label) for label in labels) if len(labels) > 2 else ()
    return x, [(part == chosen).astype(np.float64) for part in y], classes


def _scaled(parts: list[Floats], shares: list[Floats]) -> list[Floats]:
    """Columns of mean 0 and variance 1 over all environments, each counting alike."""
    mean = np.mean([s @ part for part, s in zip(parts, shares, strict=True)], axis=0)
    squares = [s @ (part - mean) ** 2 for part, s in zip(parts, shares, strict=True)]
    spread = np.sqrt(np.mean(squares, axis=0))
    spread = np.where(spread > 1e-12 * (1 + np.abs(mean)), spread, np.inf)
    return [(part - mean) / spread for part in parts]


def _measured(x: Floats, shares: Floats) -> npt.NDArray[np.bool_]:
    """Whether each column differs from its most frequent value in rows enough [d].

    Weights count as the (Σ w)² / Σ w² rows of equal weight that would know as much.
    """
    # A value of most rows is the middle one; without such a value, half of the rows differ.
    middle = len(x) // 2
    # A constant column leaves rounding noise of the mean that was taken off.
    other = np.abs(x - np.partition(x, middle, axis=0)[middle]) > 1e-8
    rows = (shares @ other) ** 2 / np.maximum(shares**2 @ other, 1e-300)
    enough: npt.NDArray[np.bool_] = rows > RARE - 1e-6
    return enough


def _not_compared(names: Sequence[str], measured: npt.NDArray[np.bool_]) -> str:
    """Say which columns are measured in one environment at most."""
    rare = [f"'{names[int(c)]}'" for c in np.flatnonzero(measured.sum(0) < 2)]
    if not rare:
        return ""
    return (
        f" Not compared: {listed(rare)}, which in all environments, or all but one, "
        f"differ{'s' if len(rare) == 1 else ''} from the most frequent value in fewer than "
        f"{RARE} rows."
    )


def _correlations(x: Floats, y: Floats, shares: Floats) -> Floats:
    """Largest absolute correlation of each column with any target [d]."""
    x, y = x - shares @ x, y - shares @ y
    spread = np.sqrt(np.outer(shares @ x**2, shares @ y**2))
    found: Floats = np.abs((shares[:, None] * x).T @ y) / np.maximum(spread, 1e-12)
    largest: Floats = found.max(1)
    return largest


def _fit(x: Floats, y: Floats, shares: Floats, logistic: bool) -> tuple[Floats, Floats]:
    """Effects [d], with a penalty of one row, and their errors.

    The larger of the robust error of leaving rows out (HC3) and that of the model: where few
    rows carry a column the robust one may be near zero by chance, and where the model is wrong
    its own is too small.
    """
    from scipy.special import expit
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    n, d = x.shape
    weights = shares * n
    design = np.concatenate([np.ones((n, 1)), x], axis=1)
    penalty = np.diag([0.0] + [1.0] * d)

    def inverse(curve: Floats) -> Floats:
        found: Floats = np.linalg.inv((curve[:, None] * design).T @ design + penalty)
        return found

    if logistic:
        regression = LogisticRegression(solver="newton-cholesky", max_iter=100, tol=1e-8)
        with warnings.catch_warnings():
            # The penalty makes the optimum finite: short of it by rounding is near enough.
            warnings.simplefilter("ignore", ConvergenceWarning)
            regression.fit(x, y, sample_weight=weights)
        theta = np.concatenate([regression.intercept_, regression.coef_[0]])
        score = design @ theta
        p = expit(score)
        residual, curve = y - p, weights * p * (1 - p)
        # The likelihood ratio of an effect is about its square times the information at two
        # thirds of it. At all of it there is none left where the column separates the classes:
        # the strongest effects would be the least sure.
        p = expit(score - (score - shares @ score) / 3)
        model = np.diag(inverse(weights * p * (1 - p)))
    else:
        theta = inverse(weights) @ (design.T @ (weights * y))
        residual, curve = y - design @ theta, weights
        model = np.diag(inverse(weights)) * (weights @ residual**2) / max(n - d - 1, 1)
    bread = inverse(curve)
    leverage = curve * ((design @ bread) * design).sum(1)
    scores = (weights * residual / np.maximum(1 - leverage, 1e-6))[:, None] * design
    robust = np.diag(bread @ (scores.T @ scores) @ bread)
    variance = np.maximum(robust, model)
    return theta[1:], np.sqrt(np.maximum(variance[1:], 1e-24))
