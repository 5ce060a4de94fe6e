"""A table's columns as one float matrix: fitted on training rows, kept as plain JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from invlearn.errors import EnvironmentsError, OptionError
from invlearn.tables.encodings import (
    CategoryEncoding,
    DateEncoding,
    NumberEncoding,
    TextEncoding,
)
from invlearn.tables.json_state import State, parsed
from invlearn.tables.kinds import Kind, recognize
from invlearn.tables.messages import listed, quoted, unknown_columns
from invlearn.tables.scaling import Features

AnyEncoding = Annotated[
    NumberEncoding | CategoryEncoding | DateEncoding | TextEncoding, Field(discriminator="kind")
]


class _State(State):
    """What a model file holds of an encoder."""

    version: Literal[1] = 1
    columns: Annotated[tuple[AnyEncoding, ...], Field(min_length=1)]
    dropped: dict[str, str]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [*(encoding.column for encoding in self.columns), *self.dropped]
        if len(set(names)) < len(names):
            raise ValueError("column names are repeated")
        return self


@dataclass(frozen=True)
class Encoder:
    """Turns tables with the columns of a training table into matrices of float32.

    Build one with `fit` or `from_json`. Columns are found by name, in any order and type; others
    are ignored.

    - A number is standardized and clipped to 10 standard deviations, so that a single typo does
      not rule a linear model. Where it is missing, infinite or unreadable it takes the training
      median; a second feature says so if any was missing in training.
    - A category is one feature per value, for the most frequent; a new value has none.
    - A date is its days since 1970, as a number, and sine and cosine of the day of the year (and
      of the hour of the day in UTC, if times occur).
    - A text is the TF-IDF weights of its most frequent words.

    Attributes
    ----------
    encodings : tuple of Encoding
        One per column that is read, in the training table's order.
    dropped : mapping of str to str
        Columns that are of no use, and why.

    Examples
    --------
    >>> train = pd.DataFrame({"age": [30.0, None, 50.0], "color": ["red", "blue", "red"]})
    >>> encoder = Encoder.fit(train)
    >>> encoder.feature_names
    ('age', 'age is missing', 'color=red', 'color=blue')
    >>> encoder.transform(pd.DataFrame({"color": ["blue", "pink"], "age": ["40", None]}))
    array([[0., 0., 0., 1.],
           [0., 1., 0., 0.]], dtype=float32)
    """

    encodings: tuple[AnyEncoding, ...]
    dropped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, *, max_categories: int = 50, text_features: int = 200
    ) -> Encoder:
        """Learn every column's kind and numbers from training rows.

        Parameters
        ----------
        frame : DataFrame [n, columns]
            Features only: without the target and the environment.
        max_categories : int
            Of one column; the least frequent beyond are in none.
        text_features : int
            Words of one text column.

        Raises
        ------
        OptionError
            A maximum below 1.
        EnvironmentsError
            No column is of use, or a name occurs twice.
        """
        for option, value in (("max_categories", max_categories), ("text_features", text_features)):
            if value < 1:
                raise OptionError(f"Expected {option} of at least 1, got {value}. Raise it.")
        encodings: list[AnyEncoding] = []
        dropped: dict[str, str] = {}
        for name, values in _columns(frame).items():
            kind, reason = recognize(values)
            if kind is None:
                dropped[name] = reason
            else:
                encodings.append(_fit(kind, name, values, max_categories, text_features))
        if not encodings:
            reasons = "; ".join(f"{quoted(name)}: {why}" for name, why in list(dropped.items())[:3])
            raise EnvironmentsError(
                f"Expected at least one column to learn from, got none of use among "
                f"{len(dropped):,}{f' ({reasons})' if reasons else ''}. "
                "Add columns that vary over the rows."
            )
        return cls(tuple(encodings), dropped)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return tuple(encoding.column for encoding in self.encodings)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature ('age', 'color=red', 'age is missing')."""
        return tuple(name for encoding in self.encodings for name in encoding.feature_names)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The column behind each feature."""
        return tuple(encoding.column for encoding in self.encodings for _ in encoding.feature_names)

    @property
    def n_features(self) -> int:
        """Width of the matrix."""
        return len(self.feature_names)

    def transform(self, frame: pd.DataFrame) -> Features:
        """Features [n, n_features] of a table's rows, float32, always finite.

        Raises
        ------
        UnknownNameError
            Columns are missing; all are named, each with the nearest present name.
        EnvironmentsError
            A column name occurs twice.
        """
        columns = self._read(frame)
        features = np.empty((len(frame), self.n_features), dtype=np.float32)
        if len(frame):
            start = 0
            for encoding in self.encodings:
                stop = start + len(encoding.feature_names)
                features[:, start:stop] = encoding.transform(columns[encoding.column])
                start = stop
        return features

    def notes(self, frame: pd.DataFrame) -> list[str]:
        """Sentences on what is unusual in new rows; empty where nothing is.

        Columns without a single value, categories that were not learned, values that cannot be
        read, are missing as none was in training, or lie far outside the training range.

        Raises
        ------
        UnknownNameError
            As `transform`.
        """
        columns = self._read(frame)
        notes = []
        for encoding in self.encodings if len(frame) else ():
            values = columns[encoding.column]
            if values.isna().all():
                notes.append(f"Every value of {quoted(encoding.column)} is missing.")
            else:
                notes.extend(encoding.notes(values))
        return notes

    def _read(self, frame: pd.DataFrame) -> dict[str, pd.Series[Any]]:
        present = [str(name) for name in frame.columns]
        missing = [name for name in self.columns if name not in set(present)]
        if missing:
            raise unknown_columns(missing, present)
        wanted = set(self.columns)
        return _columns(frame.iloc[:, [i for i, name in enumerate(present) if name in wanted]])

    def to_json(self) -> dict[str, Any]:
        """State as plain JSON, for a model file."""
        state = _State(columns=self.encodings, dropped=dict(self.dropped))
        content: dict[str, Any] = state.model_dump(mode="json")
        return content

    @classmethod
    def from_json(cls, content: object) -> Encoder:
        """Encoder of a state that `to_json` wrote; it transforms bit for bit alike.

        Raises
        ------
        DataFileError
            Anything else than such a state.
        """
        state = parsed(_State, content, "table encoder")
        return cls(tuple(state.columns), state.dropped)


def _fit(
    kind: Kind, name: str, values: pd.Series[Any], max_categories: int, text_features: int
) -> AnyEncoding:
    if kind == "number":
        return NumberEncoding.fit(name, values)
    if kind == "date":
        return DateEncoding.fit(name, values)
    if kind == "text":
        return TextEncoding.fit(name, values, text_features)
    return CategoryEncoding.fit(name, values, max_categories)


def _columns(frame: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    names = [str(name) for name in frame.columns]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise EnvironmentsError(
            f"Expected every column name once, got {listed(repeated)} several times. Rename them."
        )
    return {name: frame.iloc[:, place] for place, name in enumerate(names)}
