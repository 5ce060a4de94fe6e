"""How one column of a user's table becomes features: one class per kind, its state plain JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from invlearn.tables.json_state import State
from invlearn.tables.kinds import (
    FloatArray,
    ObjectArray,
    as_days,
    as_labels,
    as_numbers,
    as_texts,
)
from invlearn.tables.messages import quoted
from invlearn.tables.scaling import Features, Standard

MISSING = "missing"

_DAYS_PER_YEAR = 365.25
_SHOWN_CATEGORIES = 3
_WAVES = {"sine": np.sin, "cosine": np.cos}


class Encoding(State, ABC):
    """One column's encoding: its kind, its name and what was learned of it in training."""

    reads: ClassVar[str]
    column: str

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """One name per feature."""

    @abstractmethod
    def transform(self, values: pd.Series[Any]) -> Features:
        """Features [n, k], always finite."""

    @abstractmethod
    def notes(self, values: pd.Series[Any]) -> list[str]:
        """Sentences on what is unusual in new values [n]."""

    def _unread(self, values: pd.Series[Any], read: FloatArray) -> list[str]:
        """Sentences on values that are there and cannot be read."""
        unread = values.notna().to_numpy() & np.isnan(read)
        if not unread.any():
            return []
        example = quoted(values[unread].iloc[0])
        return [
            f"{int(unread.sum()):,} of {len(values):,} values of {quoted(self.column)} cannot be "
            f"read as a {self.reads} (the first is {example}); they count as missing."
        ]


class NumberEncoding(Encoding):
    """A standardized number, and whether it is missing if it ever was in training."""

    reads: ClassVar[str] = "number"
    kind: Literal["number"] = "number"
    standard: Standard

    @classmethod
    def fit(cls, column: str, values: pd.Series[Any]) -> NumberEncoding:
        """State of training values [n]."""
        return cls(column=column, standard=Standard.fit(as_numbers(values)))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The column, and its being missing."""
        return (self.column, *self.standard.names(self.column))

    def transform(self, values: pd.Series[Any]) -> Features:
        """Features [n, 1 or 2]."""
        numbers = as_numbers(values)
        return _stack(self.standard.transform(numbers), *self.standard.indicators(numbers))

    def notes(self, values: pd.Series[Any]) -> list[str]:
        """Unreadable, newly missing and far-off values."""
        numbers = as_numbers(values)
        return self._unread(values, numbers) + self.standard.notes(self.column, numbers)


class DateEncoding(Encoding):
    """Standardized days since 1970, and the season (and hour) as points on a circle.

    A missing date takes the median day and the circle's center. Times are in UTC.
    """

    reads: ClassVar[str] = "date"
    kind: Literal["date"] = "date"
    standard: Standard
    times: bool

    @classmethod
    def fit(cls, column: str, values: pd.Series[Any]) -> DateEncoding:
        """State of training values [n]."""
        days = as_days(values)
        present = days[~np.isnan(days)]
        times = bool((present != np.floor(present)).any())
        return cls(column=column, standard=Standard.fit(days), times=times)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Days, season, perhaps the hour, perhaps its being missing."""
        circles = ("day of year", "hour of day") if self.times else ("day of year",)
        return (
            f"{self.column}: days since 1970",
            *(f"{self.column}: {circle} ({wave})" for circle in circles for wave in _WAVES),
            *self.standard.names(self.column),
        )

    def transform(self, values: pd.Series[Any]) -> Features:
        """Features [n, 3 to 6]."""
        days = as_days(values)
        whole = np.floor(days)
        turns = [_day_of_year(whole) / _DAYS_PER_YEAR]
        if self.times:
            turns.append(days - whole)
        circles = [
            np.nan_to_num(wave(2 * np.pi * turn)).astype(np.float32)
            for turn in turns
            for wave in _WAVES.values()
        ]
        return _stack(self.standard.transform(days), *circles, *self.standard.indicators(days))

    def notes(self, values: pd.Series[Any]) -> list[str]:
        """Unreadable, newly missing and far-off values."""
        days = as_days(values)
        return self._unread(values, days) + self.standard.notes(self.column, days)


def _day_of_year(days: FloatArray) -> FloatArray:
    """Days since the start of their year, from 0; NaN where missing."""
    dates = np.nan_to_num(days).astype("datetime64[D]")
    elapsed = (dates - dates.astype("datetime64[Y]")).astype(np.float64)
    return np.where(np.isnan(days), np.nan, elapsed)


