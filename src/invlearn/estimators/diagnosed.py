"""A diagnosis of whatever predicts: an estimator, scikit-learn's models, a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from invlearn.diagnostics import Finding
from invlearn.diagnostics import diagnose as diagnose_network
from invlearn.environments import Environments
from invlearn.errors import EnvironmentsError, OptionError
from invlearn.estimators.checks import Array, environment_labels
from invlearn.estimators.inputs import check_columns, check_targets, checked, in_single, row_blocks
from invlearn.learning.scaling import location_and_scale
from invlearn.losses import get_loss
from invlearn.tables.messages import listed


def diagnose(
    model: Any, X: Any, y: Any = None, environments: Any = None, **options: Any
) -> list[Finding]:
    """Find out what a fitted model does in several environments, and why.

    Parameters
    ----------
    model : object
        An `InvariantClassifier` or `InvariantRegressor`; a `RowsModel`; any other object with
        predict_proba and classes_, or a regressor with predict; a pipeline or search of one. Or a
        ``torch.nn.Module``, with `Environments` as X and their loss as y.
    X : DataFrame or array [n, d]
        Rows with their targets and environments, best ones the model was not fitted to. For a
        `RowsModel` the table with those columns.
    y : array [n]
    environments : array of n labels
        A `RowsModel` needs neither where its table has them.
    **options
        sample_weight, array [n] (not of a `RowsModel`); seed, int: equal seeds give equal
        findings; draws, int, of every interval's bootstrap. For a network also feature_names,
        reference and seen, see `invlearn.diagnostics.diagnose`.

    Returns
    -------
    list of Finding
        Warnings first, then notes, then what is good.

    Raises
    ------
    EnvironmentsError
        Rows, targets or labels that cannot be read, or classes the model does not know.
    OptionError
        A model that cannot be asked.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2))
    >>> y, hospital = (X[:, 0] > 0).astype(int), np.repeat(["north", "south"], 100)
    >>> findings = diagnose(LogisticRegression().fit(X, y), X, y, hospital, draws=50)
    >>> findings[-1].name, findings[-1].level
    ('feature-reliance', 'good')
    """
    if isinstance(X, Environments):
        return diagnose_network(model, X, y, **options)
    while hasattr(model, "best_estimator_"):
        model = model.best_estimator_
    if isinstance(model, Pipeline):
        names = None
        if len(model) > 1:
            before, model = model[:-1], model[-1]
            names = getattr(before, "get_feature_names_out", lambda: None)()
            X = before.transform(X)
        else:
            model = model[-1]
        if names is not None and not hasattr(X, "columns"):
            options = {"feature_names": [str(name) for name in names], **options}
    if callable(getattr(model, "diagnose", None)):
        found: list[Finding] = model.diagnose(X, y, environments, **options)
        return found
    return _diagnose_any(model, X, y, environments, **options)


def diagnose_estimator(
    estimator: Any, X: Any, y: Any, environments: Any, *, sample_weight: Any = None, **options: Any
) -> list[Finding]:
    """What `InvariantEstimator.diagnose` finds."""
    check_is_fitted(estimator)
    classes = getattr(estimator, "classes_", None)
    targets = _targets(y, classes)
    if classes is None:
        targets = (targets - estimator.target_location_) / estimator.target_scale_
        targets = targets.astype(np.float32)
    parts = row_blocks(checked(estimator, X, reset=False))
    x = np.concatenate([in_single((x - estimator.location_) / estimator.scale_) for x in parts])
    rows = _rows(torch.as_tensor(x), targets, environments, sample_weight)
    if (names := getattr(estimator, "feature_names_in_", None)) is not None:
        options = {"feature_names": [str(name) for name in names], **options}
    seen = [name for name in rows.names if name in estimator.environments_]
    return diagnose_network(estimator.network_, rows, estimator._loss, **{"seen": seen, **options})


class _Predictor(nn.Module):
    """Any object that predicts, as a network without parameters."""

    def __init__(self, model: Any, columns: Sequence[str] | None, scale: tuple[float, float]):
        super().__init__()
        self.model, self.columns, self.scale = model, columns, scale

    def forward(self, x: Tensor) -> Tensor:
        """Log-odds [n, 1] of two classes, log-probabilities [n, k], or predictions [n, 1]."""
        rows: Any = x.detach().cpu().double().numpy()
        if self.columns is not None:
            rows = pd.DataFrame(rows, columns=list(self.columns))
        if not hasattr(self.model, "predict_proba"):
            center, spread = self.scale
            found = np.asarray(self.model.predict(rows), np.float64).reshape(-1, 1) - center
            return torch.as_tensor(found / spread)
        # A tree may be sure; its logits stay finite.
        shares = np.clip(np.asarray(self.model.predict_proba(rows), np.float64), 1e-7, 1.0)
        z = torch.as_tensor(np.log(shares))
        return z[:, 1:] - z[:, :1] if z.shape[1] == 2 else z


def _diagnose_any(
    model: Any, X: Any, y: Any, environments: Any, *, sample_weight: Any = None, **options: Any
) -> list[Finding]:
    """Of an object that has no more than scikit-learn's methods."""
    classes = getattr(model, "classes_", None)
    asked = hasattr(model, "predict_proba") if classes is not None else hasattr(model, "predict")
    if not asked or (classes is None and is_classifier(model)):
        raise OptionError(
            "Expected a fitted model with predict_proba and classes_, or of a regression with "
            f"predict, got {type(model).__name__}. Fit it first, or give a classifier without "
            "probabilities some: CalibratedClassifierCV(model)."
        )
    targets = _targets(y, classes)
    scale = (0.0, 1.0)
    if classes is None:
        center, spread = location_and_scale(targets, np.ones(len(targets)))
        scale, targets = (float(center), float(spread)), (targets - center) / spread
    check_columns(X)
    columns = [str(name) for name in X.columns] if hasattr(X, "columns") else None
    x = np.concatenate([np.asarray(part, np.float64) for part in row_blocks(X)])
    rows = _rows(torch.as_tensor(x), targets, environments, sample_weight)
    if columns is not None:
        options = {"feature_names": columns, **options}
    loss = get_loss(
        "squared" if classes is None else "logistic" if len(classes) == 2 else "softmax"
    )
    named = columns if hasattr(model, "feature_names_in_") else None
    return diagnose_network(_Predictor(model, named, scale), rows, loss, **options)


def _targets(y: Any, classes: Any) -> Array:
    """Numbers, or codes of the classes; those the model does not know are refused."""
    if y is None:
        raise EnvironmentsError("Expected the rows' targets as y, got none. Pass the column.")
    check_targets(y, numbers=classes is None)
    values = np.asarray(y).ravel()
    if classes is None:
        return values.astype(np.float64)
    codes: Array = pd.Index(classes).get_indexer(pd.Index(values))
    if (codes < 0).any():
        raise EnvironmentsError(
            f"Expected the model's classes, {listed(classes, 5)}, in y, got "
            f"{listed(sorted(set(map(str, values[codes < 0]))))}. Leave these rows out."
        )
    return codes.astype(np.int64)


def _rows(x: Tensor, targets: Array, environments: Any, weights: Any) -> Environments:
    labels = environment_labels(environments, len(x))
    if not isinstance(labels, np.ndarray):
        raise EnvironmentsError(
            f"Expected environments as one label per row, got {environments!r}. A diagnosis "
            "compares environments: pass the column that says where each row comes from."
        )
    return Environments.from_arrays(x, torch.as_tensor(targets), labels, weights=weights)
