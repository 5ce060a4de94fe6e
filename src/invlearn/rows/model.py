"""Models of a user's rows: fitted, kept in a folder, asked for predictions."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError
from torch import nn

from invlearn.diagnostics import Finding, diagnose
from invlearn.environments import Environments
from invlearn.errors import DataFileError, EnvironmentsError, OptionError
from invlearn.estimators import InvariantClassifier, InvariantRegressor
from invlearn.estimators.base import InvariantEstimator
from invlearn.evaluation import forward
from invlearn.losses import get_loss
from invlearn.model_folder import ModelRecord, OutputScale, load_model, save_model
from invlearn.objectives import get_objective
from invlearn.rows.inputs import ImageInputs, Inputs, Make, TableInputs
from invlearn.rows.source import Source, from_frame
from invlearn.tables import Encoder, Target


@dataclass(frozen=True)
class FitRequest:
    """How a model is fitted to a user's rows; see `InvariantClassifier` for the parameters.

    `penalty_weight` 'auto' falls back to the objective's own with fewer than three environments.
    """

    objective: str = "vrex"
    penalty_weight: float | str | None = "auto"
    hidden: tuple[int, ...] = (16,)
    steps: int = 500
    early_stopping: bool | str = False
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True)
class RowsModel:
    """A fitted model of rows with a target and an environment.

    Attributes
    ----------
    network : nn.Module
    inputs : Inputs
        How rows become the network's input.
    target : Target
    output : OutputScale
        From the network's output to a regression's target.
    record : ModelRecord
        All but the weights, as it is stored.
    """

    network: nn.Module
    inputs: Inputs
    target: Target
    output: OutputScale
    record: ModelRecord

    @property
    def target_name(self) -> str:
        """Column of the target."""
        return str(self.record.training["target_column"])

    @property
    def environment_name(self) -> str:
        """Column of the environment."""
        return str(self.record.training["environment_column"])

    def save(self, folder: str | Path) -> None:
        """Write the model folder; see `invlearn.model_folder.save_model`."""
        save_model(folder, self.record, self.network)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a model folder; nothing in it is run.

        Raises
        ------
        DataFileError
            A folder that is not a whole, unaltered model of a version this one knows.
        """
        stored = load_model(folder)
        record = stored.record
        target = Target.from_json(record.target)
        inputs: Inputs
        if record.images is not None:
            inputs = ImageInputs(record.images)
        elif record.encoder is not None:
            inputs = TableInputs(Encoder.from_json(record.encoder))
        else:
            raise DataFileError(
                f"Expected how rows are read in '{folder}', found nothing. Fit the model anew."
            )
        expected = 1 if target.task == "regression" or len(target.classes) == 2 else None
        outputs = record.network.n_outputs
        names = {"target_column", "environment_column"}
        if (
            outputs != (expected or len(target.classes))
            or record.network.n_features != inputs.n_features
            or (record.loss == "squared") != (target.task == "regression")
            or not all(isinstance(record.training.get(name), str) for name in names)
        ):
            raise DataFileError(
                f"Expected parts that fit each other in '{folder}', got a network of "
                f"{record.network.n_features} inputs and {outputs} outputs for "
                f"{inputs.n_features} features and a {target.task}. Fit the model anew."
            )
        return cls(stored.network, inputs, target, record.output, record)

    def outputs(
        self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None = None
    ) -> npt.NDArray[np.float64]:
        """The network's outputs [n, k] for rows."""
        x = torch.as_tensor(self.inputs.matrix(frame, pixels))
        if not len(x):
            return np.zeros((0, self.record.network.n_outputs))
        z: npt.NDArray[np.float64] = forward(self.network, x).to(torch.float64).numpy()
        return z.reshape(len(x), -1)

    def predict(
        self, frame: pd.DataFrame | None, pixels: npt.NDArray[Any] | None = None
    ) -> pd.DataFrame:
        """Predictions for rows.

        Returns
        -------
        DataFrame [n]
            'prediction', and of a classification 'probability of CLASS' for every class.
        """
        z = self.outputs(frame, pixels)
        if self.target.task == "regression":
            values = z[:, 0] * self.output.scale + self.output.center
            return pd.DataFrame({"prediction": values})
        if z.shape[1] == 1:
            z = np.concatenate([np.zeros_like(z), z], axis=1)
        shares = torch.as_tensor(z).softmax(1).numpy()
        out = pd.DataFrame({"prediction": self.target.decode(z.argmax(1))})
        for code, label in enumerate(self.target.classes):
            out[f"probability of {label}"] = shares[:, code]
        return out

    def notes(self, frame: pd.DataFrame | None) -> list[str]:
        """Sentences on what is new in rows: categories, values, environments."""
        if frame is None or not isinstance(self.inputs, TableInputs):
            return []
        found = self.inputs.encoder.notes(frame)
        if self.environment_name in frame.columns:
            here = frame[self.environment_name].dropna().astype(str).str.strip().unique()
            new = sorted(set(here) - set(self.record.environments))
            if new:
                shown = ", ".join(f"'{name}'" for name in new[:3])
                more = f" and {len(new) - 3} more" if len(new) > 3 else ""
                found.append(
                    f"The model was not trained in {shown}{more}: it is asked to hold there, which "
                    "is what it was made for and nothing here can check."
                )
        return found

    def environments(self, source: Source) -> Environments:
        """Labelled rows as the network and its loss take them."""
        y: npt.NDArray[Any] = source.y
        if self.target.task == "regression":
            y = ((y - self.output.center) / self.output.scale).astype(np.float32)
        return Environments.from_arrays(
            torch.as_tensor(source.matrix(self.inputs)), torch.as_tensor(y), source.environments
        )

    def diagnose(self, source: Source, *, seed: int = 0) -> list[Finding]:
        """What the model does in each environment of labelled rows, and why."""
        rows = self.environments(source)
        return diagnose(
            self.network,
            rows,
            get_loss(self.record.loss),
            feature_names=self.inputs.names,
            seen=[name for name in rows.names if name in self.record.environments],
            seed=seed,
        )

    def labelled(self, frame: pd.DataFrame, title: str) -> Source:
        """The rows of a table that carry this model's target and environment."""
        return from_frame(
            frame,
            title,
            target=self.target_name,
            environment=self.environment_name,
            known=self.target,
        )