class CategoryEncoding(Encoding):
    """One feature per category; all zeros for a category that was not learned.

    Missing values are the category 'missing' if any were missing in training.
    """

    reads: ClassVar[str] = "category"
    kind: Literal["category"] = "category"
    categories: Annotated[tuple[str, ...], Field(min_length=1)]

    @classmethod
    def fit(cls, column: str, values: pd.Series[Any], max_categories: int) -> CategoryEncoding:
        """State of training values [n]: the most frequent categories, equal counts by name."""
        counts = pd.Series(_filled(values), dtype=object).value_counts()
        order = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        frequent = [str(name) for name, _ in order if name != MISSING][:max_categories]
        return cls(column=column, categories=(*frequent, *([MISSING] if MISSING in counts else [])))

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.categories)) < len(self.categories):
            raise ValueError("categories are repeated")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Column and category."""
        return tuple(f"{self.column}={category}" for category in self.categories)

    def transform(self, values: pd.Series[Any]) -> Features:
        """Features [n, categories]."""
        from sklearn.preprocessing import OneHotEncoder

        encoder = OneHotEncoder(
            categories=[np.array(self.categories, dtype=object)],
            handle_unknown="ignore",
            sparse_output=False,
            dtype=np.float32,
        )
        encoder.fit(np.array([[self.categories[0]]], dtype=object))
        features: Features = encoder.transform(_filled(values)[:, None])
        return features

    def notes(self, values: pd.Series[Any]) -> list[str]:
        """Categories that were not learned, and newly missing values."""
        labels = pd.Series(as_labels(values), dtype=object)
        notes = []
        missing = int(labels.isna().sum())
        if missing and MISSING not in self.categories:
            notes.append(
                f"{missing:,} of {len(labels):,} values of {quoted(self.column)} are missing; none "
                "was in training, so such rows have none of its features."
            )
        counts = labels[~labels.isin({*self.categories, MISSING})].value_counts()
        if counts.empty:
            return notes
        order = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
        named = ", ".join(
            f"{quoted(name)} ({count:,} row{'' if count == 1 else 's'})"
            for name, count in order[:_SHOWN_CATEGORIES]
        )
        hidden = len(order) - _SHOWN_CATEGORIES
        notes.append(
            f"{quoted(self.column)} holds {len(order):,} "
            f"{'category' if len(order) == 1 else 'categories'} not learned in training: {named}"
            f"{f' and {hidden:,} more' if hidden > 0 else ''}; such rows have none of its features."
        )
        return notes


def _filled(values: pd.Series[Any]) -> ObjectArray:
    labels = as_labels(values)
    labels[[name is None for name in labels]] = MISSING
    return labels


class TextEncoding(Encoding):
    """Lower-cased words weighed by how rare they are (TF-IDF); all zeros where missing."""

    reads: ClassVar[str] = "text"
    kind: Literal["text"] = "text"
    terms: Annotated[tuple[str, ...], Field(min_length=1)]
    idf: tuple[Annotated[float, Field(gt=0, lt=1e6)], ...]

    @classmethod
    def fit(cls, column: str, values: pd.Series[Any], max_terms: int) -> TextEncoding:
        """State of training values [n], which hold at least one word of two characters."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(max_features=max_terms, lowercase=False)
        vectorizer.fit(_lowered(values))
        terms = vectorizer.get_feature_names_out().tolist()
        return cls(column=column, terms=tuple(terms), idf=tuple(vectorizer.idf_.tolist()))

    @model_validator(mode="after")
    def _one_weight_per_term(self) -> Self:
        if len(self.idf) != len(self.terms):
            raise ValueError(f"{len(self.terms)} terms have {len(self.idf)} weights")
        if len(set(self.terms)) < len(self.terms):
            raise ValueError("terms are repeated")
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Column and word."""
        return tuple(f"{self.column}: {term}" for term in self.terms)

    def transform(self, values: pd.Series[Any]) -> Features:
        """Features [n, terms]."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(vocabulary=list(self.terms), lowercase=False)
        vectorizer.idf_ = np.array(self.idf)
        features: Features = vectorizer.transform(_lowered(values)).toarray().astype(np.float32)
        return features

    def notes(self, values: pd.Series[Any]) -> list[str]:
        """Nothing: new words are no surprise in text."""
        return []


def _lowered(values: pd.Series[Any]) -> list[str]:
    # The vectorizer's own lowering warns of letters that are capitals and have no lower case.
    return [text.lower() for text in as_texts(values)]


def _stack(*features: Features) -> Features:
    return np.stack(features, axis=1)
