"""Whatever predicts is diagnosed with the same words and arguments."""

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from invlearn import (
    EnvironmentsError,
    InvariantClassifier,
    InvariantRegressor,
    OptionError,
    diagnose,
)

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In a few steps.

QUICK = {"steps": 10, "network": "linear", "random_state": 0}


def named(findings):
    assert len(findings) == 9
    return {finding.name: finding for finding in findings}


@pytest.fixture
def few(rows):
    X, y, hospital = (part[::4].reset_index(drop=True) for part in rows)
    return X, pd.Series(np.where(y, "ill", "well")), hospital


def test_an_estimator_in_a_pipeline_in_a_search_and_by_its_method(few):
    X, y, hospital = few
    step = "invariantclassifier__"
    pipeline = make_pipeline(StandardScaler(), InvariantClassifier(**QUICK))
    grid = GridSearchCV(pipeline, {f"{step}penalty_weight": [1.0]}, cv=2)
    grid.fit(X, y, **{f"{step}environments": hospital})
    model = grid.best_estimator_[-1]
    scaled = grid.best_estimator_[:-1].transform(X)
    found = [
        named(diagnose(grid, X, y, hospital, draws=40)),
        named(diagnose(grid.best_estimator_, X, y, list(hospital), draws=40)),
        named(model.diagnose(scaled, y, hospital, draws=40, feature_names=["cause", "shortcut"])),
    ]
    profiles = [finding["risk-profile"].table for finding in found]
    assert profiles[0].equals(profiles[1])
    assert profiles[0].equals(profiles[2])
    right = (model.predict(scaled) == y).groupby(hospital).mean()
    np.testing.assert_allclose(profiles[0].set_index("environment")["accuracy"], right)
    assert set(profiles[0]["trained on"]) == {"seen"}
    assert set(found[0]["feature-reliance"].table["feature"]) == {"cause", "shortcut"}


def test_new_environments_are_marked(few):
    X, y, hospital = few
    old = hospital != "h2"
    model = InvariantClassifier("erm", **QUICK).fit(X[old], y[old], environments=hospital[old])
    table = named(diagnose(model, X, y, hospital, draws=40))["risk-profile"].table
    assert table.set_index("environment")["trained on"].to_dict() == {
        "h0": "seen", "h1": "seen", "h2": "new",
    }  # fmt: skip


@pytest.mark.parametrize("make", [LogisticRegression(), RandomForestClassifier(5, random_state=0)])
@pytest.mark.parametrize("as_frame", [True, False])
def test_any_classifier_of_two_classes_or_more(make, as_frame, few):
    X, y, hospital = few
    X = X if as_frame else X.to_numpy()
    for targets in (y, np.where(np.arange(len(y)) % 7 == 0, "other", y)):
        model = make.fit(X, targets)
        found = named(diagnose(model, X, targets, hospital, draws=40))
        right = pd.Series(model.predict(X) == targets).groupby(hospital).mean()
        table = found["risk-profile"].table.set_index("environment")
        np.testing.assert_allclose(table["accuracy"], right)
        assert "no" not in set(table.columns)
        assert found["invariance-gap"].sentence.startswith("Left out")


def test_regressions_whatever_their_unit(few):
    X, _, hospital = few
    y = 1e6 * X["cause"] + 5
    ours = InvariantRegressor("erm", steps=300, network="linear", random_state=0)
    models = [LinearRegression().fit(X, y), ours.fit(X, y, environments=hospital)]
    risks = [
        named(diagnose(model, X, y, hospital, draws=40))["risk-profile"].table["risk"]
        for model in models
    ]
    np.testing.assert_allclose(risks[0], risks[1], atol=0.01)


def test_what_cannot_be_asked(few):
    X, y, hospital = few
    model = InvariantClassifier("erm", **QUICK).fit(X, y, environments=hospital)
    with pytest.raises(EnvironmentsError, match=r"one label per row, got None\. A diagnosis"):
        diagnose(model, X, y)
    with pytest.raises(EnvironmentsError, match="targets as y, got none"):
        diagnose(model, X)
    with pytest.raises(EnvironmentsError, match="classes, 'ill', 'well', in y, got 'sick'"):
        diagnose(model, X, y.replace("ill", "sick"), hospital)
    with pytest.raises(EnvironmentsError, match="150 environment labels"):
        diagnose(model, X, y, hospital[:-1])
    with pytest.raises(NotFittedError):
        diagnose(InvariantClassifier(), X, y, hospital)
    for other in (LinearSVC().fit(X, y), LogisticRegression(), "model"):
        with pytest.raises(OptionError, match=r"predict_proba and classes_.*CalibratedClassifier"):
            diagnose(other, X, y, hospital)
    texts = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(y.to_frame(), y)
    assert named(diagnose(texts, y.to_frame(), y, hospital, draws=40))
    with pytest.raises(EnvironmentsError, match="in column 'color'"):
        diagnose(LogisticRegression().fit(X, y), X.assign(color="red"), y, hospital)
