"""The column to predict: classes or numbers, and the codes they are learned as."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import model_validator

from invlearn.errors import EnvironmentsError, unknown_name
from invlearn.tables.json_state import State, parsed
from invlearn.tables.kinds import NOT_VALUES, as_labels, as_numbers, label, types_of
from invlearn.tables.messages import listed, quoted

Task = Literal["classification", "regression"]
Scalar = bool | int | float | str

LARGEST = 1e30
"""Of a regression's targets: squares of larger ones overflow in single precision."""

_TASKS: tuple[Task, ...] = ("classification", "regression")
_TIMES = (datetime.date, datetime.time, datetime.timedelta, np.datetime64, np.timedelta64)
_MAX_CLASSES = 100
_MAX_GUESSED_CLASSES = 20
_ROWS_PER_GUESSED_CLASS = 10


class _State(State):
    """What a model file holds of a target."""

    version: Literal[1] = 1
    task: Task
    classes: tuple[Scalar, ...]

    @model_validator(mode="after")
    def _fits_task(self) -> Self:
        if self.task == "regression" and self.classes:
            raise ValueError("a regression target has classes")
        if self.task == "classification" and len(self.classes) < 2:
            raise ValueError("a classification target has fewer than two classes")
        if len(set(map(label, self.classes))) < len(self.classes):
            raise ValueError("classes are repeated")
        return self


