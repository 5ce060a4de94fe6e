"""Fitted estimators in model folders: what is kept of one, and one made of what was kept."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field, JsonValue, ValidationError
from torch import nn

import invlearn
from invlearn.errors import DataFileError, InvlearnError, OptionError
from invlearn.estimators.choices import choices_table
from invlearn.learning.builders import Builder, Drawn
from invlearn.losses import AnyLoss
from invlearn.model_folder import load_model, save_model
from invlearn.model_record import ModelRecord, OutputScale, shown
from invlearn.models import MLP
from invlearn.networks import MLPSpec, NetworkSpec, OwnSpec
from invlearn.objectives import OBJECTIVES, get_objective
from invlearn.objectives.base import Objective
from invlearn.tables.json_state import State, parsed

_CODE: tuple[Literal["network", "loss"], ...] = (
    "network",
    "loss",
)  # Parameters that may be code, which no folder holds.

AnyEstimator = TypeVar("AnyEstimator")
_ClassType = Annotated[str, Field(pattern=r"^(bool|u?int(8|16|32|64)|float(16|32|64)|str|object)$")]


class _Columns(State):
    """What rows have to be, and how they are scaled."""

    kind: Literal["numbers"] = "numbers"
    n_features: Annotated[int, Field(ge=1)]
    names: tuple[str, ...] | None
    location: tuple[float, ...]
    scale: tuple[Annotated[float, Field(gt=0)], ...]


class _Classes(State):
    """What is predicted: classes, or numbers where there are none."""

    type: _ClassType = "float64"
    values: tuple[bool | int | float | str, ...] = ()


class _Training(State):
    """Which estimator it is, with what parameters, and how its training went."""

    estimator: str
    parameters: dict[str, JsonValue]
    code: tuple[Literal["network", "loss"], ...]
    choices: tuple[tuple[str, str], ...]
    steps: int
    stop_reason: str
    hyper: dict[str, float]
    penalty_weight: float


def save_estimator(estimator: Any, folder: str | Path) -> None:
    """Write a fitted estimator as a model folder; see `InvariantEstimator.save`."""
    classes = getattr(estimator, "classes_", None)
    names = getattr(estimator, "feature_names_in_", None)
    n_outputs = 1 if classes is None else estimator._loss.outputs_for(len(classes))
    code = tuple(name for name in _CODE if not isinstance(getattr(estimator, name), str | None))
    n_features = int(estimator.n_features_in_)
    columns = _Columns(
        n_features=n_features,
        names=None if names is None else tuple(map(str, names)),
        location=tuple(estimator.location_.tolist()),
        scale=tuple(estimator.scale_.tolist()),
    )
    training = _Training(
        estimator=type(estimator).__name__,
        parameters={
            name: _plain(name, value)
            for name, value in estimator.get_params(deep=False).items()
            if name not in code
        },
        code=code,
        choices=tuple(estimator.choices_["chosen"].items()),
        steps=estimator.n_iter_,
        stop_reason=estimator.stop_reason_,
        hyper={name: float(value) for name, value in estimator.hyper_.items()},
        penalty_weight=float(estimator.penalty_weight_),
    )
    output = OutputScale(center=0.0, scale=1.0)
    if classes is None:
        output = OutputScale(center=estimator.target_location_, scale=estimator.target_scale_)
    try:
        record = ModelRecord(
            network=_described(estimator, n_outputs),
            target=_classes(classes).model_dump(mode="json"),
            objective=estimator.choices_.loc["objective", "chosen"],
            loss="squared" if classes is None else "logistic" if n_outputs == 1 else "softmax",
            training=training.model_dump(mode="json"),
            environments=estimator.environments_,
            provenance={"version": str(invlearn.__version__)},
            encoder=columns.model_dump(mode="json"),
            output=output,
        )
    except ValidationError as error:
        raise OptionError(
            f"Expected an estimator that a model folder can describe, got one that it cannot: "
            f"{shown(error.errors()[0]['msg'])}. Save its network with safetensors instead."
        ) from error
    save_model(folder, record, estimator.network_)


def load_estimator(
    make: type[AnyEstimator], folder: str | Path, network: Builder | None, loss: AnyLoss | None
) -> AnyEstimator:
    """A fitted estimator of a class from a model folder; see `InvariantEstimator.load`."""

    def built(spec: OwnSpec) -> nn.Module:
        assert network is not None
        return Drawn(network)(spec.n_features, spec.n_outputs, 0)

    stored = load_model(folder, None if network is None else built)
    record = stored.record
    if "estimator" not in record.training:
        raise DataFileError(
            f"Expected an estimator in '{folder}', found a model of a file's rows. Load it with "
            "RowsModel.load."
        )
    training = parsed(_Training, record.training, "training")
    columns = parsed(_Columns, record.encoder, "table of numbers")
    classes = parsed(_Classes, record.target, "target")
    if training.estimator != make.__name__:
        raise DataFileError(
            f"Expected a model of {make.__name__} in '{folder}', found one of "
            f"{shown(training.estimator)}. Load it with that class."
        )
    _check_parts(record, columns, classes, folder)
    given = {"network": network, "loss": loss}
    own = {name: value for name, value in given.items() if value is not None}
    if own.keys() != set(training.code):
        raise OptionError(
            f"Expected {' and '.join(f'{name}=' for name in training.code) or 'no code'} to load "
            f"this model with, as it was fitted with, got {' and '.join(own) or 'none'}. A model "
            "folder holds no code."
        )
    fitted: Any = make(**_parameters(make, training.parameters, folder), **own)
    fitted.network_ = stored.network
    fitted.n_features_in_, fitted._row_width = columns.n_features, record.network.n_features
    if columns.names is not None:
        fitted.feature_names_in_ = np.array(columns.names, dtype=object)
    fitted.location_, fitted.scale_ = np.array(columns.location), np.array(columns.scale)
    if classes.values:
        fitted.classes_ = np.array(classes.values, dtype=classes.type)
    else:
        fitted.target_location_, fitted.target_scale_ = record.output.center, record.output.scale
    fitted.n_iter_, fitted.stop_reason_ = training.steps, training.stop_reason
    fitted.hyper_, fitted.penalty_weight_ = training.hyper, training.penalty_weight
    fitted.environments_ = record.environments
    fitted.choices_ = choices_table(dict(training.choices))
    found: AnyEstimator = fitted
    return found


def _described(estimator: Any, n_outputs: int) -> NetworkSpec:
    network, n_features = estimator.network_, estimator._row_width
    if isinstance(estimator.network, str) and isinstance(network, MLP):
        hidden = tuple(
            network.state_dict()[f"layers.{i}.bias"].numel() for i in range(len(network.layers) - 1)
        )
        return MLPSpec(n_features=n_features, hidden=hidden, n_outputs=n_outputs)
    return OwnSpec.of(network, n_features=n_features, n_outputs=n_outputs)


def _classes(classes: Any) -> _Classes:
    if classes is None:
        return _Classes()
    values = classes.tolist()
    kind = {"U": "str", "O": "object"}.get(classes.dtype.kind, classes.dtype.name)
    try:
        if kind == "object" and not all(isinstance(value, str) for value in values):
            raise ValueError
        return _Classes(type=kind, values=tuple(values))
    except ValueError as error:
        raise OptionError(
            f"Expected classes that are numbers, booleans or texts to save them, got "
            f"{classes.dtype} such as {values[0]!r}. Fit to their texts: y.astype(str)."
        ) from error


def _check_parts(
    record: ModelRecord, columns: _Columns, classes: _Classes, folder: str | Path
) -> None:
    """Refuse a folder whose parts do not fit each other: a stranger may have written it."""
    widths = {len(columns.location), len(columns.scale)}
    number = len(classes.values)
    network = record.network
    fits = (
        widths in ({1}, {columns.n_features})
        and columns.n_features <= network.n_features  # Rows of several dimensions have more.
        and (isinstance(network, OwnSpec) or columns.n_features == network.n_features)
        and (columns.names is None or len(columns.names) == columns.n_features)
        and number != 1
        and len(set(map(str, classes.values))) == number
        and (network.n_outputs, record.loss) in _readings(number)
    )
    if not fits:
        raise DataFileError(
            f"Expected parts that fit each other in '{folder}', got a network of "
            f"{network.n_features} inputs and {network.n_outputs} outputs, {columns.n_features} "
            f"columns, {number} classes and the {record.loss} loss. Save the model anew."
        )


def _readings(n_classes: int) -> set[tuple[int, str]]:
    """How many outputs there may be, and how they are read."""
    if n_classes == 0:
        return {(1, "squared")}
    return {(n_classes, "softmax")} | ({(1, "logistic")} if n_classes == 2 else set())


def _plain(name: str, value: Any) -> JsonValue:
    """A parameter as JSON has it; a generator of random numbers is left out."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.random.RandomState):
        return None
    if isinstance(value, np.generic | np.ndarray):
        return _plain(name, value.tolist())
    if isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(name, own) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, own) for own in value]
    if isinstance(value, Objective):
        known = [key for key, other in OBJECTIVES.items() if type(other) is type(value)]
        if known:
            options = {f.name: _plain(name, getattr(value, f.name)) for f in fields(value)}
            return {"name": known[0], "options": options}
        raise OptionError(
            f"Expected an objective of a known kind to save it, got {value!r}. Make it known: "
            f"register_objective('mine', {type(value).__name__}())."
        )
    raise OptionError(
        f"Expected {name} as plain values to save them, got {type(value).__name__}. A model folder "
        "holds no code: fit with a name or numbers."
    )


def _parameters(make: type, saved: Mapping[str, JsonValue], folder: str | Path) -> dict[str, Any]:
    """The constructor's parameters."""
    known = set(inspect.signature(make).parameters)
    try:
        if not saved.keys() <= known:
            raise ValueError(f"unknown parameters {sorted(saved.keys() - known)[:3]}")
        given = {name: _hashable(value) for name, value in saved.items()}
        objective = given.get("objective")
        if isinstance(objective, dict):
            given["objective"] = get_objective(objective["name"], **objective["options"])
    except (InvlearnError, KeyError, TypeError, ValueError) as error:
        raise DataFileError(
            f"Expected the parameters of {make.__name__} in '{folder}', got others: "
            f"{shown(error)}. Save the model anew, or register its objective first."
        ) from error
    return given


def _hashable(value: JsonValue) -> Any:
    """Lists as tuples, as options of objectives are."""
    if isinstance(value, list):
        return tuple(map(_hashable, value))
    return {k: _hashable(v) for k, v in value.items()} if isinstance(value, dict) else value
