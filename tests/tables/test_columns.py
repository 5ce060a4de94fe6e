"""The encoder against scikit-learn and hand computation; drift, notes and stored state."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from invlearn.errors import DataFileError, EnvironmentsError, OptionError, UnknownNameError
from invlearn.tables import Encoder

NOTES = ["fever and pain", "no fever today", "a cough and a fever", "PAIN in the knee", None]


def mixed(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": np.where(rng.random(rows) < 0.2, np.nan, rng.integers(18, 90, rows)),
            "height": rng.normal(170, 9, rows),
            "color": rng.choice(["red", "green", None], rows),
            "code": rng.integers(1, 4, rows),
            "flag": rng.random(rows) < 0.5,
            "visit": pd.date_range("2021-03-01 08:00", periods=rows, freq="31h"),
            "day": pd.date_range("2021-03-01", periods=rows, freq="D").strftime("%Y-%m-%d"),
            "note": [NOTES[i % 4] + f" number {i}" for i in range(rows)],
            "id": [f"p{i}" for i in range(rows)],
            "empty": [None] * rows,
            "same": "x",
        }
    )


def test_numbers_equal_scikit_learn():
    frame = pd.DataFrame({"x": [1.0, 2.0, np.inf, None, 10.0, 4.5]})
    encoder = Encoder.fit(frame)
    assert encoder.feature_names == ("x", "x is missing")
    numbers = frame.replace(np.inf, np.nan)
    imputed = SimpleImputer(strategy="median").fit_transform(numbers)
    expected = StandardScaler().fit_transform(imputed)[:, 0]
    features = encoder.transform(frame)
    np.testing.assert_allclose(features[:, 0], expected, rtol=1e-6)
    assert features[:, 1].tolist() == [0, 0, 1, 1, 0, 0]


def test_numbers_are_clipped_and_a_constant_is_not_divided_by_zero():
    encoder = Encoder.fit(pd.DataFrame({"x": [-1.0, 1.0], "constant": [3.0, None]}))
    assert encoder.feature_names == ("x", "constant", "constant is missing")
    new = pd.DataFrame({"x": [1e9, -9.5, -np.inf], "constant": [3, 5, -100]})
    expected = [[10, 0, 0], [-9.5, 2, 0], [0, -10, 0]]
    np.testing.assert_array_equal(encoder.transform(new), expected)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=2, max_size=20),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20),
)
def test_any_numbers_become_finite_and_survive_json(train, new):
    try:
        encoder = Encoder.fit(pd.DataFrame({"x": train}))
    except EnvironmentsError:
        finite = {value for value in train if math.isfinite(value)}
        assert len(finite) < 2
        return
    frame = pd.DataFrame({"x": new})
    features = encoder.transform(frame)
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 10
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert again == encoder
    np.testing.assert_array_equal(again.transform(frame), features)
    encoder.notes(frame)


def test_categories_most_frequent_first_and_missing_its_own():
    frame = pd.DataFrame({"c": ["b", "a", "c", "c", None, "a", "d"]})
    encoder = Encoder.fit(frame, max_categories=3)
    assert encoder.feature_names == ("c=a", "c=c", "c=b", "c=missing")
    expected = [
        [0, 0, 1, 0],
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 1],
        [1, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(encoder.transform(frame), expected)
    without = Encoder.fit(pd.DataFrame({"c": ["a", "b", "a"]}))
    np.testing.assert_array_equal(
        without.transform(pd.DataFrame({"c": ["b", None, "new"]})), [[0, 1], [0, 0], [0, 0]]
    )


def test_dates_by_hand():
    frame = pd.DataFrame({"d": pd.to_datetime(["2021-01-01", "2021-07-02", None])})
    encoder = Encoder.fit(frame)
    waves = ("d: day of year (sine)", "d: day of year (cosine)")
    assert encoder.feature_names == ("d: days since 1970", *waves, "d is missing")
    # 182 days apart, the median between: deviations of -91, 91 and 0.
    scale = math.sqrt(2 * 91**2 / 3)
    angle = 2 * math.pi * 182 / 365.25
    expected = [
        [-91 / scale, 0, 1, 0],
        [91 / scale, math.sin(angle), math.cos(angle), 0],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(encoder.transform(frame), expected, atol=1e-6)
    written = frame.assign(d=["2021-01-01", "2021/7/2", None])
    np.testing.assert_array_equal(encoder.transform(written), encoder.transform(frame))


def test_hours_if_times_occur_and_time_zones_in_utc():
    times = pd.to_datetime(["2021-01-01 06:00", "2021-01-01 12:00", "2021-01-03 18:00"])
    encoder = Encoder.fit(pd.DataFrame({"t": times}))
    assert encoder.feature_names[3:] == ("t: hour of day (sine)", "t: hour of day (cosine)")
    features = encoder.transform(pd.DataFrame({"t": times}))
    np.testing.assert_allclose(features[:, 3:], [[1, 0], [0, -1], [-1, 0]], atol=1e-6)
    zoned = pd.DataFrame({"t": times.tz_localize("UTC").tz_convert("Asia/Tokyo")})
    np.testing.assert_array_equal(encoder.transform(zoned), features)


def test_text_equals_scikit_learn():
    frame = pd.DataFrame({"note": NOTES})
    encoder = Encoder.fit(frame, text_features=4)
    texts = [note or "" for note in NOTES]
    vectorizer = TfidfVectorizer(max_features=4).fit(texts)
    names = [f"note: {term}" for term in vectorizer.get_feature_names_out()]
    assert encoder.feature_names == tuple(names)
    expected = vectorizer.transform(texts).toarray()
    np.testing.assert_allclose(encoder.transform(frame), expected, rtol=1e-6)
    assert expected.sum() > 0


def test_columns_reasons_and_order():
    frame = mixed()
    encoder = Encoder.fit(frame)
    assert encoder.columns == (
        "age", "height", "color", "code", "flag", "visit", "day", "note"
    )  # fmt: skip
    assert encoder.dropped == {
        "id": "every value is different (an identifier)",
        "empty": "every value is missing",
        "same": "constant",
    }
    features = encoder.transform(frame)
    assert features.shape == (40, encoder.n_features)
    assert features.dtype == np.float32
    assert len(encoder.feature_columns) == len(encoder.feature_names) == encoder.n_features
    for name, source in zip(encoder.feature_names, encoder.feature_columns, strict=True):
        assert name.startswith(source)
    shuffled = frame[frame.columns[::-1]].assign(more=1)
    np.testing.assert_array_equal(encoder.transform(shuffled), features)
    np.testing.assert_array_equal(encoder.transform(frame[7:9]), features[7:9])
    assert encoder.transform(frame[:0]).shape == (0, encoder.n_features)
    assert encoder.transform(frame[:0].astype(object)).shape == (0, encoder.n_features)


def test_other_types_of_the_same_values_give_the_same_features():
    frame = mixed()
    encoder = Encoder.fit(frame)
    features = encoder.transform(frame)
    drifted = frame.assign(
        age=frame["age"].astype("Int64"),
        height=frame["height"].map(repr),
        color=frame["color"].astype("category"),
        code=frame["code"].astype(float),
        flag=frame["flag"].map(lambda flag: str(flag).lower()),
        visit=frame["visit"].astype(str),
        day=pd.to_datetime(frame["day"]),
        note=frame["note"].astype(object),
    )
    np.testing.assert_array_equal(encoder.transform(drifted), features)
    assert encoder.notes(drifted) == []
    # A category of numbers that are written as text somewhere else.
    codes = Encoder.fit(pd.DataFrame({"c": pd.Series([1, 2, 1], dtype="category")}))
    for values in ([2, 1], ["2", "1"], [2.0, 1.0], ["2.0", "01"]):
        encoded = codes.transform(pd.DataFrame({"c": values}))
        np.testing.assert_array_equal(encoded, [[0, 1], [1, 0]])


def test_columns_of_other_kinds_count_as_missing_and_never_fail():
    frame = mixed()
    encoder = Encoder.fit(frame)
    for odd in ("abc", 5, 1e300, None, pd.Timestamp("1700-01-01"), [1], b"x", True, 1j):
        other = pd.DataFrame({name: pd.Series([odd, odd]) for name in encoder.columns})
        assert np.isfinite(encoder.transform(other)).all()
        assert all(len(note.splitlines()) == 1 for note in encoder.notes(other))


def test_missing_columns_are_all_named():
    encoder = Encoder.fit(pd.DataFrame({"age": [1, 2], "color": ["a", "a"], "size": [3, 4]}))
    with pytest.raises(UnknownNameError) as caught:
        encoder.transform(pd.DataFrame({"Age": [1], "weight": [2]}))
    assert str(caught.value) == (
        "Unknown columns 'age' (did you mean 'Age'?), 'size'. "
        "The table has 2 columns: 'Age', 'weight'."
    )
    with pytest.raises(UnknownNameError, match="Unknown columns 'age'"):
        encoder.notes(pd.DataFrame({"weight": [2]}))


def test_notes_say_what_is_unusual():
    train = pd.DataFrame(
        {
            "age": [30.0, 40.0, 50.0, None],
            "dose": [1.0, 2.0, 3.0, 4.0],
            "color": ["red", "blue", "red", "blue"],
            "visit": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"],
        }
    )
    encoder = Encoder.fit(train)
    assert encoder.notes(train) == []
    assert encoder.notes(train[:0]) == []
    new = pd.DataFrame(
        {
            "age": [None, None, None, None],
            "dose": ["1", "2 mg", None, "1000"],
            "color": ["teal", "teal", "mauve", None],
            "visit": ["2020-01-01", "soon", "2020-01-02", "2020-01-02"],
        }
    )
    assert encoder.notes(new) == [
        "Every value of 'age' is missing.",
        "1 of 4 values of 'dose' cannot be read as a number (the first is '2 mg'); they count as "
        "missing.",
        "2 of 4 values of 'dose' count as missing; none did in training, so each takes the median.",
        "25 % of the values of 'dose' lie more than 10 standard deviations from the training "
        "mean; they are clipped.",
        "1 of 4 values of 'color' are missing; none was in training, so such rows have none of "
        "its features.",
        "'color' holds 2 categories not learned in training: 'teal' (2 rows), 'mauve' (1 row); "
        "such rows have none of its features.",
        "1 of 4 values of 'visit' cannot be read as a date (the first is 'soon'); they count as "
        "missing.",
        "1 of 4 values of 'visit' count as missing; none did in training, so each takes the "
        "median.",
    ]
    many = encoder.notes(train.assign(color=list("abcd")))
    assert many == [
        "'color' holds 4 categories not learned in training: 'a' (1 row), 'b' (1 row), "
        "'c' (1 row) and 1 more; such rows have none of its features."
    ]


def test_what_cannot_be_fitted():
    with pytest.raises(EnvironmentsError) as caught:
        Encoder.fit(pd.DataFrame({"same": [1, 1], "id": ["a", "b"]}))
    assert str(caught.value) == (
        "Expected at least one column to learn from, got none of use among 2 ('same': constant; "
        "'id': every value is different (an identifier)). Add columns that vary over the rows."
    )
    with pytest.raises(EnvironmentsError, match=r"got none of use among 0. Add columns"):
        Encoder.fit(pd.DataFrame(index=[0, 1]))
    twice = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(EnvironmentsError, match="every column name once, got 'a' several times"):
        Encoder.fit(twice)
    with pytest.raises(EnvironmentsError, match="every column name once, got 'a' several times"):
        Encoder.fit(pd.DataFrame({"a": [1, 2]})).transform(twice)
    with pytest.raises(OptionError, match=r"Expected max_categories of at least 1, got 0. Raise"):
        Encoder.fit(mixed(), max_categories=0)
    with pytest.raises(OptionError, match=r"Expected text_features of at least 1, got 0. Raise"):
        Encoder.fit(mixed(), text_features=0)


def test_state_is_plain_json_and_transforms_alike():
    frame = mixed()
    encoder = Encoder.fit(frame)
    again = Encoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    new = mixed(seed=1)
    np.testing.assert_array_equal(again.transform(new), encoder.transform(new))
    assert again.notes(new) == encoder.notes(new)


def state():
    return Encoder.fit(mixed()).to_json()


def part(content, column):
    return next(encoding for encoding in content["columns"] if encoding["column"] == column)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.update(version=2),
        lambda s: s.update(more=1),
        lambda s: s.update(columns=[]),
        lambda s: s.update(columns="age"),
        lambda s: s.pop("dropped"),
        lambda s: s["dropped"].update(age="also read"),
        lambda s: s["dropped"].update(id=5),
        lambda s: s["columns"].append(copy.deepcopy(s["columns"][0])),
        lambda s: s["columns"].append({"kind": "pickle", "column": "x"}),
        lambda s: s["columns"].append(None),
        lambda s: part(s, "age")["standard"].update(scale=0.0),
        lambda s: part(s, "age")["standard"].update(scale=-1.0),
        lambda s: part(s, "age")["standard"].update(mean=float("nan")),
        lambda s: part(s, "age")["standard"].update(median=float("inf")),
        lambda s: part(s, "age")["standard"].update(mean=10**400),
        lambda s: part(s, "age")["standard"].update(mean="1.0"),
        lambda s: part(s, "age")["standard"].update(missing=1),
        lambda s: part(s, "age").update(column=5),
        lambda s: part(s, "age").update(more=5),
        lambda s: part(s, "visit").pop("times"),
        lambda s: part(s, "color").update(categories=[]),
        lambda s: part(s, "color").update(categories=["red", "red"]),
        lambda s: part(s, "color").update(categories=["red", None]),
        lambda s: part(s, "color").update(categories="red"),
        lambda s: part(s, "color").update(categories=object()),
        lambda s: part(s, "note")["idf"].append(1.0),
        lambda s: part(s, "note").update(terms=["a"] * len(part(s, "note")["terms"])),
        lambda s: part(s, "note").update(terms=[], idf=[]),
        lambda s: part(s, "note").update(terms=["x"] * 10**5),
        lambda s: part(s, "note")["idf"].__setitem__(0, 0.0),
        lambda s: part(s, "note")["idf"].__setitem__(0, 1e300),
        lambda s: part(s, "note").update(terms={"x": 1}),
    ],
)
def test_hostile_state_is_refused(spoil):
    content = state()
    spoil(content)
    with pytest.raises(DataFileError) as caught:
        Encoder.from_json(content)
    message = str(caught.value)
    assert message.startswith("Expected the state of a table encoder, its content is not one (")
    assert len(message.splitlines()) == 1
    assert len(message) < 300


@pytest.mark.parametrize("content", [None, 5, "x", [], {}, float("nan"), object(), b"{}"])
def test_content_of_another_form_is_refused(content):
    with pytest.raises(DataFileError, match="Expected the state of a table encoder"):
        Encoder.from_json(content)


def test_endless_content_is_refused():
    content = state()
    content["columns"].append(content)
    with pytest.raises(DataFileError, match="Expected the state of a table encoder"):
        Encoder.from_json(content)
