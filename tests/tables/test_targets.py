"""The target's task and classes, to codes and back, and what is refused."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from invlearn.errors import DataFileError, EnvironmentsError, UnknownNameError
from invlearn.tables import Target


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b", None], "classification", ("a", "b")),
        ([True, False, True], "classification", (False, True)),
        ([True, None, False, True], "classification", (False, True)),
        ([0, 1, 1, 0], "classification", (0, 1)),
        ([0.0, 1.0, np.nan, 1.0], "classification", (0, 1)),
        ([0.0, 1.0, np.inf, 1.0], "classification", (0, 1)),
        ([0.5, 1.0, 1.0], "regression", ()),
        ([0.5, 1.5, 1.5], "regression", ()),
        ([3, 1, 2] * 10, "classification", (1, 2, 3)),
        ([3, 1, 2] * 9, "regression", ()),
        (list(range(20)) * 10, "classification", tuple(range(20))),
        (list(range(21)) * 10, "regression", ()),
        (["10", "9", "10", "9"], "classification", ("10", "9")),
        ([Decimal("1.5"), Decimal(2), Decimal(3)], "regression", ()),
    ],
)
def test_recognized(values, task, classes):
    target = Target.recognize(pd.Series(values))
    assert (target.task, target.classes) == (task, classes)
    assert [type(value) for value in target.classes] == [type(value) for value in classes]


def test_task_overrides():
    whole = pd.Series([3, 1, 2] * 10)
    assert Target.recognize(whole, "regression") == Target("regression")
    halves = pd.Series([0.5, 1.0] * 4)
    assert Target.recognize(halves, "classification").classes == (0.5, 1)
    assert Target.recognize(pd.Series(["1.5", "2.5"]), "regression") == Target("regression")
    categorical = pd.Series([2, 1, 2, 1], dtype="category")
    assert Target.recognize(categorical).classes == (1, 2)
    assert Target.recognize(pd.Series([2, None, 1, 5], dtype="Int64")).task == "regression"


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        ([None, None], None, "every one of 2 is missing or infinite. Choose another column"),
        ([np.inf, np.nan], None, "every one of 2 is missing or infinite"),
        ([], None, "every one of 0 is missing"),
        (["a", "a", None], None, "Expected a target that varies, every value is 'a'."),
        ([2.5, 2.5], None, "every value is '2.5'. Choose another column."),
        ([1, 1, 1], "regression", "every value is '1'"),
        ([f"c{i % 101}" for i in range(909)], None, "got 101 in 909 rows. Choose another target"),
        (["a", "b", "c", "c"], None, "got 3 in 4 rows. Choose another target, or merge rare"),
        (
            [i / 2 for i in range(500)],
            "classification",
            "Expected at most 100 classes and two rows of each on average, got 500 in 500 rows. "
            "Choose --task regression",
        ),
        (
            ["1.5", "x", "y", "x", "2"],
            "regression",
            "Expected numbers in the target of a regression, 3 of 5 values are none, such as "
            "'x', 'y'. Mark them as missing, or choose --task classification.",
        ),
        ([datetime.date(2020, 1, 1)] * 2, None, "got values of type date. Choose another column"),
        ([[1], [2]], None, "got values of type list"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), None, "got values of type datetime64"),
        ([1j, 2j], None, "got values of type complex128"),
    ],
)
def test_refused(values, task, said):
    with pytest.raises(EnvironmentsError) as caught:
        Target.recognize(pd.Series(values), task)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_task():
    with pytest.raises(UnknownNameError, match=r"Unknown task 'classify'. Did you mean 'classif"):
        Target.recognize(pd.Series([0, 1]), "classify")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["yes", "no", "maybe", "no", "yes", "maybe"], "O"),
        ([5, 3, 5, 3], "i"),
        ([True, False, False], "b"),
        ([2**70, 1] * 20, "O"),
    ],
)
def test_codes_and_back(values, kind):
    series = pd.Series(values)
    target = Target.recognize(series)
    codes = target.encode(series)
    assert codes.dtype == np.int64
    assert codes.tolist() == [sorted(set(values)).index(value) for value in values]
    decoded = target.decode(codes)
    assert decoded.dtype.kind == kind
    assert decoded.tolist() == values


def test_codes_do_not_depend_on_how_a_column_is_typed():
    target = Target.recognize(pd.Series([1, 2] * 10))
    for values in (
        pd.Series([2, 1]),
        pd.Series([2.0, 1.0]),
        pd.Series(["2", "1.0"]),
        pd.Series([2, 1], dtype="category"),
        pd.Series([2, 1], dtype="Int64"),
    ):
        assert target.encode(values).tolist() == [1, 0]
    flag = Target.recognize(pd.Series([True, False]))
    assert flag.encode(pd.Series(["true", "FALSE", " True"])).tolist() == [1, 0, 1]


def test_regression_numbers():
    target = Target("regression")
    values = pd.Series(["1.5", "2", None, "x", "inf"])
    assert target.usable(values).tolist() == [True, True, False, False, False]
    encoded = target.encode(values[target.usable(values)])
    assert encoded.dtype == np.float64
    assert encoded.tolist() == target.decode(encoded).tolist() == [1.5, 2.0]
    with pytest.raises(
        EnvironmentsError, match=r"Expected a number in every row .* 3 of 5 without"
    ):
        target.encode(values)


def test_classification_errors():
    target = Target("classification", ("no", "yes"))
    values = pd.Series(["yes", None])
    assert target.usable(values).tolist() == [True, False]
    assert target.usable(pd.Series([np.inf, 1.0])).tolist() == [False, True]
    with pytest.raises(EnvironmentsError, match=r"Expected a class in every row .* 1 of 2 without"):
        target.encode(values)
    with pytest.raises(EnvironmentsError) as caught:
        target.encode(pd.Series(["yes", "perhaps", "perhaps"]))
    assert str(caught.value) == (
        "Expected the classes 'no', 'yes' in the target, got 'perhaps'. "
        "Drop those rows or train with them."
    )
    for codes in ([0, 2], [-1, 0], [0.5]):
        with pytest.raises(EnvironmentsError, match="Expected whole class codes from 0 to 1, got"):
            target.decode(codes)


@pytest.mark.parametrize(
    "classes", [("a", "b"), (0, 1), (False, True), (0.5, 1), (1, "x"), (-3, 2**60), ("é", "\n")]
)
def test_state_is_plain_json(classes):
    target = Target("classification", classes)
    again = Target.from_json(json.loads(json.dumps(target.to_json())))
    assert again == target
    assert [type(value) for value in again.classes] == [type(value) for value in classes]
    assert Target.from_json(Target("regression").to_json()) == Target("regression")


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "classification",
        {},
        {"task": "classification"},
        {"task": "sorting", "classes": []},
        {"task": "regression", "classes": [1]},
        {"task": "classification", "classes": ["a"]},
        {"task": "classification", "classes": ["a", " a"]},
        {"task": "classification", "classes": [1, "1.0"]},
        {"task": "classification", "classes": [1, None]},
        {"task": "classification", "classes": [1, float("nan")]},
        {"task": "classification", "classes": ["a", ["b"]]},
        {"task": "classification", "classes": "ab"},
        {"task": "classification", "classes": ["a", "b"], "more": 1},
        {"task": "classification", "classes": ["a", "b"], "version": 2},
        {"task": "classification", "classes": ["a", object()]},
    ],
)
def test_hostile_state_is_refused(content):
    with pytest.raises(DataFileError) as caught:
        Target.from_json(content)
    assert str(caught.value).startswith("Expected the state of a target, its content is not one (")
    assert len(str(caught.value).splitlines()) == 1