@dataclass(frozen=True)
class Target:
    """What is predicted: one of several classes, or a number.

    Build one with `recognize` or `from_json`.

    Attributes
    ----------
    task : 'classification' or 'regression'
    classes : tuple of bool, int, float or str
        In order of their codes, by value or alphabet; empty for regression.

    Examples
    --------
    >>> target = Target.recognize(pd.Series(["yes", "no", "yes", "no"]))
    >>> target.task, target.classes, target.encode(pd.Series(["yes", "no"])).tolist()
    ('classification', ('no', 'yes'), [1, 0])
    """

    task: Task
    classes: tuple[Scalar, ...] = ()

    @classmethod
    def recognize(cls, values: pd.Series[Any], task: str | None = None) -> Target:
        """Recognize what a training table's target is; missing values are looked over.

        Strings, booleans and categoricals are classes. Numbers with a fraction are numbers. Whole
        numbers are classes if they are two, or at most 20 with 10 rows or more for each on
        average; else they are numbers. `task` overrides this.

        Parameters
        ----------
        values : Series [n]
        task : 'classification' or 'regression', optional

        Raises
        ------
        EnvironmentsError
            No value; a single value; more than 100 classes, or more than two that are more than
            half of the rows; numbers wanted of what are none; dates and other unsupported values.
        UnknownNameError
            Another task.
        """
        if task is not None and task not in _TASKS:
            raise unknown_name("task", task, _TASKS)
        _check_supported(values[values.notna()])
        present = values[_present(values)]
        if present.empty:
            raise EnvironmentsError(
                f"Expected target values, every one of {len(values):,} is missing or infinite. "
                "Choose another column or fill it in."
            )
        chosen = task or _guessed_task(present)
        if chosen == "regression":
            _check_numbers(present)
            return cls("regression")
        return cls("classification", _classes(present))

    def usable(self, values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
        """Mask [n] of the values that can be learned from: present, and finite if numbers."""
        if self.task == "regression":
            return ~np.isnan(as_numbers(values))
        return _present(values)

    def encode(self, values: pd.Series[Any]) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
        """Class codes [n] int64, or numbers [n] float64.

        Raises
        ------
        EnvironmentsError
            A value that is missing, no number, or none of the classes.
        """
        usable = self.usable(values)
        if not usable.all():
            wanted = "a number" if self.task == "regression" else "a class"
            raise EnvironmentsError(
                f"Expected {wanted} in every row of the target, got {int((~usable).sum()):,} of "
                f"{len(values):,} without. Drop those rows."
            )
        if self.task == "regression":
            numbers = as_numbers(values)
            if len(numbers) and np.abs(numbers).max() > LARGEST:
                raise EnvironmentsError(
                    f"Expected targets of at most {LARGEST:g} in size, got "
                    f"{np.abs(numbers).max():g}: its square is no number. Give them another unit."
                )
            return numbers
        codes = {label(value): code for code, value in enumerate(self.classes)}
        labels = as_labels(values)
        unseen = [name for name in dict.fromkeys(labels) if name not in codes]
        if unseen:
            raise EnvironmentsError(
                f"Expected the classes {listed(self.classes, 10)} in the target, got "
                f"{listed(unseen)}. Drop those rows or train with them."
            )
        return np.array([codes[name] for name in labels], dtype=np.int64)

    def decode(self, codes: npt.ArrayLike) -> npt.NDArray[Any]:
        """Classes [n] of codes [n], in their own type; numbers as they are.

        Raises
        ------
        EnvironmentsError
            A code that is no class's.
        """
        array = np.asarray(codes)
        if self.task == "regression":
            return array.astype(np.float64)
        if array.dtype.kind not in "iu" or (
            array.size and not 0 <= array.min() <= array.max() < len(self.classes)
        ):
            raise EnvironmentsError(
                f"Expected whole class codes from 0 to {len(self.classes) - 1}, got "
                f"{array.dtype} {listed(array.ravel())}. Pass what `encode` gives."
            )
        same_type = len({type(value) for value in self.classes}) == 1
        inferred = np.array(self.classes) if same_type else np.empty(0, dtype=object)
        # Strings and what NumPy would round or widen stay Python's own.
        kept = inferred if inferred.dtype.kind in "bif" else np.array(self.classes, dtype=object)
        decoded: npt.NDArray[Any] = kept[array]
        return decoded

    def to_json(self) -> dict[str, Any]:
        """State as plain JSON, for a model file."""
        state = _State(task=self.task, classes=self.classes)
        content: dict[str, Any] = state.model_dump(mode="json")
        return content

    @classmethod
    def from_json(cls, content: object) -> Target:
        """Target of a state that `to_json` wrote.

        Raises
        ------
        DataFileError
            Anything else than such a state.
        """
        state = parsed(_State, content, "target")
        return cls(state.task, state.classes)


def _present(values: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    present = values.notna().to_numpy(dtype=bool)
    if pd.api.types.is_numeric_dtype(values.dtype):
        present = present & ~np.isnan(as_numbers(values))
    return present


def _check_supported(present: pd.Series[Any]) -> None:
    unsupported = [kind for kind in types_of(present) if issubclass(kind, (*NOT_VALUES, *_TIMES))]
    if unsupported:
        raise EnvironmentsError(
            "Expected classes or numbers in the target, got values of type "
            f"{min(kind.__name__ for kind in unsupported)}. Choose another column, or turn it into "
            "numbers."
        )


def _guessed_task(present: pd.Series[Any]) -> Task:
    kinds = types_of(present)
    categorical = isinstance(present.dtype, pd.CategoricalDtype)
    if categorical or any(issubclass(k, bool) or not issubclass(k, Number) for k in kinds):
        return "classification"
    numbers = as_numbers(present)
    if (numbers != np.floor(numbers)).any():
        return "regression"
    distinct = len(np.unique(numbers))
    few = distinct <= _MAX_GUESSED_CLASSES and len(numbers) >= _ROWS_PER_GUESSED_CLASS * distinct
    return "classification" if few or distinct == 2 else "regression"


def _check_numbers(present: pd.Series[Any]) -> None:
    numbers = as_numbers(present)
    unread = present[np.isnan(numbers)]
    if len(unread):
        raise EnvironmentsError(
            f"Expected numbers in the target of a regression, {len(unread):,} of {len(present):,} "
            f"values are none, such as {listed(dict.fromkeys(unread))}. "
            "Mark them as missing, or choose --task classification."
        )
    if numbers.min() == numbers.max():
        raise _constant(present.iloc[0])


def _classes(present: pd.Series[Any]) -> tuple[Scalar, ...]:
    labels = as_labels(present)
    firsts = ~pd.Series(labels, dtype=object).duplicated().to_numpy()
    distinct = [_scalar(value) for value in present[firsts].tolist()]
    if len(distinct) == 1:
        raise _constant(distinct[0])
    too_many = len(distinct) > 2 and len(distinct) > len(present) / 2
    if len(distinct) > _MAX_CLASSES or too_many:
        numeric = not np.isnan(as_numbers(present)).any()
        remedy = "Choose --task regression" if numeric else "Choose another target"
        raise EnvironmentsError(
            f"Expected at most {_MAX_CLASSES} classes and two rows of each on average, got "
            f"{len(distinct):,} in {len(present):,} rows. {remedy}, or merge rare classes."
        )
    if any(isinstance(value, str) for value in distinct):
        return tuple(sorted(distinct, key=label))
    return tuple(sorted(distinct, key=lambda value: value))


def _scalar(value: object) -> Scalar:
    """The value as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # Missing values beside them make whole numbers floats.
        return int(value) if value.is_integer() else value
    return str(value).strip()


def _constant(value: object) -> EnvironmentsError:
    return EnvironmentsError(
        f"Expected a target that varies, every value is {quoted(value)}. Choose another column."
    )
