"""Rows with a target and an environment, from a table or a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.images import is_image_folder, read_images
from invlearn.rows.image_table import CLASS, ENVIRONMENT, SIZE, FeaturesOf, image_table
from invlearn.rows.inputs import ImageInputs, Inputs, TableInputs
from invlearn.tables import Encoder, ParquetTable, Target, can_stream, column, read_table
from invlearn.tables.kinds import as_labels

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Source:
    """n rows whose target and environment are known.

    Attributes
    ----------
    title : str
        The file's or folder's name.
    target_name, environment_name : str
        Columns; 'class' and 'environment' of images.
    target : Target
    y : array [n]
        Class codes, or numbers.
    environments : array of str [n]
    frame : DataFrame or None
        The other columns.
    pixels : array [n, channels, height, width] of uint8, or None
    notes : tuple of str
        What was dropped.
    """

    title: str
    target_name: str
    environment_name: str
    target: Target
    y: Array
    environments: Array
    frame: pd.DataFrame | None
    pixels: npt.NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The environments, sorted."""
        return tuple(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each environment."""
        names, counts = np.unique(self.environments, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def take(self, rows: Array) -> Source:
        """The rows at these positions, or where a mask is true."""
        frame = None
        if self.frame is not None:
            frame = self.frame.loc[rows] if rows.dtype == bool else self.frame.iloc[rows]
            frame = frame.reset_index(drop=True)
        return replace(
            self,
            y=self.y[rows],
            environments=self.environments[rows],
            frame=frame,
            pixels=None if self.pixels is None else self.pixels[rows],
        )

    def of(self, names: Sequence[str]) -> Source:
        """The rows of some environments."""
        return self.take(np.isin(self.environments, list(names)))

    def learn_inputs(self) -> Inputs:
        """How these rows become numbers, learned from them alone."""
        if self.pixels is not None:
            return ImageInputs.fit(self.pixels)
        assert self.frame is not None
        return TableInputs(Encoder.fit(self.frame))

    def matrix(self, inputs: Inputs) -> npt.NDArray[np.float32]:
        """The rows as numbers [n, d]."""
        return inputs.matrix(self.frame, self.pixels)


def read_rows(
    rows: Any,
    *,
    target: str | None = None,
    environment: str | None = None,
    task: str | None = None,
    drop: Sequence[str] = (),
    image_size: int | None = None,
    features: FeaturesOf | None = None,
    most_rows: int | None = None,
    seed: int = 0,
) -> Source:
    """Read a table, in a file or in memory, or a folder of images root/environment/class/*.

    Rows without a target or an environment are dropped, and noted.

    Parameters
    ----------
    rows : path or DataFrame
        Of pandas, or of a library whose tables have to_pandas, as polars' do.
    target, environment : str
        Columns of the table; images need neither.
    task : 'classification' or 'regression', optional
        Instead of the one recognized.
    drop : sequence of str
        Columns to leave out.
    image_size : int, optional
        Side of images in pixels, instead of the one that suits them.
    features : path or callable, optional
        Columns that images have instead of their pixels; see `image_table`.
    most_rows : int, optional
        Of a Parquet file with more than these, so many are drawn and the others never loaded.
    seed : int
        Of the drawing.

    Raises
    ------
    InvlearnError
        In one line, with what to do.
    """
    in_memory = as_frame(rows)
    if in_memory is None and not isinstance(rows, str | PathLike):
        raise OptionError(
            f"Expected rows as a file, a folder of images or a DataFrame, got "
            f"{type(rows).__name__}. Make a table of them: pandas.DataFrame(rows)."
        )
    if in_memory is None and (path := Path(rows)).is_dir():
        return _images(path, target, environment, task, drop, image_size, features)
    if features is not None:
        raise OptionError(
            "Expected a folder of images with features, got a table. Leave the features out, or "
            "join them to the table."
        )
    if target is None or environment is None:
        missing = "target" if target is None else "environment"
        raise OptionError(
            f"Expected the table's target and environment columns, got no {missing}. For instance "
            "--target ill --environment hospital (target=, environment= in Python)."
        )
    read = partial(from_frame, target=target, environment=environment, task=task, drop=drop)
    if in_memory is not None:
        return read(in_memory, "table")
    note = ""
    if most_rows is not None and can_stream(path):
        table = ParquetTable(path)
        if table.n_rows > most_rows:
            frame = table.sample(most_rows, seed).reset_index(drop=True)
            note = f"{most_rows:,} of {table.n_rows:,} rows were drawn (--max-rows)."
    if not note:
        frame = read_table(path)
    source = read(frame, path.name)
    return replace(source, notes=(note, *source.notes)) if note else source


def as_frame(rows: Any) -> pd.DataFrame | None:
    """A table in memory, of pandas or of a library that turns its own into one; else None."""
    found = rows.to_pandas() if hasattr(rows, "to_pandas") else rows
    return found if isinstance(found, pd.DataFrame) else None


def from_frame(
    frame: pd.DataFrame,
    title: str,
    *,
    target: str,
    environment: str,
    task: str | None = None,
    drop: Sequence[str] = (),
    known: Target | None = None,
) -> Source:
    """The same from a DataFrame; `known` is a fitted model's target, if there is one."""
    if target == environment:
        raise OptionError(
            f"Expected two columns, got '{target}' as both target and environment. The environment "
            "says where a row comes from."
        )
    if not all(isinstance(name, str) for name in frame.columns):
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        target, environment, drop = str(target), str(environment), [str(name) for name in drop]
    wanted = column(frame, target, "target")
    labels = column(frame, environment, "environment")
    for name in drop:
        column(frame, name, "left-out")
    labels = environment_names(labels)
    notes = []
    unlabeled = labels.isna().to_numpy()
    if unlabeled.all():
        raise EnvironmentsError(
            f"Expected environments in column '{environment}', every row is empty. Choose another."
        )
    recognized = known or Target.recognize(wanted[~unlabeled], task)
    usable = recognized.usable(wanted)
    for what, lost in (
        (f"environment ('{environment}')", unlabeled),
        (f"target ('{target}')", ~usable & ~unlabeled),
    ):
        if lost.any():
            notes.append(f"{int(lost.sum()):,} rows without {what} were dropped.")
    kept = usable & ~unlabeled
    others = frame.drop(columns=[target, environment, *drop])
    if not len(others.columns):
        raise EnvironmentsError("Expected columns to learn from, got only target and environment.")
    return Source(
        title,
        target,
        environment,
        recognized,
        recognized.encode(wanted[kept]),
        labels[kept].to_numpy(dtype=object).astype(str),
        others.loc[kept].reset_index(drop=True),
        None,
        tuple(notes),
    )


def loss_of(target: Target) -> Literal["squared", "logistic", "softmax"]:
    """The loss by which such a target is learned, by name."""
    if target.task == "regression":
        return "squared"
    return "logistic" if len(target.classes) == 2 else "softmax"


def environment_names(labels: pd.Series[Any]) -> pd.Series[Any]:
    """Environment names as text, alike for 3, 3.0 and '3'; None for what is missing or blank."""
    names = [name or None for name in as_labels(labels)]
    return pd.Series(names, index=labels.index, dtype=object)


def _images(
    path: Path,
    target: str | None,
    environment: str | None,
    task: str | None,
    drop: Sequence[str],
    size: int | None,
    features: FeaturesOf | None,
) -> Source:
    if target or environment or task == "regression" or drop:
        raise OptionError(
            f"Expected a table with these options, '{path}' is a folder. Images are read from "
            "root/environment/class/*, which says target and environment already."
        )
    if not is_image_folder(path):
        raise EnvironmentsError(
            f"Expected images as root/environment/class/*, found none below '{path}'. "
            "For instance photos/berlin/cat/1.png."
        )
    if features is not None:
        frame = image_table(path, features, size=size or SIZE)
        return from_frame(frame, path.name, target=CLASS, environment=ENVIRONMENT, task=task)
    images = read_images(path, size)
    labels = pd.Series(images.labels)
    target_of = Target.recognize(labels, "classification")
    return Source(
        path.name,
        "class",
        "environment",
        target_of,
        target_of.encode(labels),
        np.array(images.environments, dtype=object).astype(str),
        None,
        images.x,
    )
