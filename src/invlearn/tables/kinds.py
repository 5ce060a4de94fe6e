"""What a column of a user's table is, and its values as numbers, days, labels or words.

The same values may arrive as integers, floats, strings or categories, depending on the file they
came from and on which of them are missing; what is read here does not depend on it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Set
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

Kind = Literal["number", "category", "date", "text"]
FloatArray = npt.NDArray[np.float64]
ObjectArray = npt.NDArray[np.object_]

_READABLE_SHARE = 0.95
_WORDS_OF_TEXT = 3
_NUMBER = re.compile(r"[+-]?([0-9]{1,300}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DATE = re.compile(
    r"\s*[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
    r"([T ]\s*[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?\s*(Z|UTC|[+-][0-9]{2}:?[0-9]{2})?)?\s*"
)
_EXACT = 2**53
_TICKS_PER_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
# Ten thousand years: a date beyond is a corrupted value, and calendars overflow on it.
_FARTHEST_DAY = 3_652_500.0
NOT_VALUES = (bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, complex, np.ndarray)


class Recognition(NamedTuple):
    """A column's kind, or None and the reason why it cannot be used."""

    kind: Kind | None
    reason: str = ""


def recognize(values: pd.Series[Any]) -> Recognition:
    """What kind of column this is.

    Numbers are numbers. Booleans and pandas categoricals are categories. Strings are numbers or
    ISO-like dates where at least 95 % of those present can be read so; text where most differ
    and they hold three words on average; else categories. A column is of no use when every value
    is missing, when it is constant with none missing, when it is strings that all differ (an
    identifier), or when it holds bytes, lists or complex numbers.

    Examples
    --------
    >>> recognize(pd.Series(["red", "green", "red"])).kind
    'category'
    >>> recognize(pd.Series(["id-1", "id-2", "id-3"])).reason
    'every value is different (an identifier)'
    """
    values = _plain(values, categorical=False)
    present = values[values.notna()]
    if present.empty:
        return Recognition(None, "every value is missing")
    kind = _kind(present)
    if kind.kind is None or kind.kind == "text":
        return kind
    read = {"number": as_numbers, "date": as_days, "category": as_labels}[kind.kind](values)
    readable = read[pd.notna(read)]
    if not len(readable):
        return Recognition(None, "no value is finite")
    if len(readable) == len(values) and (readable == readable[0]).all():
        return Recognition(None, "constant")
    return kind


def _kind(present: pd.Series[Any]) -> Recognition:
    dtype = present.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype):
        return Recognition("date")
    if pd.api.types.is_bool_dtype(dtype):
        return Recognition("category")
    numeric = pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_complex_dtype(dtype)
    if numeric or pd.api.types.is_timedelta64_dtype(dtype):
        return Recognition("number")
    kinds = types_of(present)
    if any(issubclass(kind, NOT_VALUES) for kind in kinds):
        names = sorted(kind.__name__ for kind in kinds if issubclass(kind, NOT_VALUES))
        return Recognition(None, f"unsupported values ({names[0]})")
    if isinstance(dtype, pd.CategoricalDtype):
        return _kind_of_labels(present)
    return _kind_of_objects(present, kinds)


def types_of(present: pd.Series[Any]) -> set[type]:
    """Python or NumPy types of the values, none of which may be missing."""
    dtype = present.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return set(map(type, present.cat.categories))
    return set(map(type, present)) if pd.api.types.is_object_dtype(dtype) else {dtype.type}


def _kind_of_objects(present: pd.Series[Any], kinds: Set[type]) -> Recognition:
    if all(issubclass(kind, datetime.date) for kind in kinds):
        return Recognition("date")
    if kinds <= {bool, np.bool_}:
        return Recognition("category")
    if np.isfinite(as_numbers(present)).mean() >= _READABLE_SHARE:
        return Recognition("number")
    if np.isfinite(as_days(present)).mean() >= _READABLE_SHARE:
        return Recognition("date")
    texts = pd.Series(as_texts(present), dtype=object)
    words = float(np.mean([len(text.split()) for text in texts]))
    has_words = texts.str.contains(r"\w\w").any()
    if has_words and words >= _WORDS_OF_TEXT and texts.nunique() > len(texts) / 2:
        return Recognition("text")
    return _kind_of_labels(present)


def _kind_of_labels(present: pd.Series[Any]) -> Recognition:
    if len(present) > 1 and len(set(as_labels(present))) == len(present):
        return Recognition(None, "every value is different (an identifier)")
    return Recognition("category")


def _plain(values: pd.Series[Any], *, categorical: bool = True) -> pd.Series[Any]:
    """The same values in pandas' own types, out of Arrow's and perhaps of categories."""
    kinds = (pd.ArrowDtype, pd.CategoricalDtype) if categorical else pd.ArrowDtype
    return values.astype(object) if isinstance(values.dtype, kinds) else values


