"""Fitted estimators come back from their folders as they were, and only whole ones."""

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from invlearn import (
    DataFileError,
    InvariantClassifier,
    InvariantRegressor,
    MeanObjective,
    OptionError,
    OutputError,
    RowsModel,
)
from invlearn.model_folder import load_model, save_model
from invlearn.objectives.irmv1 import IRMv1

pytestmark = pytest.mark.filterwarnings("ignore::invlearn.CollapseWarning")  # In a few steps.

QUICK = {"steps": 3, "random_state": 0}
KEPT = {"network_", "location_", "scale_", "n_features_in_", "feature_names_in_", "environments_",
        "hyper_", "penalty_weight_", "n_iter_", "stop_reason_", "choices_"}  # fmt: skip


class WithNorm(nn.Sequential):
    """A network of a user's own, with whole numbers among its buffers."""

    def __init__(self, n_features, n_outputs):
        super().__init__(
            nn.Linear(n_features, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, n_outputs)
        )


@pytest.mark.parametrize(
    ("make", "labels", "options", "code"),
    [
        (InvariantClassifier, [0, 1], {}, {}),
        (InvariantClassifier, ["no", "yes"], {"early_stopping": True, "hidden": (4, 5)}, {}),
        (InvariantClassifier, [False, True], {"objective": IRMv1(3.0, estimator="split")}, {}),
        (InvariantClassifier, [-1.0, 0.0], {"network": "linear", "lr": np.float32(0.1)}, {}),
        (InvariantClassifier, ["a", "b", "c"], {"penalty_weight": "auto"}, {}),
        (InvariantClassifier, ["a", "b", "c"], {}, {"network": WithNorm}),
        (InvariantClassifier, [0, 1], {"loss": "softmax"}, {}),
        (InvariantClassifier, [0, 1], {}, {"loss": nn.CrossEntropyLoss()}),
        (InvariantRegressor, [0.5, 1e6, 2.0], {"objective": "meta-irm"}, {}),
        (InvariantRegressor, [0, 1], {"standardize": False}, {"network": nn.Linear(2, 1)}),
    ],
)
def test_it_comes_back_as_it_was(make, labels, options, code, rows, tmp_path):
    X, _, hospital = rows
    y = np.array(labels)[np.digitize(X["cause"], [-0.5, 0.5]) % len(labels)]
    model = make(**QUICK, **options, **code).fit(X, y, environments=hospital)
    model.save(tmp_path / "model")
    back = make.load(tmp_path / "model", **code)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    assert back.predict(X).dtype == model.predict(X).dtype
    kept = KEPT | ({"classes_"} if make is InvariantClassifier else
                   {"target_location_", "target_scale_"})  # fmt: skip
    assert {name for name in vars(back) if name.endswith("_")} == kept
    assert back.choices_.equals(model.choices_)
    assert back.environments_ == model.environments_
    assert repr(back.get_params()) == repr(make(**QUICK, **options, **code).get_params()).replace(
        "np.float32(0.1)", str(float(np.float32(0.1)))
    )
    again = clone(back).fit(X, y, environments=hospital)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


@pytest.fixture
def saved(rows, tmp_path):
    X, y, hospital = rows
    model = InvariantClassifier(network="linear", **QUICK).fit(X, y, environments=hospital)
    model.save(tmp_path / "model")
    return tmp_path / "model"


def test_code_is_asked_for_and_no_other_taken(rows, saved, tmp_path):
    X, y, hospital = rows
    with pytest.raises(OptionError, match=r"no network= for this model.*\(mlp\)"):
        InvariantClassifier.load(saved, network=nn.Linear)
    with pytest.raises(OptionError, match=r"Expected no code to load this model.*got loss"):
        InvariantClassifier.load(saved, loss=nn.CrossEntropyLoss())
    own = InvariantClassifier(network=WithNorm, **QUICK).fit(X, y, environments=hospital)
    own.save(tmp_path / "own")
    with pytest.raises(OptionError, match=r"Expected network= for a model.*holds no code"):
        InvariantClassifier.load(tmp_path / "own")
    with pytest.raises(
        OptionError, match=r"weights do not fit: Missing key[^?]*Give load the same network="
    ):
        InvariantClassifier.load(tmp_path / "own", network=nn.Linear)


