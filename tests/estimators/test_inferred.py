"""Environments inferred by the estimators."""

import numpy as np
import pytest

from invlearn import EnvironmentsError, InvariantClassifier, InvariantRegressor, OptionError
from invlearn.learning.preparation.eiil import NAMES


def test_inferring_lets_go_of_an_unlabelled_shortcut(table):
    frame = table(agreement=(0.85, 0.85), n=1000)
    test = table(agreement=(0.1,), n=2000, seed=9)
    X, y = frame[["cause", "shortcut"]], frame["ill"]
    scores = {}
    for name in ("erm", "vrex"):
        model = InvariantClassifier(name, network="linear", random_state=0)
        model.fit(X, y, environments="infer")
        scores[name] = model.score(test[["cause", "shortcut"]], test["ill"])
        assert tuple(model.environments_) == NAMES
        assert sum(model.environments_.values()) == len(frame)
    pooled = InvariantClassifier("erm", network="linear", random_state=0).fit(X, y)
    assert pooled.score(test[["cause", "shortcut"]], test["ill"]) < scores["vrex"] - 0.1


def test_weights_and_regression_pass_through(rows):
    X, y, _ = rows
    weights = np.linspace(0.5, 1.5, len(X))
    model = InvariantRegressor(steps=50, random_state=0)
    model.fit(X, X["cause"] + y, environments="infer", sample_weight=weights)
    assert len(model.environments_) == 2


def test_nothing_to_infer_from():
    X = np.repeat([[-1.0], [1.0]], 50, 0)
    with pytest.raises(EnvironmentsError, match="got 0 of 100"):
        InvariantClassifier(steps=200, random_state=0).fit(
            X, np.repeat([0, 1], 50), environments="infer"
        )


def test_a_strength_cannot_be_chosen_with_two_inferred_environments(rows):
    X, y, _ = rows
    with pytest.raises(OptionError, match="as a number with inferred environments"):
        InvariantClassifier(penalty_weight="auto").fit(X, y, environments="infer")


def test_three_classes_can_be_inferred_from(rows):
    X, _, _ = rows
    y = np.digitize(X["cause"] + 0.3 * X["shortcut"], [-0.5, 0.5])
    model = InvariantClassifier(steps=50, random_state=0).fit(X, y, environments="infer")
    assert sum(model.environments_.values()) == len(X)
