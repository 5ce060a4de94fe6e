"""What one would use anyway: scikit-learn's models of the pooled rows of a table."""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from invlearn.errors import OptionError
from invlearn.evaluation import measure
from invlearn.features import Features
from invlearn.learning import evaluation_sets
from invlearn.losses import get_loss
from invlearn.methods.base import Done, Method, Outcome
from invlearn.problem import Problem

OFFERED = ("classifies", "seed")
"""What a function that makes a model may ask for, by name."""


@dataclass(frozen=True)
class Usual(Method):
    """A model with scikit-learn's ways, fitted to the pooled rows.

    It has no steps: what is measured is measured at step 0, and is what every rule chooses.

    Attributes
    ----------
    make : estimator, class or function
        A model to start from, or what makes one; given those of `OFFERED` that it has.
    """

    make: Any = None

    def fit(self, problems: Sequence[Problem], done: Done) -> None:
        """Fit a model for each problem in turn; see `Method.fit`."""
        for problem in problems:
            x, y = self.table(problem), problem.train.y.numpy()
            classifies = problem.loss != "squared"
            model = self.model(classifies, problem.seed)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(x, y, **self._weights(model, problem.train.weights))
            predict = Predict(model, problem.n_outputs if classifies else 0)
            sets, loss = evaluation_sets(problem.train, problem.validation), get_loss(problem.loss)
            found = [m for s in (*sets, problem.test) for m in measure(predict(s.x), s, loss)]
            messages = tuple(dict.fromkeys(str(warning.message) for warning in caught))
            done(problem, Outcome(pd.DataFrame(found).assign(step=0), predict, messages=messages))

    def table(self, problem: Problem) -> Any:
        """The problem's training rows [n, d]; OptionError for rows that are no table."""
        x = problem.train.x
        if not isinstance(x, Tensor) or x.ndim != 2:
            raise OptionError(
                f"Expected rows of a table for '{self.name}', got images: their pixels are no "
                "columns. Leave it out of --objectives."
            )
        return x.numpy()

    def model(self, classifies: bool, seed: int) -> Any:
        """A fresh model; what of its random_state was left open is the seed.

        Raises
        ------
        OptionError
            It is no model, or one of the other kind.
        """
        offered = {"classifies": classifies, "seed": seed % 2**32}
        if is_model(self.make):
            model = copy.deepcopy(self.make)
        else:
            wanted = _parameters(self.make)
            model = self.make(**{name: offered[name] for name in OFFERED if name in wanted})
        if not is_model(model):
            raise OptionError(
                f"Expected a model with fit and predict from what makes '{self.name}', got "
                f"{model!r}. Return one that is not fitted yet."
            )
        if classifies != any(hasattr(model, name) for name in _SCORES):
            kind, other = ("classifier", "numbers") if classifies else ("regressor", "classes")
            raise OptionError(
                f"Expected a {kind} as '{self.name}', got {type(model).__name__}, which predicts "
                f"{other}"
                + (f" or has neither {' nor '.join(_SCORES)}" if classifies else "")
                + ". Leave it out of --objectives, or register a function of 'classifies' that "
                "makes one of either kind."
            )
        return _seeded(model, offered["seed"])

    def _weights(self, model: Any, weights: Tensor | None) -> dict[str, Any]:
        """How the model takes row weights; OptionError if it does not."""
        if weights is None:
            return {}
        if hasattr(model, "steps"):
            return {f"{model.steps[-1][0]}__sample_weight": weights.numpy()}
        takes = _parameters(model.fit)
        if "sample_weight" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values()):
            return {"sample_weight": weights.numpy()}
        raise OptionError(
            f"Expected a model that takes row weights as '{self.name}', {type(model).__name__} "
            "has no sample_weight in fit. Leave it out of --objectives."
        )


_SCORES = ("decision_function", "predict_proba")
"""What a classifier needs one of."""


def is_model(thing: Any) -> bool:
    """Whether it is a model of scikit-learn's ways, not what makes one."""
    return not isinstance(thing, type) and hasattr(thing, "fit") and hasattr(thing, "predict")


def check_maker(name: str, make: Any) -> None:
    """Raise OptionError for what neither is a model nor makes one."""
    if is_model(make):
        return
    if not callable(make):
        raise OptionError(
            f"Expected an objective or its name, a model with fit and predict, or a function that "
            f"makes one to be known as '{name}', got {make!r}."
        )
    for parameter in _parameters(make).values():
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if needed and parameter.name not in OFFERED:
            raise OptionError(
                f"Expected a function of {' and '.join(OFFERED)}, or of fewer, that makes the "
                f"model '{name}', got one that needs '{parameter.name}'. Give it a default."
            )


@dataclass(frozen=True)
class Predict:
    """The outputs [n, k] of a fitted model: logits, or numbers where there are no classes (0).

    A decision function is read as logits; without one they are logarithms of the probabilities.
    """

    model: Any
    classes: int

    def __call__(self, x: Features) -> Tensor:
        """For features [n, d], in double precision."""
        assert isinstance(x, Tensor)
        if not self.classes:
            return torch.as_tensor(self.model.predict(x.numpy())).double().reshape(len(x), -1)
        known = np.asarray(self.model.classes_, dtype=int)
        if hasattr(self.model, "decision_function"):
            z = np.asarray(self.model.decision_function(x.numpy()), dtype=np.float64)
            if len(known) == 2:
                z = np.stack([-z / 2, z / 2], axis=1)
        else:
            p = np.asarray(self.model.predict_proba(x.numpy()), dtype=np.float64)
            z = np.log(p.clip(np.finfo(np.float64).eps))
        # A class that no training row had is less likely than any other.
        out = np.full((len(x), max(self.classes, 2)), z.min(initial=0.0) - 20.0)
        out[:, known] = z
        return torch.from_numpy(out if self.classes > 1 else out[:, 1:] - out[:, :1])


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # Some builtins have none.
        return {}


def _seeded(model: Any, seed: int) -> Any:
    """The model with this random_state in all parts that have none."""
    if not hasattr(model, "get_params"):
        return model
    open_ = {
        name: seed
        for name, value in model.get_params().items()
        if value is None and name.rsplit("__", 1)[-1] == "random_state"
    }
    return model.set_params(**open_) if open_ else model


def _linear(classifies: bool) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    return LogisticRegression(max_iter=1000) if classifies else Ridge()


def _boosting(classifies: bool) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    return HistGradientBoostingClassifier() if classifies else HistGradientBoostingRegressor()


_DEFAULTS: Mapping[str, str] = {"settings": "scikit-learn's defaults"}

USUAL = (
    Usual(
        "linear",
        "Linear model",
        "usual",
        "A linear model of the pooled rows: logistic regression, or ridge regression.",
        "scikit-learn",
        _DEFAULTS,
        _linear,
    ),
    Usual(
        "boosting",
        "Gradient boosting",
        "usual",
        "Trees on the pooled rows, scikit-learn's histogram gradient boosting.",
        "scikit-learn",
        _DEFAULTS,
        _boosting,
    ),
)
