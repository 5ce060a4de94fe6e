"""Parquet and Feather tables: whole, checked, and refused with the reason."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from invlearn.errors import DataFileError, OptionError, UnknownNameError
from invlearn.tables import ParquetTable, read_table

ROWS = 1000


def table():
    rng = np.random.default_rng(3)
    return pa.table(
        {
            "age": rng.integers(18, 90, ROWS),
            "score": pa.array([None if i % 7 == 0 else i / 3 for i in range(ROWS)]),
            "color": rng.choice(["red", "green", "blue"], ROWS),
            "a.b": pa.array([i % 2 == 0 for i in range(ROWS)]),
            "day": pa.array([datetime.date(2020, 1, 1 + i % 28) for i in range(ROWS)]),
            "kind": pa.array(["x", "y"] * (ROWS // 2)).dictionary_encode(),
        }
    )


@pytest.fixture(params=["parquet", "feather", "stream"])
def write(request, tmp_path):
    def write_file(content):
        if request.param == "parquet":
            pq.write_table(content, tmp_path / "t.pq", row_group_size=130)
            return tmp_path / "t.pq"
        path = tmp_path / "t.arrow"
        if request.param == "feather":
            feather.write_feather(content, path)
        else:
            with pa.ipc.new_stream(str(path), content.schema) as stream:
                stream.write_table(content)
        return path

    return write_file


def fault(path):
    with pytest.raises(DataFileError) as caught:
        read_table(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_values_arrive(write):
    frame = read_table(write(table()))
    expected = table().to_pydict()
    assert frame.columns.tolist() == list(expected)
    for name in ("age", "color", "a.b", "kind"):
        assert frame[name].tolist() == expected[name]
    assert np.array_equal(
        frame["score"], [np.nan if v is None else v for v in expected["score"]], equal_nan=True
    )
    assert frame["day"].dt.date.tolist() == expected["day"]


def test_named_index_stays_a_column_and_an_unnamed_one_goes(tmp_path):
    frame = pd.DataFrame({"id": [5, 7, 6], "x": [1.0, 2.0, 3.0]})
    named, unnamed = tmp_path / "named.parquet", tmp_path / "unnamed.parquet"
    frame.set_index("id").to_parquet(named)
    assert read_table(named).sort_index(axis=1).to_dict("list") == frame.to_dict("list")
    frame.set_axis([3, 9, 1]).to_parquet(unnamed)
    assert read_table(unnamed).columns.tolist() == ["id", "x"]
    assert ParquetTable(unnamed).column_names == ("id", "x")
    assert ParquetTable(unnamed).sample(3, seed=0)["x"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pa.table({"a": pa.array([1])}).slice(0, 0), "it holds only column names"),
        (pa.table({"a": pa.array([[1, 2]])}), "column 'a' holds 'list<"),
        (pa.table({"b": [1], "a": pa.array([{"x": 1}])}), "column 'a' holds 'struct<x: int64>'"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), "got 'a' several times"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", ""]), "column 2 has none"),
    ],
)
def test_tables_that_are_none(write, content, said):
    assert said in fault(write(content))


def test_cut_short(write):
    path = write(table())
    data = path.read_bytes()
    for length in (9, 100, len(data) // 2, len(data) - 9):
        path.write_bytes(data[:length])
        message = fault(path)
        assert "Could not read '" in message or "it holds only column names" in message


@pytest.mark.parametrize(
    ("values", "old", "new", "said"),
    [
        (pa.array(["needle", "b"]), b"needle", b"\xffeedle", "UTF8"),
        (
            pa.DictionaryArray.from_arrays(pa.array([1, 0, 1, 0], pa.int32()), ["x", "y"]),
            b"\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0",
            b"\1\0\0\0\0\0\0\0\1\0\0\x70\0\0\0\0",
            "out of bounds",
        ),
    ],
)
def test_corrupted_values_are_not_followed(tmp_path, values, old, new, said):
    path = tmp_path / "t.feather"
    feather.write_feather(pa.table({"a": values}), path, compression="uncompressed")
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    message = fault(path)
    assert "Could not read '" in message
    assert said in message


def test_dates_outside_the_calendar_count_as_missing(write):
    far = pa.array([0, 2**62, -(2**62)], pa.int64())
    content = pa.table(
        {
            "naive": far.cast(pa.timestamp("us")),
            "zoned": far.cast(pa.timestamp("us", "Asia/Tokyo")),
            "last": pa.array([datetime.datetime(9999, 12, 31), datetime.datetime(1, 1, 1), None]),
        }
    )
    frame = read_table(write(content))
    assert frame["naive"].isna().tolist() == frame["zoned"].isna().tolist() == [False, True, True]
    assert frame["last"].isna().tolist() == [False, False, True]
    assert str(frame["zoned"][0]) == "1970-01-01 09:00:00+09:00"


def test_feather_version_1(tmp_path):
    path = tmp_path / "old.feather"
    path.write_bytes(b"FEA1" + bytes(60))
    assert "it is Feather version 1. Write it again" in fault(path)


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(table(), path, row_group_size=130)
    return ParquetTable(path)


def test_parquet_table_equals_the_whole(parquet):
    whole = read_table(parquet.path)
    assert parquet.n_rows == ROWS
    assert parquet.column_names == tuple(whole.columns)
    batches = list(parquet.batches(rows=64))
    assert max(map(len, batches)) <= 64
    joined = pd.concat(batches, ignore_index=True)
    pd.testing.assert_frame_equal(joined, whole, check_categorical=False, check_dtype=False)
    chosen = pd.concat(parquet.batches(["color", "a.b"]), ignore_index=True)
    pd.testing.assert_frame_equal(chosen, whole[["color", "a.b"]])


def test_estimated_bytes_is_near_the_truth(parquet):
    truth = read_table(parquet.path).memory_usage(index=False, deep=True).sum()
    assert 0.8 * truth < parquet.estimated_bytes < 1.25 * truth


def test_sample_is_spread_seeded_and_true(parquet):
    whole = read_table(parquet.path)
    sample = parquet.sample(100, seed=1)
    # One row of each stretch of ten.
    assert (sample.index.to_numpy() // 10).tolist() == list(range(100))
    pd.testing.assert_frame_equal(sample, whole.loc[sample.index], check_dtype=False)
    pd.testing.assert_frame_equal(sample, parquet.sample(100, seed=1))
    assert sample.index.tolist() != parquet.sample(100, seed=2).index.tolist()
    assert parquet.sample(7, seed=0, columns=["color"]).columns.tolist() == ["color"]
    assert parquet.sample(10**9, seed=0).index.tolist() == list(range(ROWS))


def test_every_row_is_drawn_equally_often(parquet):
    drawn = np.concatenate([parquet.sample(300, seed, ["age"]).index for seed in range(60)])
    counts = np.bincount(drawn, minlength=ROWS)
    # 18 draws a row on average with a deviation below 4: seven deviations are never met.
    assert counts.min() > 0
    assert counts.max() < 46
    assert abs(counts[:130].mean() - 18) < 2
    assert abs(counts[-130:].mean() - 18) < 2


def test_one_column_with_strings_held_once(parquet):
    color = parquet.column("color")
    assert isinstance(color.dtype, pd.CategoricalDtype)
    assert color.tolist() == table()["color"].to_pylist()
    assert parquet.column("age").tolist() == table()["age"].to_pylist()
    assert parquet.column("a.b").tolist() == table()["a.b"].to_pylist()


def test_parquet_table_errors(parquet, tmp_path):
    with pytest.raises(UnknownNameError, match=r"Unknown column 'agee' \(did you mean 'age'\?\)\."):
        parquet.column("agee")
    with pytest.raises(UnknownNameError, match=r"Unknown columns 'x', 'colour' \(did you mean"):
        parquet.sample(5, seed=0, columns=["x", "colour"])
    with pytest.raises(UnknownNameError, match="Unknown column 'x'"):
        parquet.batches(["x"])
    with pytest.raises(OptionError, match=r"a sample of at least 1 row, got 0. Raise it."):
        parquet.sample(0, seed=0)
    with pytest.raises(OptionError, match=r"batches of at least 1 row, got 0. Raise it."):
        parquet.batches(rows=0)
    text = tmp_path / "t.csv"
    text.write_text("a\n1\n")
    with pytest.raises(
        DataFileError, match=r"Expected a Parquet file, .* holds CSV. Write it as Parquet."
    ):
        ParquetTable(text)
    with pytest.raises(DataFileError, match="does not exist"):
        ParquetTable(tmp_path / "none.parquet")


def test_corrupted_rows_show_when_they_are_read(parquet):
    data = bytearray(parquet.path.read_bytes())
    data[40:400] = bytes(360)
    parquet.path.write_bytes(data)
    broken = ParquetTable(parquet.path)
    for read in (
        lambda: list(broken.batches()),
        lambda: broken.sample(5, seed=0),
        lambda: broken.column("age"),
        lambda: broken.estimated_bytes,
    ):
        with pytest.raises(DataFileError, match=r"Could not read .* as Parquet: "):
            read()


def test_decimals_and_durations_arrive(write):
    content = pa.table(
        {
            "price": pa.array([decimal.Decimal("1.50"), None]),
            "length": pa.array([datetime.timedelta(hours=2), None]),
        }
    )
    frame = read_table(write(content))
    assert frame["price"][0] == decimal.Decimal("1.50")
    assert frame["length"][0] == pd.Timedelta(hours=2)