def fit_rows(
    source: Source,
    request: FitRequest,
    *,
    provenance: Mapping[str, str],
    progress: bool = False,
) -> tuple[RowsModel, list[str]]:
    """Fit a model to all rows of all environments.

    Parameters
    ----------
    source : Source
    request : FitRequest
    provenance : mapping of str
        Goes into the model.
    progress : bool
        Show a progress bar on a terminal.

    Returns
    -------
    (RowsModel, list of str)
        And what there is to know: warnings of the training, the strength chosen.

    Raises
    ------
    EnvironmentsError, OptionError, UnknownNameError
    """
    objective = get_objective(request.objective)
    notes = list(source.notes)
    weight = request.penalty_weight
    if not objective.strength and weight == "auto":
        weight = None
    if weight == "auto" and len(source.names) < 3:
        weight = None
        notes.append(
            f"With {len(source.names)} environments the penalty weight cannot be chosen by leaving "
            "one out; the default was taken."
        )
    inputs = source.learn_inputs()
    classifies = source.target.task == "classification"
    kind: type[InvariantEstimator] = InvariantClassifier if classifies else InvariantRegressor
    try:
        spec = inputs.network(request.hidden, 1)
    except ValidationError as error:
        raise OptionError(
            f"Expected hidden layers of 1 to 100,000 units, got {request.hidden}: "
            f"{error.errors()[0]['msg']}."
        ) from error
    model = kind(
        request.objective,
        penalty_weight=weight,
        network=Make(spec),
        standardize=False,
        steps=request.steps,
        early_stopping=request.early_stopping,
        random_state=request.seed,
        device=request.device,
        verbose=progress,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(source.matrix(inputs), source.y, environments=source.environments)
    notes += dict.fromkeys(str(warning.message) for warning in caught)
    if not math.isfinite(float(model.history_["total"].iloc[-1])):
        raise EnvironmentsError(
            "The training left the finite numbers. Lower --penalty-weight, or look for columns "
            "with extreme values."
        )
    if objective.strength:
        chosen = " (chosen by leaving environments out)" if weight == "auto" else ""
        words = f"{model.penalty_weight_:g}" if model.penalty_weight_ else "0, that is ERM"
        notes.append(f"{objective.strength.replace('_', ' ').capitalize()}: {words}{chosen}.")
    return _rows_model(source, request, inputs, spec, model, provenance), notes


def _rows_model(
    source: Source,
    request: FitRequest,
    inputs: Inputs,
    spec: Any,
    model: Any,
    provenance: Mapping[str, str],
) -> RowsModel:
    target = source.target
    classifies = target.task == "classification"
    outputs = len(target.classes) if classifies and len(target.classes) > 2 else 1
    output = OutputScale(center=0.0, scale=1.0)
    if not classifies:
        output = OutputScale(center=model.target_location_, scale=model.target_scale_)
    loss: Literal["squared", "logistic", "softmax"] = "squared"
    if classifies:
        loss = "logistic" if outputs == 1 else "softmax"
    record = ModelRecord(
        network=spec.model_copy(update={"n_outputs": outputs}),
        encoder=inputs.encoder.to_json() if isinstance(inputs, TableInputs) else None,
        images=inputs.image if isinstance(inputs, ImageInputs) else None,
        target=target.to_json(),
        output=output,
        objective=request.objective,
        loss=loss,
        training={
            "target_column": source.target_name,
            "environment_column": source.environment_name,
            "steps": int(model.n_iter_),
            "seed": request.seed,
            "stop_reason": model.stop_reason_,
            "hyper": {name: float(value) for name, value in model.hyper_.items()},
        },
        environments=source.sizes,
        provenance=dict(provenance),
    )
    network = model.network_.cpu()
    return RowsModel(network, inputs, target, output, record)
