"""What a column is, and its values however they are typed."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invlearn.tables.kinds import as_days, as_labels, as_numbers, as_texts, label, recognize

WORDS = ["a fever of two days", "no pain at all", "came with a cough", "second visit this year"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, 3], "number"),
        ([1.5, None, 3], "number"),
        ([2.0, None, 2.0], "number"),  # Constant, but its being missing is not.
        (["1.5", "2", "1e3"], "number"),
        (["1"] * 10 + ["2"] * 9 + ["abc"], "number"),
        (["1"] * 10 + ["2"] * 8 + ["abc"] * 2, "category"),
        ([decimal.Decimal("1.5"), decimal.Decimal(2)], "number"),
        ([True, False, True], "category"),
        ([True, None, False], "category"),
        (["red", "blue", "red"], "category"),
        (["red", None, "red"], "category"),
        (
            ["2020-01-01", "2020-02-30T10:00", "2021-1-5"] + ["2022/12/31 08:30:00+02:00"] * 17,
            "date",
        ),
        ([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)], "date"),
        (WORDS, "text"),
        (WORDS[:1] * 5 + WORDS[1:2] * 5, "category"),
        (["x-1", "x-2", "x-2"], "category"),
        ([datetime.time(1), datetime.time(2), datetime.time(1)], "category"),
    ],
)
def test_recognized(values, kind):
    assert recognize(pd.Series(values)).kind == kind


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None, None], "every value is missing"),
        ([np.nan, np.nan], "every value is missing"),
        ([np.inf, -np.inf], "no value is finite"),
        ([7, 7, 7], "constant"),
        (["a", "a"], "constant"),
        (["2020-01-01"] * 3, "constant"),
        (["id-1", "id-2", "id-3"], "every value is different (an identifier)"),
        ([". - .", "- - -", "; ; ;"], "every value is different (an identifier)"),
        ([[1], [2]], "unsupported values (list)"),
        ([b"a", b"b"], "unsupported values (bytes)"),
        ([1j, 2j], "unsupported values (complex128)"),
    ],
)
def test_of_no_use(values, reason):
    assert recognize(pd.Series(values)) == (None, reason)


@pytest.mark.parametrize(
    ("dtype", "values", "kind"),
    [
        ("Int64", [1, None, 2], "number"),
        ("boolean", [True, None, False], "category"),
        ("category", [1, 2, 1], "category"),
        ("datetime64[ns]", ["2020-01-01", "2020-01-02"], "date"),
        ("timedelta64[s]", [1, 2], "number"),
        (pd.ArrowDtype(pa.string()), ["a", "b", "a"], "category"),
        (pd.ArrowDtype(pa.float64()), [1.5, None], "number"),
    ],
)
def test_recognized_by_type(dtype, values, kind):
    assert recognize(pd.Series(values, dtype=dtype)).kind == kind


def test_numbers():
    mixed = pd.Series(
        ["1.5", " 2 ", "1e400", "1,5", "0x10", None, "abc", True, 10**400], dtype=object
    )
    assert as_numbers(mixed[:7]).tolist()[:2] == [1.5, 2.0]
    assert np.isnan(as_numbers(mixed[:7])[2:]).all()
    assert as_numbers(mixed[-2:]).tolist()[1:] == pytest.approx([np.nan], nan_ok=True)
    assert as_numbers(pd.Series([1, 2], dtype="category")).tolist() == [1.0, 2.0]
    assert as_numbers(pd.Series([pd.Timedelta(hours=1)])).tolist() == [3600.0]
    assert np.isnan(as_numbers(pd.Series(pd.to_datetime(["2020-01-01"])))).all()
    assert np.isnan(as_numbers(pd.Series([1j, "2"], dtype=object))).all()


def test_days():
    start = 18262.0  # Of 2020 since the start of 1970: 50 years of 365 days and 12 leap days.
    written = pd.Series(
        [
            "2020-01-01",
            "2020/1/2",
            "2020-01-03T12:00Z",
            " 2020-01-01 06:00 UTC ",
            "2020-01-01 02:00:00.5+02:00",
            "2020-01-01 00:00:00,5",
        ]
    )
    half_second = 0.5 / 86_400
    expected = [0, 1, 2.5, 0.25, half_second, half_second]
    np.testing.assert_allclose(as_days(written) - start, expected, rtol=0, atol=1e-11)
    assert np.isnan(as_days(pd.Series(["2020-13-01", "20200101", "soon", None, "2020"]))).all()
    assert np.isnan(as_days(pd.Series([20200101]))).all()
    zoned = pd.Series(pd.to_datetime(["2020-01-01 01:00"]).tz_localize("Europe/Paris"))
    assert as_days(zoned).tolist() == [start]
    for unit in ("s", "ms", "us", "ns"):
        typed = pd.Series(["2020-01-01T12:00", None], dtype=f"datetime64[{unit}]")
        np.testing.assert_array_equal(as_days(typed), [start + 0.5, np.nan])
    far = pd.Series(np.array([2**40], dtype="datetime64[s]"))
    assert np.isnan(as_days(far)).all()


@given(st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)))
def test_days_equal_the_calendar(moment):
    expected = (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)
    for value in (moment, moment.isoformat(), moment.isoformat(" ")):
        # A microsecond in days is 1e-11; days of this size are kept to 1e-11.
        assert as_days(pd.Series([value], dtype=object))[0] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    "same",
    [
        [
            1,
            1.0,
            "1",
            "1.0",
            " 01 ",
            np.float32(1),
            np.int8(1),
            "1e0",
            decimal.Decimal("1.00"),
            "+1",
        ],
        [0, -0.0, "-0", "0.00"],
        [0.1, np.float32(0.1), "0.10", ".1"],
        [True, "true", "TRUE", np.True_],
        ["red", " red "],
        [-5, "-5.0", "-05"],
        [100000, 1e5, "1e5"],
    ],
)
def test_one_label_for_one_value(same):
    assert {label(value) for value in same} == {label(same[0])}


def test_different_values_have_different_labels():
    values = ["1", "2", "1.5", "-1", "a", "A", "True", "1_000", "1000", "12345678901234567890", ""]
    assert len({label(value) for value in values}) == len(values)
    assert label("9" * 5000) == "9" * 5000
    assert label("1e999") == "1e999"


def test_labels_do_not_depend_on_how_a_column_is_typed():
    for values in (
        pd.Series([1, 2, None]),
        pd.Series([1, 2, None], dtype="Int64"),
        pd.Series(["1", "2", None]),
        pd.Series([1.0, "2.0", None], dtype=object),
        pd.Series([1, 2, None], dtype="category"),
        pd.Series(["1", "2", None], dtype="category"),
    ):
        assert as_labels(values).tolist() == ["1", "2", None]
    assert as_labels(pd.Series([[1], None, [1]])).tolist() == ["[1]", None, "[1]"]


def test_texts():
    assert as_texts(pd.Series(["a", None, 5], dtype=object)).tolist() == ["a", "", "5"]
    assert as_texts(pd.Series([], dtype=object)).tolist() == []
