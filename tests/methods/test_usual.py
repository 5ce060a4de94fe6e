"""scikit-learn's models as methods: their outputs, what is measured of them, what is refused."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from invlearn.datasets import load_benchmark
from invlearn.environments import Environments, EvaluationSet
from invlearn.errors import OptionError
from invlearn.methods import get_method
from invlearn.methods.usual import Predict
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
