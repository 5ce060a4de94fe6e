"""Models of a user's rows: kept in a folder, asked for predictions, diagnosed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from invlearn.diagnostics import Finding, diagnose
from invlearn.environments import Environments
from invlearn.errors import DataFileError, EnvironmentsError
from invlearn.evaluation import outputs
from invlearn.image_features import StandardFeatures
from invlearn.learning.scaling import location_and_scale
from invlearn.losses import get_loss
from invlearn.model_folder import load_model, save_model
from invlearn.model_record import ModelRecord, OutputScale, shown
from invlearn.rows.inputs import ImageInputs, Inputs, TableInputs
from invlearn.rows.source import Source, as_frame, environment_names, from_frame
from invlearn.rows.usable import set_aside
from invlearn.tables import Encoder, Target
from invlearn.tables.kinds import label


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
        if "estimator" in record.training:
            made = shown(record.training["estimator"])
            raise DataFileError(
                f"Expected a model of a file's rows in '{folder}', found one of {made}. Load it "
                f"with {made}.load."
            )
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

    def outputs(self, X: Any) -> npt.NDArray[np.float64]:
        """The network's outputs [n, k] for rows; X as of `predict`."""
        frame = as_frame(X)
        x = torch.as_tensor(self.inputs.matrix(frame, X if frame is None else None))
        if not len(x):
            return np.zeros((0, self.record.network.n_outputs))
        return outputs(self.network, x).numpy()

    def predict(self, X: Any) -> pd.DataFrame:
        """Predictions for rows.

        Parameters
        ----------
        X : DataFrame of n rows, or images [n, channels, height, width]
            The columns trained on, any others beside them. A table of polars' is taken too.

        Returns
        -------
        DataFrame [n]
            'prediction', and of a classification 'probability of CLASS' for every class; with the
            table's index.
        """
        frame = as_frame(X)
        index = None if frame is None else frame.index
        z = torch.as_tensor(self.outputs(X if frame is None else frame))
        if self.target.task == "regression":
            values = z[:, 0] * self.output.scale + self.output.center
            return pd.DataFrame({"prediction": values.numpy()}, index=index)
        loss = get_loss(self.record.loss)
        shares = loss.probabilities(z).numpy()
        classes = self.target.decode(loss.logits(z).argmax(1).numpy())
        out = pd.DataFrame({"prediction": classes}, index=index)
        for code, name in enumerate(self.target.classes):
            out[f"probability of {name}"] = shares[:, code]
        return out

    def notes(self, frame: pd.DataFrame | None) -> list[str]:
        """Sentences on what is new in rows: categories, values, environments."""
        if frame is None or not isinstance(self.inputs, TableInputs):
            return []
        found = self.inputs.encoder.notes(frame)
        if new := self.new_environments(frame):
            found.append(self.untrained(sorted(new)))
        return found

    def new_environments(self, frame: pd.DataFrame) -> set[str]:
        """Environments of rows that the model was not trained in."""
        if self.environment_name not in frame.columns:
            return set()
        here = environment_names(frame[self.environment_name]).dropna()
        return set(here) - set(self.record.environments)

    def untrained(self, names: Sequence[str]) -> str:
        """Say that the model was not trained in some environments."""
        shown = ", ".join(f"'{name}'" for name in names[:3])
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return (
            f"The model was not trained in {shown}{more}: it is asked to hold there, which is what "
            "it was made for and nothing here can check."
        )

    def diagnose(
        self, X: Any, y: Any = None, environments: Any = None, **options: Any
    ) -> list[Finding]:
        """What the model does in each environment of labeled rows, and why.

        Parameters
        ----------
        X : DataFrame of n rows, or images [n, channels, height, width]
        y, environments : array [n], optional
            Of a table: its columns of the model's target and environment, if not given.
        **options
            seed, draws, progress: see `invlearn.diagnostics.diagnose`.

        Raises
        ------
        EnvironmentsError, UnknownNameError
            Labels that are missing, too few or too many, or are none of the model's classes.
        """
        given = {self.target_name: y, self.environment_name: environments}
        for name, values in given.items():
            if values is not None and len(values) != len(X):
                raise EnvironmentsError(
                    f"Expected {name} of each of {len(X):,} rows, got {len(values):,}. Pass the "
                    "column of the same rows."
                )
        frame = as_frame(X)
        if frame is not None:
            new = {name: np.asarray(values) for name, values in given.items() if values is not None}
            return self.diagnose_source(self.labeled(frame.assign(**new), "rows"), **options)
        for name, values in given.items():
            if values is None:
                raise EnvironmentsError(
                    f"Expected {name} beside images, got none. Pass diagnose(images, y, "
                    "environments), a label per image."
                )
        return self.diagnose_source(self.labeled_images(X, y, environments, "images"), **options)

    def diagnose_source(self, source: Source, **options: Any) -> list[Finding]:
        """The same of rows that were read already."""
        network, x = self.network, None
        if isinstance(self.inputs, ImageInputs):  # They are asked about by their pixels.
            network = nn.Sequential(StandardFeatures(self.inputs.image), network)
            x = torch.as_tensor(source.pixels, dtype=torch.float32)
        rows = labeled_rows(source, self.inputs, self.output, x)
        return diagnose(
            network,
            rows,
            get_loss(self.record.loss),
            feature_names=self.inputs.names,
            seen=[name for name in rows.names if name in self.record.environments],
            **options,
        )

    def labeled_images(self, pixels: Any, classes: Any, environments: Any, title: str) -> Source:
        """Images with their classes; EnvironmentsError for a class the model does not know."""
        known = set(map(label, self.target.classes))
        new = sorted({str(name) for name in classes if label(name) not in known})
        if new:
            raise EnvironmentsError(
                f"Expected images of {', '.join(sorted(known))}, got {', '.join(new)} too. "
                "Leave them out, or fit a model with them."
            )
        y = self.target.encode(pd.Series(classes))
        return Source(
            title, self.target_name, self.environment_name, self.target, y,
            np.array(environments), None, pixels,
        )  # fmt: skip

    def labeled(self, frame: pd.DataFrame, title: str) -> Source:
        """The rows of a table that carry this model's target and environment.

        Environments of a single row are set aside, and noted.
        """
        source = from_frame(
            frame,
            title,
            target=self.target_name,
            environment=self.environment_name,
            known=self.target,
        )
        kept = set_aside(source, fewest=2, one_class=True)
        # The model's classes stay, whether these rows have all of them or not.
        return replace(source.of(kept.names), notes=kept.notes)


def output_scale(source: Source) -> OutputScale:
    """What brings a network's outputs to the unit of these rows' targets."""
    if source.target.task != "regression":
        return OutputScale(center=0.0, scale=1.0)
    center, scale = location_and_scale(source.y, np.ones(len(source.y)))
    return OutputScale(center=float(center), scale=float(scale))


def labeled_rows(
    source: Source, inputs: Inputs, output: OutputScale, x: Tensor | None = None
) -> Environments:
    """Labeled rows as a network and its loss take them; `x` in place of the inputs' numbers."""
    y: npt.NDArray[Any] = source.y
    if source.target.task == "regression":
        y = ((y - output.center) / output.scale).astype(np.float32)
    if x is None:
        x = torch.as_tensor(source.matrix(inputs))
    return Environments.from_arrays(x, torch.as_tensor(y), source.environments)
