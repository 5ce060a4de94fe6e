"""What scikit-learn's users do with an estimator."""

import pickle
import re
import warnings

import numpy as np
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from invlearn import InvariantClassifier, InvariantRegressor
from invlearn.errors import IgnoredWarning, SingleEnvironmentWarning

QUICK = {"steps": 60, "random_state": 0}

EXPECTED = dict.fromkeys(
    (
        "check_sample_weight_equivalence_on_dense_data",
        "check_sample_weight_equivalence_on_sparse_data",
    ),
    "networks are trained in single precision, and a weight 2 and two rows differ by 4e-7 where "
    "the check allows 1e-7; test_weights_count_rows holds it to 1e-5",
)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [InvariantClassifier(steps=40, lr=0.03), InvariantRegressor(steps=40, lr=0.03)],
    expected_failed_checks=lambda estimator: EXPECTED,
)
def test_conventions(estimator, check):
    check(estimator)


@pytest.mark.parametrize("make", [InvariantClassifier, InvariantRegressor])
def test_weights_count_rows(make, rows):
    X, y, hospital = (part.to_numpy() for part in rows)
    count = np.random.default_rng(0).integers(0, 3, len(X))
    weighted = make(**QUICK).fit(X, y, environments=hospital, sample_weight=count)
    index = np.repeat(np.arange(len(X)), count)
    repeated = make(**QUICK).fit(X[index], y[index], environments=hospital[index])
    got, expected = weighted._outputs(X), repeated._outputs(X)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    alike = make(**QUICK).fit(X, y, environments=hospital)
    assert np.abs(alike._outputs(X) - expected).max() > 1e-3  # The weights do something.


def test_in_a_pipeline(rows):
    X, y, hospital = rows
    model = make_pipeline(StandardScaler(), InvariantClassifier(**QUICK))
    model.fit(X, y, invariantclassifier__environments=hospital)
    assert model.score(X, y) > 0.7
    assert set(model[-1].environments_) == {"h0", "h1", "h2"}


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_grid_search_leaving_hospitals_out(rows, routing, piped):
    X, y, hospital = rows
    model, step = InvariantClassifier(**QUICK), ""
    if piped:
        model, step = make_pipeline(StandardScaler(), model), "invariantclassifier__"
    with sklearn.config_context(enable_metadata_routing=routing):
        search = GridSearchCV(
            model, {f"{step}penalty_weight": [1.0, 100.0]}, cv=LeaveOneGroupOut(),
            error_score="raise",
        )  # fmt: skip
        given = {"environments" if routing else f"{step}environments": hospital}
        search.fit(X, y, groups=hospital, **given)
    assert len(search.cv_results_["split2_test_score"]) == 2
    best = search.best_estimator_[-1] if piped else search.best_estimator_
    assert set(best.environments_) == {"h0", "h1", "h2"}


@pytest.mark.parametrize("routing", [False, True])
def test_cross_validation_leaving_hospitals_out(rows, routing):
    X, y, hospital = rows
    given = {"environments": hospital}
    passed = {"groups": hospital, "params": given}
    if routing:
        passed = {"params": {"groups": hospital, **given}}
    with sklearn.config_context(enable_metadata_routing=routing):
        found = cross_validate(
            InvariantClassifier(**QUICK), X, y, cv=LeaveOneGroupOut(), return_estimator=True,
            error_score="raise", **passed,
        )  # fmt: skip
    seen = [set(fitted.environments_) for fitted in found["estimator"]]
    assert seen == [{"h1", "h2"}, {"h0", "h2"}, {"h0", "h1"}]


@pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In two steps.
def test_a_grid_of_objectives_and_weights(rows):
    X, y, hospital = rows
    grid = {"objective": ["erm", "group-dro", "vrex"], "penalty_weight": [1.0, 100.0]}
    search = GridSearchCV(
        InvariantClassifier(steps=2, random_state=0), grid, cv=LeaveOneGroupOut(),
        error_score="raise",
    )  # fmt: skip
    with pytest.warns(IgnoredWarning) as caught:
        search.fit(X, y, groups=hospital, environments=hospital)
    said = {str(w.message) for w in caught if w.category is IgnoredWarning}
    assert said == {
        f"penalty_weight is ignored for {title}, which has no penalty. Leave it None."
        for title in ("ERM", "GroupDRO")
    }
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("routing", "says"),
    [
        (
            False,
            r"search\.fit\(X, y, environments=.*step: invariantclassifier__environments=\.\.\. ",
        ),
        (True, r"routing is on: pass environments=\.\.\. to a search's or pipeline's fit"),
    ],
)
def test_environments_forgotten_in_a_search_is_one_message(rows, routing, says):
    X, y, hospital = rows
    with (
        sklearn.config_context(enable_metadata_routing=routing),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("default")
        cross_validate(
            InvariantClassifier("irmv1", steps=2), X, y, cv=LeaveOneGroupOut(),
            **{"params": {"groups": hospital}} if routing else {"groups": hospital},
        )  # fmt: skip
    (said,) = {str(w.message) for w in caught if w.category is SingleEnvironmentWarning}
    assert re.search(says, said)


def test_frames_keep_their_names(rows):
    X, y, hospital = rows
    from_pandas = InvariantClassifier(**QUICK).fit(X, y, environments=hospital)
    columns = pl.DataFrame({name: X[name].to_numpy() for name in X})
    from_polars = InvariantClassifier(**QUICK).fit(
        columns, pl.Series(y.to_numpy()), environments=pl.Series(hospital.to_list())
    )
    assert from_pandas.feature_names_in_.tolist() == ["cause", "shortcut"]
    assert from_polars.feature_names_in_.tolist() == ["cause", "shortcut"]
    np.testing.assert_array_equal(from_polars.predict(columns), from_pandas.predict(X))
    with pytest.raises(ValueError, match="feature names should match"):
        from_pandas.predict(X.rename(columns={"cause": "dose"}))


@pytest.mark.parametrize("make", [InvariantClassifier, InvariantRegressor])
def test_clone_and_pickle(make, rows):
    X, y, hospital = rows
    model = make(objective="irmv1", penalty_weight=3.0, hidden=(4,), **QUICK)
    assert clone(model).get_params() == model.get_params()
    model.fit(X, y, environments=hospital)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize("labels", [["no", "yes"], [False, True], [3, 7], [-1.0, 1.0]])
def test_any_two_labels(rows, labels):
    X, y, hospital = rows
    named = np.array(labels)[y]
    model = InvariantClassifier(**QUICK).fit(X, named, environments=hospital)
    assert model.classes_.tolist() == sorted(labels)
    assert np.mean(model.predict(X) == named) > 0.7
    np.testing.assert_allclose(
        model.predict_proba(X)[:, 1], 1 / (1 + np.exp(-model.decision_function(X)))
    )


def test_three_classes(rows):
    X, _, hospital = rows
    y = np.array(["low", "middle", "high"])[np.digitize(X["cause"], [-0.5, 0.5])]
    model = InvariantClassifier(steps=200, random_state=0).fit(X, y, environments=hospital)
    assert model.decision_function(X).shape == (len(X), 3)
    np.testing.assert_allclose(model.predict_proba(X).sum(1), 1)
    assert model.score(X, y) > 0.8


def test_one_seed_one_result(rows):
    X, y, hospital = rows
    fits = [
        InvariantClassifier(steps=30, random_state=seed).fit(X, y, environments=hospital)
        for seed in (0, 0, 1)
    ]
    outputs = [fit.decision_function(X) for fit in fits]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0], outputs[2])


def test_fitting_leaves_the_global_generators_alone(rows):
    import torch

    X, y, hospital = rows
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    InvariantClassifier(**QUICK).fit(X, y, environments=hospital)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_no_warning_with_environments(rows):
    X, y, hospital = rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InvariantClassifier(**QUICK).fit(X, y, environments=hospital)