def test_each_folder_by_its_own_class(saved):
    with pytest.raises(DataFileError, match=r"InvariantRegressor in .*found one of InvariantCla"):
        InvariantRegressor.load(saved)
    with pytest.raises(DataFileError, match=r"file's rows in .*with InvariantClassifier\.load"):
        RowsModel.load(saved)


def test_what_cannot_be_kept_is_refused(rows, saved, tmp_path):
    X, y, hospital = rows

    class Mine(type(IRMv1()), MeanObjective):
        pass

    model = InvariantClassifier(Mine(), **QUICK).fit(X, y, environments=hospital)
    with pytest.raises(OptionError, match=r"objective of a known kind.*register_objective\('mine'"):
        model.save(tmp_path / "mine")
    model = InvariantClassifier(**QUICK)
    with pytest.raises(NotFittedError):
        model.save(tmp_path / "mine")
    days = np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]")
    with pytest.raises(OptionError, match=r"classes that are numbers.*y\.astype\(str\)"):
        model.fit(X, days[y], environments=hospital).save(tmp_path / "mine")
    with pytest.raises(OutputError):
        model.fit(X, y, environments=hospital).save(saved)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("encoder", {"scale": [0.0, 1.0]}),
        ("encoder", {"scale": [1.0]}),
        ("encoder", {"location": [0.0, "1"]}),
        ("encoder", {"n_features": 3}),
        ("encoder", {"names": ["cause"]}),
        ("encoder", {"more": 1}),
        ("target", {"values": [0, 1, 2]}),
        ("target", {"values": [0, 0]}),
        ("target", {"values": []}),
        ("target", {"type": "O"}),
        ("target", {"type": "float8"}),
        ("training", {"steps": "three"}),
        ("training", {"parameters": {"step": 3}}),
        ("training", {"parameters": {"objective": {"name": "os.system", "options": {}}}}),
        ("training", {"parameters": {"objective": {"name": "irmv1", "options": {"x": 1}}}}),
        ("training", {"parameters": {"objective": {"name": "irmv1"}}}),
        ("training", {"code": ["objective"]}),
    ],
)
def test_a_folder_made_up_by_a_stranger_is_refused(field, change, saved, tmp_path):
    stored = load_model(saved)
    content = json.loads(json.dumps(getattr(stored.record, field))) | change
    record = stored.record.model_copy(update={field: content})
    save_model(tmp_path / "strange", record, stored.network)
    with pytest.raises(DataFileError, match="Save the model"):
        InvariantClassifier.load(tmp_path / "strange")


def test_a_damaged_folder_is_refused(saved):
    path = saved / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="checksum"):
        InvariantClassifier.load(saved)


def test_weights_that_are_no_numbers_are_not_kept(rows, tmp_path):
    X, y, hospital = rows
    model = InvariantClassifier(network="linear", **QUICK).fit(X, y, environments=hospital)
    with torch.no_grad():
        model.network_.layers[0].bias.fill_(torch.nan)
    with pytest.raises(OptionError, match="NaN"):
        model.save(tmp_path / "model")


@pytest.mark.parametrize(
    "network",
    [
        lambda n, k: nn.Sequential(nn.Flatten(), nn.Linear(n, k)),
        lambda n, k: nn.Sequential(nn.Flatten(), nn.LazyLinear(k)),
    ],
)
def test_rows_of_any_shape_come_back(network, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 4, 5))
    y, hospital = (X[:, 0, 0] > 0).astype(int), np.repeat(["a", "b", "c"], 20)
    model = InvariantClassifier(network=network, **QUICK).fit(X, y, environments=hospital)
    model.save(tmp_path / "model")
    back = InvariantClassifier.load(tmp_path / "model", network=network)
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