def as_numbers(values: pd.Series[Any]) -> FloatArray:
    """Values [n] as numbers; NaN for what is missing, infinite or no number.

    Examples
    --------
    >>> as_numbers(pd.Series(["1.5", "abc", "inf", None])).tolist()
    [1.5, nan, nan, nan]
    """
    values = _plain(values)
    dtype = values.dtype
    if pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        return np.full(len(values), np.nan)
    if pd.api.types.is_timedelta64_dtype(dtype):
        values = values.dt.total_seconds()
    elif not pd.api.types.is_numeric_dtype(dtype):
        try:
            values = pd.to_numeric(values, errors="coerce")
        except (TypeError, ValueError, OverflowError):  # Python integers beyond every float.
            values = pd.to_numeric(pd.Series(as_texts(values), dtype=object), errors="coerce")
    if pd.api.types.is_complex_dtype(values.dtype):
        return np.full(len(values), np.nan)
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def as_days(values: pd.Series[Any]) -> FloatArray:
    """Values [n] as days since the start of 1970 in UTC; NaN for what is missing or no date.

    Examples
    --------
    >>> as_days(pd.Series(["1970-01-02", "1970-01-01T12:00+00:00", "soon"])).tolist()
    [1.0, 0.5, nan]
    """
    values = _plain(values)
    if not pd.api.types.is_datetime64_any_dtype(values.dtype):
        if pd.api.types.is_numeric_dtype(values.dtype):
            return np.full(len(values), np.nan)
        values = _parsed_dates(values)
    if values.dt.tz is not None:
        values = values.dt.tz_convert("UTC").dt.tz_localize(None)
    stamps = values.to_numpy()
    ticks = _TICKS_PER_DAY[np.datetime_data(stamps.dtype)[0]]
    days: FloatArray = np.where(np.isnat(stamps), np.nan, stamps.astype(np.int64) / ticks)
    return np.where(np.abs(days) <= _FARTHEST_DAY, days, np.nan)


def _parsed_dates(values: pd.Series[Any]) -> pd.Series[Any]:
    present = [
        value
        if isinstance(value, datetime.date)
        else _iso(value)
        if isinstance(value, str) and _DATE.fullmatch(value)
        else None
        for value in values
    ]
    return pd.to_datetime(
        pd.Series(present, dtype=object), format="ISO8601", utc=True, errors="coerce"
    )


def _iso(text: str) -> str:
    return text.strip().replace("/", "-").replace(",", ".").replace("UTC", "Z").replace(" Z", "Z")


def as_labels(values: pd.Series[Any]) -> ObjectArray:
    """Values [n] as strings, equal for 1, 1.0, '1' and '1.0'; None for what is missing.

    Examples
    --------
    >>> as_labels(pd.Series([1.0, 2.5, None])).tolist()
    ['1', '2.5', None]
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, distinct = values.cat.codes.to_numpy(), values.cat.categories
    else:
        try:
            codes, distinct = pd.factorize(values)
        except TypeError:  # Lists and the like cannot be compared; their texts can.
            codes, distinct = pd.factorize(pd.Series(_texts_or_none(values), dtype=object))
    labels = np.array([*(label(value) for value in distinct), None], dtype=object)
    return labels[codes]


def as_texts(values: pd.Series[Any]) -> ObjectArray:
    """Values [n] as strings; empty where missing.

    Examples
    --------
    >>> as_texts(pd.Series(["no fever", None])).tolist()
    ['no fever', '']
    """
    texts = _texts_or_none(values)
    texts[[text is None for text in texts]] = ""
    return texts


def _texts_or_none(values: pd.Series[Any]) -> ObjectArray:
    missing = values.isna().to_numpy()
    texts = [
        None if gone else str(value) for value, gone in zip(values.tolist(), missing, strict=True)
    ]
    return np.array([*texts, None], dtype=object)[:-1]


def label(value: object) -> str:
    """One name for a value however it is typed: 1, 1.0, '1' and '1.0' are '1'.

    Examples
    --------
    >>> label(1.0), label("01.50"), label("true"), label(" red ")
    ('1', '1.5', 'True', 'red')
    """
    text = str(value).strip()
    if text.lower() in ("true", "false"):
        return text.capitalize()
    if not _NUMBER.fullmatch(text):
        return text
    digits = text.lstrip("+-")
    if digits.isdigit():
        sign = "-" if text.startswith("-") and int(digits) else ""
        return f"{sign}{int(digits)}"
    number = float(text)
    if not np.isfinite(number):
        return text
    return str(int(number)) if number == int(number) and abs(number) < _EXACT else repr(number)
