"""What one would use anyway: scikit-learn's models of the pooled rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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


@dataclass(frozen=True)
class Usual(Method):
    """A model of scikit-learn's, with its defaults, fitted to the pooled rows.

    It has no steps: what is measured is measured at step 0, and is what every rule chooses.
    """

    def fit(self, problems: Sequence[Problem], done: Done) -> None:
        """Fit a model for each problem in turn; see `Method.fit`."""
        for problem in problems:
            x, y = self.table(problem), problem.train.y.numpy()
            classifies = problem.loss != "squared"
            model = _make(self.name, classifies, problem.seed)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(x, y, sample_weight=_numpy(problem.train.weights))
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


@dataclass(frozen=True)
class Predict:
    """The outputs [n, k] of a fitted model: logits, or numbers where there are no classes (0)."""

    model: Any
    classes: int

    def __call__(self, x: Features) -> Tensor:
        """For features [n, d], in double precision."""
        assert isinstance(x, Tensor)
        if not self.classes:
            return torch.as_tensor(self.model.predict(x.numpy())).double().reshape(len(x), -1)
        z = np.asarray(self.model.decision_function(x.numpy()), dtype=np.float64)
        if self.classes == 1:
            return torch.from_numpy(z.reshape(len(x), 1))
        if len(self.model.classes_) == 2:
            z = np.stack([-z / 2, z / 2], axis=1)
        # A class that no training row had is less likely than any other.
        out = np.full((len(x), self.classes), z.min(initial=0.0) - 20.0)
        out[:, np.asarray(self.model.classes_, dtype=int)] = z
        return torch.from_numpy(out)


def _make(name: str, classifies: bool, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import LogisticRegression, Ridge

    if name == "linear":
        return LogisticRegression(max_iter=1000) if classifies else Ridge()
    kind = HistGradientBoostingClassifier if classifies else HistGradientBoostingRegressor
    return kind(random_state=seed % 2**32)


def _numpy(weights: Tensor | None) -> Any:
    return None if weights is None else weights.numpy()


USUAL = (
    Usual(
        "linear",
        "Linear model",
        "usual",
        "A linear model of the pooled rows: logistic regression, or ridge regression.",
        "scikit-learn",
    ),
    Usual(
        "boosting",
        "Gradient boosting",
        "usual",
        "Trees on the pooled rows, scikit-learn's histogram gradient boosting.",
        "scikit-learn",
    ),
)
