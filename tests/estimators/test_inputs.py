"""Rows as people have them: sparse, in frames, with a column that cannot be learned from."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse

from invlearn import EnvironmentsError, InvariantClassifier, InvariantRegressor
from invlearn.estimators import inputs

QUICK = {"steps": 20, "random_state": 0}
IGNORED = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")


def polars(frame):
    return pl.DataFrame({name: frame[name].to_list() for name in frame})


@IGNORED
@pytest.mark.parametrize("make", [InvariantClassifier, InvariantRegressor])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("kind", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_a_sparse_matrix_is_scaled_and_not_centered(make, standardize, kind, rows, monkeypatch):
    monkeypatch.setattr(inputs, "_BLOCK_VALUES", 7)  # Rows predicted in several blocks.
    X, y, hospital = rows
    X = np.where(np.abs(X) < 0.5, 0, X)[::4] * 1000
    y, hospital = y[::4], hospital[::4]
    given = {"environments": hospital, "sample_weight": np.arange(len(X)) % 3}
    sparse = make(standardize=standardize, **QUICK).fit(kind(X), y, **given)
    scale = np.abs(X[np.arange(len(X)) % 3 > 0]).max(0) if standardize else 1.0
    dense = make(standardize=False, **QUICK).fit(X / scale, y, **given)
    np.testing.assert_allclose(sparse._outputs(kind(X)), dense._outputs(X / scale), rtol=1e-4)
    np.testing.assert_allclose(sparse._outputs(X), dense._outputs(X / scale), rtol=1e-4)


def test_a_sparse_matrix_too_large_is_refused_with_the_line_that_converts_it():
    X = scipy.sparse.random_array((100_000, 50_000), density=1e-6, format="csr", rng=0)
    with pytest.raises(EnvironmentsError, match=r"100,000 x 50,000, 18\.6 GiB.*TruncatedSVD\(200"):
        InvariantClassifier().fit(X, np.arange(100_000) % 2, environments=np.arange(100_000) % 3)


@pytest.mark.parametrize("as_frame", [pd.DataFrame, polars])
def test_a_column_of_text_is_named(as_frame, rows):
    X, y, hospital = rows
    X = X.assign(color=np.where(y, "red", "blue"))
    with pytest.raises(EnvironmentsError, match=r"in column 'color' \(row 0\).*OneHotEncoder.*'co"):
        InvariantClassifier().fit(as_frame(X), y, environments=hospital)
    model = InvariantClassifier("erm", steps=50)
    model.fit(X.drop(columns="color"), y, environments=hospital)
    X["shortcut"] = X.pop("color")
    with pytest.raises(EnvironmentsError, match="in column 'shortcut'"):
        model.predict(as_frame(X))


@pytest.mark.parametrize("as_frame", [pd.DataFrame, polars])
def test_a_column_with_holes_is_named(as_frame, rows):
    X, y, hospital = rows
    X = X.astype({"shortcut": object})
    X.loc[7, "shortcut"] = None
    with pytest.raises(EnvironmentsError, match=r"1 of 600 in column 'shortcut'.*row 7.*SimpleImp"):
        InvariantClassifier().fit(as_frame(X), y, environments=hospital)


def test_a_column_of_texts_in_an_array_is_numbered(rows):
    X, y, hospital = rows
    X = np.column_stack([X["cause"].to_numpy(object), np.where(y, "red", "blue")])
    with pytest.raises(EnvironmentsError, match="column '1'"):
        InvariantClassifier().fit(X, y, environments=hospital)


@pytest.mark.parametrize("hole", [None, np.nan, pd.NA])
@pytest.mark.parametrize("values", [(0, 1), ("ill", "well"), (0.5, 1.5)])
def test_a_target_with_holes_is_named(values, hole, rows):
    X, y, hospital = rows
    y = pd.Series(np.array(values, dtype=object)[y], name="state")
    y[5] = hole
    for targets, where in ((y, "column 'state'"), (y.to_frame(), "column 'state'"), (list(y), "y")):
        with pytest.raises(EnvironmentsError, match=rf"1 of 600 in {where} are.*row 5"):
            InvariantClassifier().fit(X, targets, environments=hospital)


def test_a_regression_of_texts_is_sent_to_the_classifier(rows):
    X, y, hospital = rows
    y = pd.Series(np.where(y, "ill", "well"), name="state")
    with pytest.raises(EnvironmentsError, match=r"numbers.*in column 'state'.*InvariantClassifier"):
        InvariantRegressor().fit(X, y, environments=hospital)


@IGNORED
@pytest.mark.parametrize(
    "kind",
    [
        list,
        pd.Categorical,
        lambda h: pd.Series(h, dtype="string"),
        pl.Series,
        lambda h: pl.Series(h).cast(pl.Categorical),
        lambda h: pd.Series(h.to_numpy(), index=np.arange(len(h))[::-1]),  # Positions count.
    ],
)
def test_environments_of_any_container(kind, rows):
    X, y, hospital = rows
    model = InvariantClassifier(steps=2, random_state=0).fit(X, y, environments=kind(hospital))
    assert model.environments_ == {"h0": 200, "h1": 200, "h2": 200}


@IGNORED
def test_an_environment_of_weight_zero_is_said(rows):
    X, y, hospital = rows
    weights = np.where(hospital == "h1", 0.0, 1.0)
    with pytest.warns(UserWarning, match=r"environment 'h1' has weight 0: it is left out"):
        model = InvariantClassifier(steps=2).fit(X, y, environments=hospital, sample_weight=weights)
    assert set(model.environments_) == {"h0", "h2"}
    weights[::2] = 0  # Some rows of every other environment: nothing to say.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = hospital != "h1"
        InvariantClassifier("erm", steps=100).fit(
            X[kept], y[kept], environments=hospital[kept], sample_weight=weights[kept]
        )


@pytest.mark.parametrize(
    ("weight", "says"),
    [(-1.0, "Negative values"), (np.nan, "NaN"), (np.inf, "infinity"), (0.0, "zero")],
)
def test_weights_that_cannot_be_are_refused(weight, says, rows):
    X, y, hospital = rows
    weights = np.full(len(X), weight)
    with pytest.raises(ValueError, match=says):
        InvariantClassifier().fit(X, y, environments=hospital, sample_weight=weights)
