"""scikit-learn's models as methods: their outputs, what is measured of them, what is refused."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from invlearn.datasets import load_benchmark
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.losses import get_loss
from invlearn.methods import get_method
from invlearn.methods.usual import Predict, Usual
from invlearn.problem import Problem

RNG = np.random.default_rng(0)


def problem(y, n_outputs, loss):
    x = RNG.normal(size=(len(y), 3)).astype(np.float32)
    x[:, 0] += y
    rows = Environments.from_arrays(x, np.asarray(y), ["a", "b"] * (len(y) // 2))
    test = EvaluationSet.from_environments(rows, "test")
    return Problem("made", rows, None, test, "a", loss, n_outputs)


def outcome(method, one):
    found = []
    get_method(method).fit([one], lambda _, outcome: found.append(outcome))
    return found[0]


def test_ridge_on_a_benchmark_is_scikit_learns():
    data = load_benchmark("linear-sem", seed=0)
    found = outcome("linear", data)
    model = Ridge().fit(data.train.x.numpy(), data.train.y.numpy())
    test = data.test
    for name, rows, y in zip(test.names, test.rows, test.targets, strict=True):
        error = np.square(model.predict(test.x[rows].numpy()) - y.numpy()).mean()
        risks = found.curves[(found.curves["metric"] == "risk") & (found.curves["split"] == "test")]
        (value,) = risks.loc[risks["environment"] == name, "value"]
        assert value == pytest.approx(float(error), rel=1e-5)
    assert set(found.curves["step"]) == {0}


@pytest.mark.parametrize("method", ["linear", "boosting"])
@pytest.mark.parametrize(("classes", "loss"), [(2, "logistic"), (3, "softmax")])
def test_the_outputs_give_the_models_own_classes(method, classes, loss):
    one = problem(np.arange(60) % classes, 1 if classes == 2 else classes, loss)
    x = one.train.x
    predict = outcome(method, one).predict
    z = predict(x).numpy()
    found = (z[:, 0] > 0).astype(int) if classes == 2 else z.argmax(1)
    assert (found == predict.model.predict(x.numpy())).all()


def test_a_class_that_no_training_row_had_is_never_predicted():
    x = RNG.normal(size=(40, 2)).astype(np.float32)
    y = np.where(x[:, 0] > 0, 2, 0)
    predict = Predict(LogisticRegression().fit(x, y), 3)
    z = predict(torch.as_tensor(x)).numpy()
    assert (z.argmax(1) == predict.model.predict(x)).all()
    assert np.isfinite(z).all()
    assert (z[:, 1] < z[:, [0, 2]].min(1) - 19).all()


def test_a_regressions_outputs_are_its_predictions():
    one = problem(np.linspace(0, 1, 40).astype(np.float32), 1, "squared")
    found = outcome("boosting", one)
    x = one.train.x
    assert found.predict(x)[:, 0].tolist() == found.predict.model.predict(x.numpy()).tolist()


def test_images_are_refused_with_the_reason():
    data = load_benchmark("colored-digits", seed=0, rows_per_environment=40, validation_rows=20)
    with pytest.raises(
        OptionError, match=r"rows of a table for 'linear', got images: their pixels are no columns"
    ):
        get_method("linear").fit([data], lambda *_: None)


def test_what_it_warns_of_is_kept():
    one = problem(np.arange(40) % 2, 1, "logistic")
    one.train.x[:] *= 1e4
    said = outcome("linear", one).messages
    assert any("lbfgs failed to converge" in text for text in said) or said == ()


def predicts(model, y=None, n_outputs=1, loss="logistic", weights=None):
    """A model of somebody's on a problem: its outcome and the problem."""
    one = problem(np.arange(60) % 2 if y is None else y, n_outputs, loss)
    if weights is not None:
        one = replace(one, train=replace(one.train, weights=torch.as_tensor(weights)))
    found = []
    Usual("mine", "Mine", "usual", make=model).fit([one], lambda _, outcome: found.append(outcome))
    return found[0], one


@pytest.mark.parametrize(("classes", "loss"), [(2, "logistic"), (3, "softmax")])
def test_a_model_with_probabilities_only(classes, loss):
    y, outputs = np.arange(60) % classes, 1 if classes == 2 else classes
    found, one = predicts(KNeighborsClassifier(4), y, outputs, loss)
    x = one.train.x
    model, z = found.predict.model, get_loss(loss).probabilities(found.predict(x)).numpy()
    np.testing.assert_allclose(z, model.predict_proba(x.numpy()), atol=1e-9)
    assert np.isfinite(found.curves["value"]).all()


def test_a_pipelines_open_random_states_are_the_seed_and_the_model_is_left_alone():
    model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=None))
    method, rows = (
        Usual("mine", "Mine", "usual", make=model),
        problem(np.arange(60) % 2, 1, "logistic"),
    )
    found = []
    for _ in range(2):
        method.fit([rows], lambda _, outcome: found.append(outcome))
    one, other = found
    assert one.predict.model.get_params()["randomforestclassifier__random_state"] == 0
    assert model.get_params()["randomforestclassifier__random_state"] is None
    assert not hasattr(model[-1], "estimators_")
    pd.testing.assert_frame_equal(one.curves, other.curves)
    fixed = Usual("mine", "", "usual", make=RandomForestClassifier(5, random_state=4))
    assert fixed.model(True, 9).random_state == 4


def test_row_weights_reach_the_model_or_are_refused():
    weights = np.tile([1.0, 3.0], 30)
    for model in (LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        found, one = predicts(model, weights=weights)
        plain, _ = predicts(model)
        x = one.train.x
        assert not torch.allclose(found.predict(x), plain.predict(x), atol=1e-3)
    with pytest.raises(OptionError, match="takes row weights as 'mine', KNeighborsClassifier has"):
        predicts(KNeighborsClassifier(), weights=weights)


def with_seed(seed):
    return RandomForestClassifier(5, random_state=seed + 1)


def test_a_function_gets_what_it_asks_for():
    assert Usual("mine", "", "usual", make=with_seed).model(True, 2).random_state == 3


@pytest.mark.parametrize(
    ("make", "classifies", "said"),
    [
        (Ridge(), True, "a classifier as 'mine', got Ridge, which predicts numbers or has neither"),
        (LogisticRegression(), False, "a regressor as 'mine', got LogisticRegression, which pred"),
        (dict, True, r"a model with fit and predict from what makes 'mine', got \{\}"),
    ],
)
def test_a_model_of_the_other_kind_is_refused(make, classifies, said):
    with pytest.raises(OptionError, match=said):
        Usual("mine", "", "usual", make=make).model(classifies, 0)
