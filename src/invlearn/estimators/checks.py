"""What the estimators look at before they fit: parameters and environment labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn

from invlearn.environments.checked import labels_of
from invlearn.errors import EnvironmentsError, IgnoredWarning, OptionError, unknown_name
from invlearn.tables.messages import listed

Array = npt.NDArray[Any]


def check_parameters(estimator: Any) -> None:
    """Refuse parameters of another kind than theirs, each with what it may be."""
    if isinstance(estimator.network, str) and estimator.network not in ("linear", "mlp"):
        raise unknown_name("network", estimator.network, ["linear", "mlp"])
    whole = [_is_whole(width) and width > 0 for width in _listed(estimator.hidden)]
    wanted = {
        "network": (isinstance(estimator.network, str) or callable(estimator.network),
                    "'mlp', 'linear', a function or class that builds a network, or a Module"),
        "hidden": (isinstance(estimator.hidden, Sequence | np.ndarray) and all(whole),
                   "a sequence of whole numbers above 0, such as (32,)"),
        "steps": (_is_whole(estimator.steps) and estimator.steps >= 1,
                  "a whole number of 1 or more"),
        "patience": (_is_whole(estimator.patience), "a whole number of 1 or more"),
        "batch_size": (estimator.batch_size is None or isinstance(estimator.batch_size, str)
                       or _is_whole(estimator.batch_size), "a whole number, None or 'auto'"),
        "lr": (isinstance(estimator.lr, Real), "a number above 0"),
        "l2": (isinstance(estimator.l2, Real), "a number of 0 or more"),
        "validation_fraction": (isinstance(estimator.validation_fraction, Real),
                                "a number between 0 and 1"),
        "keep_interrupted": (isinstance(estimator.keep_interrupted, bool), "True or False"),
        "penalty_weight": (estimator.penalty_weight is None
                           or isinstance(estimator.penalty_weight, str | Real),
                           "a number of 0 or more, 'auto' or None"),
        "hyper": (estimator.hyper is None or isinstance(estimator.hyper, Mapping),
                  "options of the objective by name, such as {'inner_lr': 0.5}"),
    }  # fmt: skip
    for name, (fits, kind) in wanted.items():
        if not fits:
            raise OptionError(f"Expected {name} as {kind}, got {getattr(estimator, name)!r}.")


def environment_labels(environments: Any, n_rows: int) -> Array | str | None:
    """Environment labels [n], 'infer' or None; anything else is refused."""
    if environments is None:
        return None
    if isinstance(environments, str):
        if environments != "infer":
            raise EnvironmentsError(
                "Expected environments as one label per row, 'infer' or None, got the string "
                f"'{environments}'. Pass the column itself: environments=frame['{environments}']."
            )
        return environments
    shape = np.asarray(environments, dtype=object).shape
    if shape != (n_rows,):
        raise EnvironmentsError(
            f"Expected {n_rows} environment labels, one per row, got shape {shape}. Pass the "
            "column of the same rows."
        )
    from invlearn.tables.kinds import label

    # Labels of mixed types cannot be sorted; their texts can, and 1 and 1.0 are one environment.
    return np.array([label(value) for value in labels_of(environments).to_numpy()], dtype=object)


def no_environments(title: str, estimator: str) -> str:
    """What is said where an objective of several environments was given none."""
    if sklearn.get_config()["enable_metadata_routing"]:
        passed = (
            "Metadata routing is on: pass environments=... to a search's or pipeline's fit, and "
            "params={'environments': ...} to cross_validate."
        )
    else:
        passed = (
            "In a search: search.fit(X, y, environments=...); in cross_validate: "
            "params={'environments': ...}; in a pipeline, and in a search or cross_validate of "
            f"one, by the name of its step: {estimator.lower()}__environments=... (groups=... "
            "reaches the splitter only)."
        )
    return (
        f"No environments were given: all rows are taken for one, and {title} is replaced by ERM, "
        "which learns shortcuts. Pass environments=(a label per row) to fit, or 'infer', or set "
        f"objective='erm'. {passed}"
    )


def weighted(
    X: Any, y: Array, labels: Array | str | None, weights: Array
) -> tuple[Any, Array, Array | str | None, Array]:
    """Rows without those of weight 0, as if they were not there; who is gone with them is said."""
    kept = weights > 0
    if not kept.any():
        raise EnvironmentsError("Expected row weights with a positive sum, got only zeros.")
    if kept.all():
        return X, y, labels, weights
    if isinstance(labels, np.ndarray):
        gone = sorted(set(labels) - set(labels[kept]))
        if gone:
            warnings.warn(
                f"Every row of environment {listed(gone)} has weight 0: it is left out, as if its "
                "rows were not there. Give them a weight, or drop the rows.",
                IgnoredWarning,
                stacklevel=4,
            )
        labels = labels[kept]
    return X[kept], y[kept], labels, weights[kept]


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _listed(values: Any) -> Sequence[Any]:
    return list(values) if isinstance(values, Sequence | np.ndarray) else []
